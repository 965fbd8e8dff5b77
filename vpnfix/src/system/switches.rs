//! Switches of devices that turn IPsec off on them (Documentation/networking/ip-sysctl.rst).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::sysctl;
use crate::core::verify::Switches;

/// Those of all devices together.
const ALL: &str = "/proc/sys/net/ipv4/conf/all";

/// The switches of these devices as they take effect: the device's own or that of all. The namespace is that of the calling
/// thread, which /proc/sys goes by. A device that is gone has none.
///
/// # Errors
/// Those of all devices cannot be read.
pub fn read<'a>(devices: impl Iterator<Item = (u32, &'a str)>) -> io::Result<BTreeMap<u32, Switches>> {
    let all = of(Path::new(ALL))?;
    let merged = |(index, name): (u32, &str)| {
        let own = of(&sysctl::of_device(name)?).ok()?;
        let switches = Switches {
            disable_policy: own.disable_policy || all.disable_policy,
            disable_xfrm: own.disable_xfrm || all.disable_xfrm,
        };
        Some((index, switches))
    };
    Ok(devices.filter_map(merged).collect())
}

fn of(directory: &Path) -> io::Result<Switches> {
    let is_on = |name: &str| fs::read_to_string(directory.join(name)).map(|text| text.trim() != "0");
    Ok(Switches { disable_policy: is_on("disable_policy")?, disable_xfrm: is_on("disable_xfrm")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_checks_no_policy() {
        // The kernel makes it so (`inetdev_event` in `net/ipv4/devinet.c`).
        let devices = [(1, "lo"), (2, "../all"), (3, "no-such-device")];
        let switches = read(devices.into_iter()).unwrap();
        assert_eq!(switches.len(), 1);
        assert!(switches[&1].disable_policy && switches[&1].disable_xfrm);
    }
}
