//! What is seen of a host beside its routing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use vpnfix::core::control::{Neighbours, TcpConnection};
use vpnfix::core::model::{LinkKind, Snapshot};
use vpnfix::core::owner::{Clues, PidFile, Process, Whereabouts};
use vpnfix::core::strongswan::{Configuration, File};

/// `signs.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Signs {
    /// Devices named with `--tunnel`.
    pub(crate) tunnels: Vec<String>,
    /// Maker of the machine, as its firmware tells.
    vendor: Option<String>,
    /// Name servers in use.
    resolvers: Vec<IpAddr>,
    /// Established TCP connections.
    connections: Vec<Connection>,
    /// Programs that run in the host's namespace: all of them, as far as they matter.
    processes: Vec<Running>,
    /// Files that hold the process id of a program.
    pid_files: BTreeMap<String, u32>,
    /// Sockets and folders of programs.
    files: Vec<String>,
    /// Units that systemd holds active.
    units: Vec<String>,
    /// Names of routing tables (`rt_tables`), the number before the name as there.
    tables: BTreeMap<String, String>,
    /// strongSwan's configuration, each file by its path. They were last changed at [`CHANGED`].
    strongswan: BTreeMap<String, String>,
    /// What a link of the script stands for, by the kernel's name of that kind. A dummy that is not named here stands for
    /// a physical card.
    stands_for: BTreeMap<String, String>,
    /// Rules that a newer kernel would show with attributes that vpnfix does not know: the recorded snapshot is edited.
    newer_kernel: Vec<NewerKernel>,
}

/// When strongSwan's files were last changed, in seconds since the Unix epoch: between the starts that the signs tell of.
const CHANGED: u64 = 1_700_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    local: IpAddr,
    peer: IpAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    name: String,
    pid: u32,
    /// In seconds since the Unix epoch.
    started: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewerKernel {
    /// Priority of the rule. Its firewall mark, which stands for the selector that vpnfix does not know, is taken away.
    rule: u32,
    /// Numbers of the attributes.
    unknown_attributes: Vec<u16>,
}

impl Signs {
    /// As `system::host` would read them.
    pub(crate) fn neighbours(&self) -> Neighbours {
        let connection = |connection: &Connection| TcpConnection { local: connection.local, peer: connection.peer };
        Neighbours {
            resolvers: self.resolvers.clone(),
            connections: self.connections.iter().map(connection).collect(),
            ..Neighbours::default()
        }
    }

    /// As `system::clues` would gather them.
    pub(crate) fn clues(&self) -> Clues {
        let process = |running: &Running| Process {
            name: running.name.clone(),
            pid: running.pid,
            whereabouts: Whereabouts::Here,
            started: running.started,
        };
        let runs = |pid: u32| self.processes.iter().any(|running| running.pid == pid);
        let pid_file =
            |(path, pid): (&String, &u32)| PidFile { path: path.clone(), pid: Some(*pid), alive: runs(*pid) };
        Clues {
            processes: self.processes.iter().map(process).collect(),
            all_processes: true,
            pid_files: self.pid_files.iter().map(pid_file).collect(),
            paths: self.files.clone(),
            units: self.units.clone(),
            table_names: self.tables.iter().map(|(number, name)| (number.parse().unwrap(), name.clone())).collect(),
            protocol_names: BTreeMap::new(),
            strongswan: self.configuration(),
        }
    }

    fn configuration(&self) -> Configuration {
        let entries: Vec<&str> = self.strongswan.keys().map(String::as_str).collect();
        // The files are no patterns here, and none includes another.
        let mut files = |path: &str| {
            let text = self.strongswan.get(path).map(|text| Ok(text.clone()));
            let file = |text| File { path: path.into(), text, modified: Some(CHANGED) };
            text.map(file).into_iter().collect()
        };
        Configuration::read(&entries, &mut files)
    }

    /// Makes of the snapshot of a played host that of the host which it stands for.
    pub(crate) fn dress(&self, snapshot: &mut Snapshot) {
        snapshot.host.vendor.clone_from(&self.vendor);
        for link in &mut snapshot.links {
            link.kind = match self.stands_for.get(&link.name) {
                Some(kind) => LinkKind::Other(kind.clone()),
                None if link.kind == LinkKind::Other("dummy".into()) => LinkKind::Plain,
                None => continue,
            };
        }
        for edit in &self.newer_kernel {
            for rule in snapshot.rules.iter_mut().filter(|rule| rule.priority == edit.rule) {
                rule.mark = None;
                rule.unknown_attributes.clone_from(&edit.unknown_attributes);
            }
        }
    }
}
