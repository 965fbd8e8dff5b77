//! The machine beside its network: its clock, what systemd-networkd is told about rules of others, what keeps vpnfix's
//! rules over a reboot.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::verify::{Machine, Networkd};

/// Where systemd looks for configuration, the strongest last (systemd.unit(5), networkd.conf(5)).
const DIRECTORIES: [&str; 4] = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];
/// While systemd-networkd runs, systemd keeps this link (`unit_export_invocation_id` in `src/core/unit.c`).
const NETWORKD_RUNS: &str = "/run/systemd/units/invocation:systemd-networkd.service";
/// Where something that brings vpnfix's rules back at boot has its name.
const KEEPERS: [&str; 5] = [
    "/etc/systemd/system/*vpnfix*.service",
    "/etc/systemd/network/*vpnfix*",
    "/etc/systemd/network/*.d/*vpnfix*",
    "/etc/network/if-up.d/*vpnfix*",
    "/etc/netplan/*vpnfix*",
];

/// What is known of it. Units and files are the host's: seen from another network namespace they are nothing of it.
#[must_use]
pub fn look() -> Machine {
    let own = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).ok();
    let is_hosts = own("thread-self").zip(own("1")).is_some_and(|(here, host)| {
        use std::os::unix::fs::MetadataExt as _;
        here.ino() == host.ino()
    });
    Machine {
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        clock_synchronised: clock_synchronised(),
        networkd: (is_hosts && fs::symlink_metadata(NETWORKD_RUNS).is_ok())
            .then(|| networkd(&DIRECTORIES.map(Path::new))),
        persisted_by: if is_hosts { keepers() } else { Vec::new() },
    }
}

/// Does the kernel hold its clock for synchronised (adjtimex(2))?
fn clock_synchronised() -> Option<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: an all-zero timex is valid, it is of plain integers; its `modes` of 0 asks and changes nothing, and the kernel
    // fills it in whole.
    let (outcome, state) = unsafe {
        let outcome = libc::adjtimex(state.as_mut_ptr());
        (outcome, state.assume_init())
    };
    (outcome >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

fn keepers() -> Vec<String> {
    let found = KEEPERS.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
    found.map(|path| path.display().to_string()).collect()
}

/// networkd.conf of the strongest directory that has one, then all drop-ins by their names, of each name the strongest's.
fn networkd(directories: &[&Path]) -> Networkd {
    let main = directories.iter().rev().map(|directory| directory.join("networkd.conf")).find(|path| path.is_file());
    let mut dropins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        let entries = fs::read_dir(directory.join("networkd.conf.d")).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
        dropins.extend(files.map(|entry| (entry.file_name(), entry.path())));
    }
    let mut found = Networkd { deletes_foreign_rules: true, said_by: None };
    for path in main.into_iter().chain(dropins.into_values()) {
        // A drop-in can be masked by a link to /dev/null, which reads as empty.
        let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        if let Some(manages) = manages_foreign_rules(&text) {
            found = Networkd { deletes_foreign_rules: manages, said_by: Some(path.display().to_string()) };
        }
    }
    found
}

/// The last `ManageForeignRoutingPolicyRules=` of section `[Network]`.
fn manages_foreign_rules(text: &str) -> Option<bool> {
    let mut in_network = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_network = line == "[Network]";
        } else if let Some((key, value)) = line.split_once('=')
            && in_network
            && key.trim() == "ManageForeignRoutingPolicyRules"
        {
            found = match value.trim().to_ascii_lowercase().as_str() {
                "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
                "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
                // systemd warns of what it does not understand, and goes by what it had.
                _ => found,
            };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_read_from_its_section_alone() {
        let key = "ManageForeignRoutingPolicyRules";
        assert_eq!(manages_foreign_rules(&format!("[Network]\n#{key}=yes\n {key} = no \n")), Some(false));
        assert_eq!(manages_foreign_rules(&format!("[Network]\n{key}=no\n{key}=yes\n{key}=maybe\n")), Some(true));
        assert_eq!(manages_foreign_rules(&format!("[DHCPv4]\n{key}=no\n")), None);
    }

    #[test]
    fn drop_ins_come_after_the_file_and_the_strongest_of_a_name_counts() {
        let root = std::env::temp_dir().join(format!("vpnfix-networkd-{}", std::process::id()));
        let (lib, etc) = (root.join("lib"), root.join("etc"));
        let write = |path: PathBuf, value: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("[Network]\nManageForeignRoutingPolicyRules={value}\n")).unwrap();
        };
        let found = |directories: [&Path; 2]| networkd(&directories).deletes_foreign_rules;
        assert!(found([&lib, &etc]));
        write(etc.join("networkd.conf"), "no");
        assert!(!found([&lib, &etc]));
        write(lib.join("networkd.conf.d/10-a.conf"), "yes");
        assert!(found([&lib, &etc]));
        write(etc.join("networkd.conf.d/10-a.conf"), "no");
        let told = networkd(&[&lib, &etc]);
        fs::remove_dir_all(&root).unwrap();
        assert!(!told.deletes_foreign_rules);
        assert!(told.said_by.unwrap().ends_with("etc/networkd.conf.d/10-a.conf"));
    }

    #[test]
    fn the_clock_runs() {
        assert!(look().now > 1_704_067_200);
    }
}
