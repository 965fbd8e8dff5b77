//! Settings of the kernel that bear on tunnels (Documentation/networking/ip-sysctl.rst), as they stand in /proc/sys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/proc/sys/net/ipv4";
/// Settings of each device.
const OF_DEVICES: [&str; 9] = [
    "rp_filter",
    "forwarding",
    "disable_policy",
    "disable_xfrm",
    "src_valid_mark",
    "accept_local",
    "route_localnet",
    "send_redirects",
    "accept_redirects",
];
/// Settings of the namespace.
const OF_ALL: [&str; 4] = ["ip_forward", "fwmark_reflect", "tcp_fwmark_accept", "fib_multipath_hash_policy"];

/// The settings of these devices, of all together and of the namespace, by their sysctl names. The namespace is that of the
/// calling thread. What this kernel does not have is left out.
#[must_use]
pub fn read<'a>(devices: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut take = |name: String, path: &Path| {
        if let Ok(value) = fs::read_to_string(path) {
            found.insert(name, value.trim().to_owned());
        }
    };
    for name in OF_ALL {
        take(format!("net.ipv4.{name}"), &Path::new(ROOT).join(name));
    }
    for device in ["all", "default"].into_iter().chain(devices) {
        let Some(folder) = of_device(device) else { continue };
        for name in OF_DEVICES {
            take(format!("net.ipv4.conf.{device}.{name}"), &folder.join(name));
        }
    }
    found
}

/// Where the settings of a device lie, of all together (`all`), or of those to come (`default`). The kernel allows no slash
/// in a name, but the name came from a message: none for one that leads elsewhere.
pub(super) fn of_device(name: &str) -> Option<PathBuf> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    plain.then(|| Path::new(ROOT).join("conf").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_has_them() {
        let found = read(["lo", "../all", "no-such-device"].into_iter());
        assert_eq!(found["net.ipv4.conf.lo.disable_xfrm"], "1");
        assert!(found.contains_key("net.ipv4.ip_forward") && found.contains_key("net.ipv4.conf.all.rp_filter"));
        assert!(found.keys().all(|name| !name.contains("..")), "{found:?}");
    }
}
