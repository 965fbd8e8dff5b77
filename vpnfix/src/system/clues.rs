//! Signs of other programs on the host, for telling who owns a rule.

use std::fs;
use std::path::Path;

use crate::core::owner::Clues;

/// Names of strongSwan's daemons in /proc/PID/comm.
const DAEMONS: [&str; 3] = ["charon", "charon-systemd", "charon-nm"];
/// Files that a running daemon keeps (`charon.pid`, the vici socket), with the older places.
const FILES: [&str; 4] = ["/run/charon.pid", "/run/charon.vici", "/var/run/charon.pid", "/var/run/charon.vici"];

/// Looks for them. What cannot be read is no sign.
#[must_use]
pub fn gather() -> Clues {
    let mut strongswan = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Ok(comm) = fs::read_to_string(entry.path().join("comm"))
            && DAEMONS.contains(&comm.trim_end())
        {
            strongswan.push(format!("process {} ({pid}) runs", comm.trim_end()));
        }
    }
    // /var/run is a link to /run on most hosts: one sign is enough.
    if let Some(file) = FILES.iter().find(|file| Path::new(file).exists()) {
        strongswan.push(format!("{file} exists"));
    }
    Clues { strongswan }
}
