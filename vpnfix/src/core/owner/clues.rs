//! Signs of other programs on the host. Gathered outside of the core; a sign that is not there may just not have been
//! readable.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::strongswan::Configuration;

/// What was seen on the host beside its network state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clues {
    /// Running processes of the programs that matter.
    pub processes: Vec<Process>,
    /// Every process of the host could be seen: one that is not in the list does not run.
    pub all_processes: bool,
    /// Files with the process id of a daemon.
    pub pid_files: Vec<PidFile>,
    /// Sockets and directories of programs, by their paths.
    pub paths: Vec<String>,
    /// Units that systemd holds active, of the programs that matter. None if the namespace is not that of the host.
    pub units: Vec<String>,
    /// Names of routing tables (`rt_tables`).
    pub table_names: BTreeMap<u32, String>,
    /// Names of route protocols (`rt_protos`).
    pub protocol_names: BTreeMap<u8, String>,
    /// strongSwan's configuration.
    pub strongswan: Configuration,
}

impl Clues {
    /// The name that the host's `rt_tables` give to a table.
    #[must_use]
    pub fn table_name(&self, table: u32) -> Option<&str> {
        self.table_names.get(&table).map(String::as_str)
    }

    /// The name that the host's `rt_protos` give to a route protocol.
    #[must_use]
    pub fn protocol_name(&self, protocol: u8) -> Option<&str> {
        self.protocol_names.get(&protocol).map(String::as_str)
    }
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name (`/proc/PID/comm`, at most 15 bytes).
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Where it runs.
    pub whereabouts: Whereabouts,
    /// When it was started, in seconds since the Unix epoch.
    pub started: Option<u64>,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// Where a process runs, seen from the network namespace that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whereabouts {
    /// In this namespace.
    Here,
    /// In another one.
    Elsewhere,
    /// Its namespace may not be looked at.
    Unknown,
}

/// A file with the process id of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    /// Its path.
    pub path: String,
    /// The process id in it, if it is one.
    pub pid: Option<u32>,
    /// A process of this id runs, and it is the daemon by its name.
    pub alive: bool,
}
