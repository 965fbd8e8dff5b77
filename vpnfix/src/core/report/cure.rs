//! What became of the cure at the root, as `fix --cure` tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cure at the root: the file that switches strongSwan's own routes off, and the restart that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CureApplied {
    /// What became of it.
    pub state: CureState,
    /// The files of vpnfix's own, planned or written.
    pub files: Vec<CureFile>,
    /// What each daemon reads after it, by the real files; by the would-be ones with `--dry-run`.
    pub check: Vec<DaemonReads>,
    /// Why nothing was written.
    pub why: Option<String>,
    /// What a person has to do instead.
    pub by_hand: Option<ByHand>,
    /// The restart.
    pub restart: Restart,
}

/// What became of the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CureState {
    /// The files are written, and read as they should be.
    Written,
    /// The setting was made already, by vpnfix or by others.
    AlreadyOff,
    /// Only planned (`--dry-run`).
    Planned,
    /// No file of vpnfix's own can do it, or it could not be written.
    Impossible,
    /// Not tried: the repair before it was rolled back or interrupted.
    Skipped,
    /// strongSwan is not on this host.
    NotApplicable,
}

/// A file of vpnfix's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CureFile {
    /// Its path.
    pub path: String,
    /// What it holds.
    pub text: String,
    /// The include that the daemons read it by.
    pub include: String,
}

/// What a daemon reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonReads {
    /// The daemon.
    pub daemon: String,
    /// `install_routes` for it.
    pub install_routes: bool,
    /// File and line of the setting; none for the default.
    pub place: Option<String>,
}

/// An edit for a person to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByHand {
    /// File, and line where there is one.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do there.
    pub how: String,
}

/// The restart of the daemon, which reads the setting only when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// How it stands.
    pub state: RestartState,
    /// The daemon that runs with its former setting, with its process id.
    pub daemon: Option<String>,
    /// The unit of systemd that was or would be restarted.
    pub unit: Option<String>,
    /// How to restart it, where that is still due.
    pub how: Option<String>,
    /// What was seen after it, or why it failed.
    pub evidence: Vec<String>,
}

/// How a restart stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartState {
    /// No daemon runs here with another setting.
    #[default]
    NotNeeded,
    /// It is due, and was not asked for (`--restart`).
    Due,
    /// Only planned (`--dry-run`).
    Planned,
    /// Done: the daemon runs again, and its routes are gone.
    Done,
    /// It was not done, or what should follow did not.
    Failed,
}

impl CureApplied {
    /// One of which nothing was done.
    #[must_use]
    pub fn not_done(state: CureState, why: Option<String>) -> Self {
        let restart = Restart::default();
        Self { state, files: Vec::new(), check: Vec::new(), why, by_hand: None, restart }
    }
}
