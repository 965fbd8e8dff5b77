//! The documents of `fix` and `undo`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::cure::CureApplied;
use super::diagnose::PlanReport;
use crate::core::confirm::Confirmation;
use crate::core::finding::{Cure, Finding, Note};
use crate::core::model::{HostFacts, Netns};

/// Name of the schema of `fix`.
pub const SCHEMA: &str = "vpnfix.fix/1";
/// Name of the schema of `undo`.
pub const UNDO_SCHEMA: &str = "vpnfix.undo/1";

/// What `fix` did, and whether it worked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FixReport {
    /// Always `vpnfix.fix/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// Only the plan was made (`--dry-run`).
    pub dry_run: bool,
    /// What was wrong before.
    pub before: Vec<Finding>,
    /// The plan.
    pub plan: PlanReport,
    /// The commands equivalent to what was really done, in order.
    pub applied: Vec<String>,
    /// When the kernel had acknowledged each of them, RFC 3339, UTC.
    #[serde(default)]
    pub applied_at: Vec<String>,
    /// The ladder of each destination that was repaired.
    pub confirmations: Vec<Confirmation>,
    /// What is still wrong.
    pub remaining: Vec<Finding>,
    /// Why the change was rolled back.
    pub rollback: Option<Rollback>,
    /// The cure at the root.
    pub cure: Vec<Cure>,
    /// What `--cure` did about it.
    #[serde(default)]
    pub cure_applied: Option<CureApplied>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
}

/// A change that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// What was not as it should be.
    pub differences: Vec<Difference>,
    /// Every rule that had been added is gone again.
    pub complete: bool,
    /// What could not be taken back, in words.
    pub left: Vec<String>,
}

/// Something that was found other than expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What it is.
    pub name: String,
    /// Its address.
    pub destination: Option<IpAddr>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What `undo` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UndoReport {
    /// Always `vpnfix.undo/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The namespace.
    pub netns: Netns,
    /// The commands equivalent to what was done.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
    /// The files of vpnfix's own that were removed.
    #[serde(default)]
    pub files: Vec<String>,
    /// What is worth knowing besides: a restart that is due, what stays.
    #[serde(default)]
    pub notes: Vec<Note>,
}
