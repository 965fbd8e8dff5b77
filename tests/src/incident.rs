//! The incident's gateway with its own names and addresses, as it was captured, in a namespace.
//!
//! No packet is sent here: what is asked is where one would go. Where the kernel has VTI the tunnels are VTIs, elsewhere
//! one end of a veth pair stands for each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::command::Run;
use crate::ip;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The gateway; it goes with this.
pub struct Incident {
    name: String,
    run_dir: PathBuf,
    real: bool,
}

impl Incident {
    /// The state after strongSwan came up, with the prefix that BGP then learns.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn hijacked() -> Self {
        let name = format!("vpnfix-i{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let run_dir = std::env::temp_dir().join(&name);
        ip::text(&["netns", "add", &name]);
        let mut incident = Self { name, run_dir, real: false };
        incident.real = incident.batch(&VTIS).is_ok();
        if !incident.real {
            incident.ip(&["link add vti1 type veth peer name far1", "link add vti2 type veth peer name far2"]);
            incident.ip(&["link set far1 up", "link set far2 up", "link set vti1 arp off", "link set vti2 arp off"]);
        }
        incident.ip(&BASE);
        // A batch has no way to say the family of a rule without addresses.
        ip::text(&["-6", "-n", incident.namespace(), "rule", "add", "from", "all", "lookup", "220", "priority", "220"]);
        incident
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.name
    }

    fn batch(&self, lines: &[&str]) -> anyhow::Result<()> {
        ip::batch(Some(&self.name), &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    /// Runs `ip` commands on it.
    ///
    /// # Panics
    ///
    /// If one is refused.
    #[track_caller]
    pub fn ip(&self, lines: &[&str]) {
        self.batch(lines).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// What one `ip` command prints on it.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn text(&self, arguments: &[&str]) -> String {
        ip::text(&[&["-n", &self.name], arguments].concat())
    }

    /// What `ip route get` says, as JSON; `None` where the kernel refuses.
    ///
    /// # Panics
    ///
    /// If `ip` says no JSON.
    pub fn route_get(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.name, "-N", "-j", "route", "get"]).args(arguments).output();
        let output = output.expect("ip could not be run");
        let list: Option<Value> =
            output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"));
        list.map(|mut list| list[0].take())
    }

    /// Runs vpnfix on it.
    #[track_caller]
    pub fn vpnfix(&self, further: &[&str]) -> Run {
        let mut words = vec!["--netns", &self.name];
        if !self.real {
            words.extend(["--tunnel", "vti1", "--tunnel", "vti2"]);
        }
        words.extend(further);
        Run::new(&self.run_dir, &words)
    }
}

impl Drop for Incident {
    fn drop(&mut self) {
        if Path::new("/run/netns").join(&self.name).exists() {
            let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        }
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

const VTIS: [&str; 2] = [
    "link add vti1 type vti local 192.168.12.49 remote 203.0.113.10 key 1",
    "link add vti2 type vti local 192.168.12.49 remote 203.0.113.18 key 2",
];

const BASE: [&str; 23] = [
    "link set lo up",
    "link add ens5 type veth peer name lan",
    "link set ens5 addrgenmode none",
    "link set lan addrgenmode none",
    "link set vti1 addrgenmode none",
    "link set vti2 addrgenmode none",
    "addr add 192.168.12.49/24 dev ens5",
    "link set lan up",
    "link set ens5 up",
    "addr add 169.254.55.54/30 dev vti1",
    "addr add 169.254.253.50/30 dev vti2",
    "link set vti1 up",
    "link set vti2 up",
    "route add default via 192.168.12.1 dev ens5",
    "route add 10.20.0.0/16 via 169.254.55.53 dev vti1 proto bgp metric 20",
    "route add default via 192.168.12.1 dev ens5 proto static table 220",
    "rule add from all lookup 220 priority 220",
    "addr add fd00:55::2/126 dev vti1 nodad",
    "addr add 2001:db8:12::49/64 dev ens5 nodad",
    "neigh add 2001:db8:12::1 lladdr 02:00:00:00:12:01 nud permanent dev ens5",
    "route add ::/0 via 2001:db8:12::1 dev ens5",
    "route add 2001:db8:20::/48 via fd00:55::1 dev vti1 proto bgp",
    "route add ::/0 via 2001:db8:12::1 dev ens5 proto static table 220",
];
