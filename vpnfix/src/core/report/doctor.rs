//! The document of `doctor`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::core::model::HostFacts;

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.doctor/1";

/// What this host and this user lack to trace, diagnose and fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorReport {
    /// Always `vpnfix.doctor/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One thing that is there or lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What.
    pub name: String,
    /// What it is needed for.
    pub needed_for: Vec<Purpose>,
    /// Is it there?
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// How to get it.
    pub remedy: Option<String>,
}

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Reading rules and routes: `diagnose`.
    Diagnose,
    /// Seeing the kernel's decisions live: `trace`.
    Trace,
    /// Changing rules and confirming it: `fix`.
    Fix,
}

/// Is it there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It is there.
    Ok,
    /// It lacks, but vpnfix works without.
    Reduced,
    /// It lacks.
    Missing,
}
