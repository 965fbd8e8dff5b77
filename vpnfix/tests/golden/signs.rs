//! What is seen of a host beside its routing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use vpnfix::core::control::{Neighbours, TcpConnection};
use vpnfix::core::model::{LinkKind, Snapshot};
use vpnfix::core::owner::Clues;

/// `signs.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Signs {
    /// Devices named with `--tunnel`.
    pub(crate) tunnels: Vec<String>,
    /// Name servers in use.
    resolvers: Vec<IpAddr>,
    /// Established TCP connections.
    connections: Vec<Connection>,
    /// Programs that run in the host's namespace.
    processes: Vec<Process>,
    /// Pid files and sockets of running programs.
    files: Vec<String>,
    /// What a link of the script stands for, by the kernel's name of that kind. A dummy that is not named here stands for
    /// a physical card.
    stands_for: BTreeMap<String, String>,
    /// Rules that a newer kernel would show with attributes that vpnfix does not know: the recorded snapshot is edited.
    newer_kernel: Vec<NewerKernel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    local: IpAddr,
    peer: IpAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    name: String,
    pid: u32,
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
        Neighbours { resolvers: self.resolvers.clone(), connections: self.connections.iter().map(connection).collect() }
    }

    /// As `system::clues` would gather them.
    pub(crate) fn clues(&self) -> Clues {
        let strongswan = |name: &str| name.starts_with("charon");
        let processes = self.processes.iter().filter(|process| strongswan(&process.name));
        let files = self.files.iter().filter(|file| file.rsplit('/').next().is_some_and(strongswan));
        let told = processes.map(|process| format!("process {} ({}) runs", process.name, process.pid));
        Clues { strongswan: told.chain(files.take(1).map(|file| format!("{file} exists"))).collect() }
    }

    /// Makes of the snapshot of a played host that of the host which it stands for.
    pub(crate) fn dress(&self, snapshot: &mut Snapshot) {
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
