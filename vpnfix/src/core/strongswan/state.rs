//! In what state strongSwan's rule and routes are: kept by a daemon, waiting for its restart, or left over.

use std::fmt;

use super::{Daemon, Place, Settings};
use crate::core::model::{Snapshot, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::core::owner::{Clues, Process, Whereabouts};

/// The state of strongSwan's table in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A daemon runs here and keeps its table.
    Running {
        /// Its process.
        process: Process,
    },
    /// `install_routes` is off in the files, and the daemon that runs here still has routes in its table: it reads the
    /// setting when it starts, and at no other time.
    PendingRestart {
        /// Its process.
        process: Process,
        /// Where the setting was made.
        place: Place,
        /// That file was changed after the daemon had started; `None` where one of the times is not known.
        changed_since: Option<bool>,
    },
    /// No daemon keeps them: one that was killed leaves its rule, routes and SAs behind.
    LeftOver {
        /// A daemon that runs here, and was started when `install_routes` was off already.
        beside: Option<(Process, Place)>,
    },
    /// `install_routes` is off and the table is empty: the rule does nothing.
    RuleAlone {
        /// Where the setting was made.
        place: Place,
    },
    /// Cannot be told.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { process } => write!(f, "{process} keeps it"),
            Self::PendingRestart { process, place, changed_since: Some(true) } => {
                write!(f, "install_routes was switched off at {place} after {process} had started: a restart is due")
            }
            Self::PendingRestart { process, place, .. } => {
                write!(f, "install_routes is off at {place}, but {process} still has routes: a restart is due")
            }
            Self::LeftOver { beside: None } => {
                write!(f, "no daemon of strongSwan runs in this namespace: it would be a left-over of a dead one")
            }
            Self::LeftOver { beside: Some((process, place)) } => write!(
                f,
                "{process} was started with install_routes off ({place}): the routes are a left-over of a dead daemon, \
                 or it reads another configuration"
            ),
            Self::RuleAlone { place } => {
                write!(f, "install_routes is off at {place} and the table is empty: the rule does nothing")
            }
            Self::Unknown => write!(f, "whether a daemon still keeps it could not be seen"),
        }
    }
}

/// The daemon whose table this is, by its settings or by its defaults: a daemon that runs here comes before others.
#[must_use]
pub fn daemon_of(clues: &Clues, table: u32) -> Option<Settings> {
    let mut daemons = Daemon::ALL;
    daemons.sort_by_key(|daemon| running(clues, &[*daemon]).is_none());
    // A setting that was changed since leaves the daemon with its former table, its default most likely.
    let configured = daemons.iter().map(|daemon| clues.strongswan.settings(*daemon));
    let default = daemons.iter().map(|daemon| Settings::defaults(*daemon));
    // Routes that are sent to one of the kernel's own tables cannot be told from others' by the table.
    let own = !matches!(table, 0 | TABLE_DEFAULT | TABLE_MAIN | TABLE_LOCAL);
    configured.chain(default).find(|settings| own && settings.routing_table.value == table)
}

/// The daemons of these that run here, with their processes.
#[must_use]
pub fn running_here(clues: &Clues, daemons: &[Daemon]) -> Vec<(Daemon, Process)> {
    let here = clues.processes.iter().filter(|process| process.whereabouts == Whereabouts::Here);
    let named = here.filter_map(|process| Some((daemon_named(process)?, process.clone())));
    named.filter(|(daemon, _)| daemons.contains(daemon)).collect()
}

/// Does a daemon run with what a setting was before? It reads its files only when it starts. Times are known to the
/// second: of the same second the answer is yes.
#[must_use]
pub fn reads_former(process: &Process, place: &Place) -> bool {
    place.modified.zip(process.started).is_none_or(|(modified, started)| modified >= started)
}

/// The state of a daemon's table.
#[must_use]
pub fn state(snapshot: &Snapshot, clues: &Clues, daemon: Daemon, table: u32) -> State {
    let has_routes = snapshot.routes.iter().any(|route| route.table == table);
    let peers = peers(daemon);
    let process = running(clues, peers);
    let daemon = process.and_then(daemon_named).unwrap_or(daemon);
    match (process, switched_off(clues, daemon), has_routes) {
        (_, Some(place), false) => State::RuleAlone { place },
        (Some(process), Some(place), true) => {
            let process = process.clone();
            match place.modified.zip(process.started).map(|(modified, started)| modified > started) {
                Some(false) => State::LeftOver { beside: Some((process, place)) },
                changed_since => State::PendingRestart { process, place, changed_since },
            }
        }
        (Some(process), None, _) => State::Running { process: process.clone() },
        (None, _, _) if may_run_unseen(clues, peers) => State::Unknown,
        (None, _, _) => State::LeftOver { beside: None },
    }
}

/// Where `install_routes` is switched off, if the configuration was read without gaps.
fn switched_off(clues: &Clues, daemon: Daemon) -> Option<Place> {
    let setting = clues.strongswan.settings(daemon).install_routes;
    setting.place.filter(|_| !setting.value && clues.strongswan.is_complete())
}

/// The daemons that share a table by default.
fn peers(daemon: Daemon) -> &'static [Daemon] {
    match daemon {
        Daemon::CharonNm => &[Daemon::CharonNm],
        Daemon::Charon | Daemon::CharonSystemd | Daemon::CharonCmd => {
            &[Daemon::CharonSystemd, Daemon::Charon, Daemon::CharonCmd]
        }
    }
}

fn daemon_named(process: &Process) -> Option<Daemon> {
    Daemon::ALL.into_iter().find(|daemon| daemon.name() == process.name)
}

fn is_one_of(process: &Process, daemons: &[Daemon]) -> bool {
    daemon_named(process).is_some_and(|daemon| daemons.contains(&daemon))
}

fn running<'a>(clues: &'a Clues, daemons: &[Daemon]) -> Option<&'a Process> {
    let here = |process: &&Process| process.whereabouts == Whereabouts::Here;
    clues.processes.iter().filter(here).find(|process| is_one_of(process, daemons))
}

/// A daemon may run here all the same: not all processes could be seen, or not their namespaces, or a pid file names a
/// process that lives.
fn may_run_unseen(clues: &Clues, daemons: &[Daemon]) -> bool {
    let elsewhere = |pid| {
        let process = clues.processes.iter().find(|process| Some(process.pid) == pid);
        process.is_some_and(|process| process.whereabouts == Whereabouts::Elsewhere)
    };
    let unclear = |process: &Process| process.whereabouts == Whereabouts::Unknown && is_one_of(process, daemons);
    !clues.all_processes
        || clues.processes.iter().any(unclear)
        || clues.pid_files.iter().any(|file| {
            let name = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".pid"));
            let of_daemon = daemons.iter().any(|daemon| Some(daemon.name()) == name);
            of_daemon && file.alive && !elsewhere(file.pid)
        })
}
