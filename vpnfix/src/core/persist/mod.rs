//! Rules that outlive a reboot: which of them are kept, by whom, and what has to be written for that.
//!
//! Nothing is written here, and nothing asked: managers and rules come in as values, files and commands go out as values.

mod choice;
mod compare;
mod facts;
mod ifupdown;
mod kept;
mod netplan;
mod network_manager;
mod networkd;
mod script;
mod selection;
mod shape;
mod systemd;

use std::path::PathBuf;

use thiserror::Error;

use super::model::Rule;
use super::own_file::Backend;

pub use choice::{Choice, uplinks};
pub use compare::{Comparison, compare, notes};
pub use facts::{
    Connection, Ifupdown, ManagedLink, Managers, Netplan, NetplanInterface, NetworkManager, Networkd, Release,
    foreign_rules_kept,
};
pub use kept::{Kept, KeptError};
pub use script::SCRIPT;
pub use selection::{foreign, to_keep};
pub use systemd::UNIT;

/// A file of vpnfix's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistFile {
    /// Where.
    pub path: PathBuf,
    /// What it holds, whole.
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// A program to run, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What for.
    pub why: String,
}

impl Invocation {
    fn new(argv: &[&str], why: &str) -> Self {
        Self { argv: argv.iter().map(ToString::to_string).collect(), why: why.into() }
    }

    /// As one would type it.
    #[must_use]
    pub fn words(&self) -> String {
        let plain = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./+:@=,%".contains(c));
        let quoted =
            |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
        self.argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// How rules are kept: what is to be written and run, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Who keeps them.
    pub backend: Backend,
    /// Why that one.
    pub why: String,
    /// The interface that they come with; none where they come with the boot.
    pub interface: Option<String>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// NetworkManager's profile that they are written into.
    pub connection: Option<Connection>,
    /// Files to write.
    pub files: Vec<PersistFile>,
    /// Programs that change something, after the files are there.
    pub commands: Vec<Invocation>,
    /// When the rules come back, and how to have that now.
    pub effect: String,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// Rules that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PersistError {
    /// The one asked for does not run here, or keeps no interface that the rules could come with.
    #[error("{}: {why}", name(*backend))]
    NotHere {
        /// Who was asked for.
        backend: Backend,
        /// Why not.
        why: String,
    },
    /// A rule that has no words there.
    #[error("{} cannot express `{rule}`: {why}", name(*backend))]
    Inexpressible {
        /// Who was asked for.
        backend: Backend,
        /// The rule.
        rule: String,
        /// What lacks.
        why: String,
    },
    /// Nobody keeps rules here.
    #[error("no systemd, systemd-networkd, NetworkManager or ifupdown runs here")]
    Nobody,
}

impl PersistError {
    fn not_here(backend: Backend, why: impl Into<String>) -> Self {
        Self::NotHere { backend, why: why.into() }
    }

    fn inexpressible(backend: Backend, rule: &Rule, why: impl Into<String>) -> Self {
        Self::Inexpressible { backend, rule: rule.to_string(), why: why.into() }
    }

    /// What to do instead.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Inexpressible { backend: Backend::Netplan, .. } => {
                Some("`vpnfix persist --backend networkd` can: netplan hands its interfaces to systemd-networkd")
            }
            Self::Inexpressible { .. } | Self::NotHere { .. } => {
                Some("`vpnfix persist` without --backend takes who really keeps the interface, or a unit of systemd")
            }
            Self::Nobody => None,
        }
    }
}

/// The name that a backend goes by.
#[must_use]
pub fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::Networkd => "systemd-networkd",
        Backend::NetworkManager => "NetworkManager",
        Backend::Netplan => "netplan",
        Backend::Ifupdown => "ifupdown",
        Backend::Systemd => "systemd",
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Who is to keep the rules; `None`: whoever really keeps the interface.
    pub backend: Option<Backend>,
    /// Also stop systemd-networkd from dropping rules that are not its own.
    pub keep_foreign: bool,
}

/// How these rules are kept on this host. `uplinks` are the interfaces that they may come with, the best first.
///
/// # Errors
/// The backend asked for is not there or cannot express a rule; nobody is there at all.
pub fn arrange(
    rules: &[Rule],
    managers: &Managers,
    uplinks: &[String],
    wish: Wish,
) -> Result<Arrangement, PersistError> {
    let mut arrangement = match wish.backend {
        Some(backend) => {
            let interface = choice::interface(backend, managers, uplinks)?;
            let choice = Choice { backend, interface, why: "asked for".into() };
            of(rules, managers, choice)?
        }
        None => first_that_can(rules, managers, uplinks)?,
    };
    if let Some(networkd) = &managers.networkd {
        networkd::about_foreign_rules(&mut arrangement, networkd, managers.systemd, wish.keep_foreign)?;
    } else if wish.keep_foreign {
        return Err(PersistError::not_here(Backend::Networkd, "does not run here, so it drops no rules"));
    }
    Ok(arrangement)
}

/// The first choice that has words for all rules. What the others lack is told.
fn first_that_can(rules: &[Rule], managers: &Managers, uplinks: &[String]) -> Result<Arrangement, PersistError> {
    let mut refused: Vec<PersistError> = Vec::new();
    for choice in choice::choices(managers, uplinks) {
        match of(rules, managers, choice) {
            Ok(mut arrangement) => {
                arrangement.notes.extend(refused.iter().map(|error| format!("not by the first choice: {error}")));
                return Ok(arrangement);
            }
            Err(error) => refused.push(error),
        }
    }
    Err(refused.into_iter().next().unwrap_or(PersistError::Nobody))
}

fn of(rules: &[Rule], managers: &Managers, choice: Choice) -> Result<Arrangement, PersistError> {
    match choice.backend {
        Backend::Networkd => networkd::arrange(rules, managers, choice),
        Backend::NetworkManager => network_manager::arrange(rules, managers, choice),
        Backend::Netplan => netplan::arrange(rules, managers, choice),
        Backend::Ifupdown => ifupdown::arrange(rules, choice),
        Backend::Systemd => systemd::arrange(rules, choice),
    }
}

/// The first lines of each file: whoever finds it knows whose it is.
fn heading() -> String {
    "# Written by `vpnfix persist`, taken away by `vpnfix unpersist`. Do not edit: vpnfix keeps no file that was changed.\n\
     # Policy rules that keep the traffic of route-based VPNs in its tunnels.\n"
        .into()
}

#[cfg(test)]
mod tests;
