//! The documents of `persist` and `unpersist`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::core::model::{HostFacts, Netns};
use crate::core::own_file::{Backend, Standing};
use crate::core::persist::{Arrangement, Comparison, PersistFile};

/// Name of the schema of `persist`.
pub const SCHEMA: &str = "vpnfix.persist/1";
/// Name of the schema of `unpersist`.
pub const UNPERSIST_SCHEMA: &str = "vpnfix.unpersist/1";

/// What `persist` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PersistReport {
    /// Always `vpnfix.persist/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// Nothing was written (`--dry-run`).
    pub dry_run: bool,
    /// Who keeps the rules; none where there is nothing to keep.
    pub backend: Option<Backend>,
    /// Why that one.
    pub why: Option<String>,
    /// The interface that the rules come with.
    pub interface: Option<String>,
    /// The rules, as `ip rule` shows them.
    pub rules: Vec<String>,
    /// The files.
    pub files: Vec<FileReport>,
    /// The commands that change something beside the files, in order.
    pub commands: Vec<CommandReport>,
    /// When the rules come back, and how to have that now.
    pub effect: Option<String>,
    /// What is persisted beside what runs, after all that was done.
    pub comparison: ComparisonReport,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// A file of `persist`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileReport {
    /// Where.
    pub path: PathBuf,
    /// Permission bits, octal.
    pub mode: String,
    /// What it holds.
    pub text: String,
    /// What was done with it, or would be.
    pub state: FileState,
}

/// What was done with a file, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// There was none.
    Written,
    /// An earlier one of vpnfix's was there.
    Replaced,
    /// It was there already as it should be.
    Unchanged,
}

/// A command that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReport {
    /// As one would type it.
    pub command: String,
    /// What for.
    pub why: String,
}

/// What is persisted beside what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonReport {
    /// Everything that runs is persisted, and everything that is persisted stands.
    pub agrees: bool,
    /// Who keeps rules.
    pub backend: Option<Backend>,
    /// Rules of vpnfix's that a reboot takes away.
    pub not_persisted: Vec<String>,
    /// Rules that are persisted, and do not stand now.
    pub not_running: Vec<String>,
    /// Files of the persistence that are not as they were written.
    pub files: Vec<StandingReport>,
    /// Rules of vpnfix's that systemd-networkd drops when it configures an interface anew.
    pub endangered: Vec<String>,
}

/// A file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StandingReport {
    /// Where.
    pub path: PathBuf,
    /// How it stands.
    pub standing: Standing,
}

/// What `unpersist` took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnpersistReport {
    /// Always `vpnfix.unpersist/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// Who kept the rules.
    pub backend: Option<Backend>,
    /// The rules that were kept.
    pub rules: Vec<String>,
    /// The files that were removed.
    pub removed: Vec<PathBuf>,
    /// The commands that were run, in order.
    pub commands: Vec<CommandReport>,
    /// What could not be taken away, and why.
    pub left: Vec<String>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

impl FileReport {
    /// A file, and what was done with it.
    #[must_use]
    pub fn new(file: &PersistFile, state: FileState) -> Self {
        let PersistFile { path, text, mode } = file;
        Self { path: path.clone(), mode: format!("{mode:04o}"), text: text.clone(), state }
    }
}

impl From<&crate::core::persist::Invocation> for CommandReport {
    fn from(invocation: &crate::core::persist::Invocation) -> Self {
        Self { command: invocation.words(), why: invocation.why.clone() }
    }
}

impl From<&Comparison> for ComparisonReport {
    fn from(comparison: &Comparison) -> Self {
        let told = |rules: &[crate::core::model::Rule]| rules.iter().map(ToString::to_string).collect();
        let standing =
            |(path, standing): &(PathBuf, Standing)| StandingReport { path: path.clone(), standing: *standing };
        Self {
            agrees: comparison.agrees(),
            backend: comparison.backend,
            not_persisted: told(&comparison.not_persisted),
            not_running: told(&comparison.not_running),
            files: comparison.files.iter().map(standing).collect(),
            endangered: told(&comparison.endangered),
        }
    }
}

impl PersistReport {
    /// Puts an arrangement into the report.
    pub fn take_in(&mut self, arrangement: &Arrangement) {
        self.backend = Some(arrangement.backend);
        self.why = Some(arrangement.why.clone());
        self.interface.clone_from(&arrangement.interface);
        self.rules = arrangement.rules.iter().map(ToString::to_string).collect();
        self.commands = arrangement.commands.iter().map(CommandReport::from).collect();
        self.effect = Some(arrangement.effect.clone());
        self.notes.extend(arrangement.notes.iter().cloned());
    }
}
