//! The document of `verify`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diagnose::tunnel_report;
use super::{Outcome, VERSION};
use crate::core::finding::{Note, TunnelReport};
use crate::core::model::{HostFacts, Netns};
use crate::core::verify::{self, AssociationReport, Check, Facts, Neighbour, State};

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.verify/1";

/// The whole VPN as a list of checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyReport {
    /// Always `vpnfix.verify/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// The whole in one word.
    pub verdict: VpnVerdict,
    /// Milliseconds between the two samples of counters.
    pub sample_ms: u64,
    /// How many checks stand how.
    pub counts: Counts,
    /// The tunnels.
    pub tunnels: Vec<TunnelReport>,
    /// The checks: failed ones first, the cause before what follows from it.
    pub checks: Vec<Check>,
    /// The SAs that the tunnels use.
    pub associations: Vec<AssociationReport>,
    /// The BGP neighbours that are peers of tunnels, as a daemon tells them.
    pub neighbours: Vec<Neighbour>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
}

/// The whole in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VpnVerdict {
    /// No check failed.
    Healthy,
    /// At least one failed.
    Faulty,
    /// There is no tunnel, or nothing could be told.
    Unknown,
}

/// How many checks stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Right.
    pub ok: u64,
    /// Work, but not for long or not for all.
    pub warning: u64,
    /// Wrong.
    pub failed: u64,
    /// Could not be told, or are not asked of this host.
    pub skipped: u64,
}

impl Counts {
    fn of(checks: &[Check]) -> Self {
        let mut counts = Self::default();
        for check in checks {
            match check.state {
                State::Ok => counts.ok += 1,
                State::Warning => counts.warning += 1,
                State::Failed => counts.failed += 1,
                State::Skipped => counts.skipped += 1,
            }
        }
        counts
    }
}

impl VerifyReport {
    /// Makes the checks, and puts the parts together.
    #[must_use]
    pub fn new(facts: &Facts<'_>) -> Self {
        let checks = verify::verify(facts);
        let counts = Counts::of(&checks);
        let verdict = match (counts.failed, facts.tunnels.is_empty() || facts.destinations.is_empty()) {
            (1.., _) => VpnVerdict::Faulty,
            (0, true) => VpnVerdict::Unknown,
            (0, false) => VpnVerdict::Healthy,
        };
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            outcome: match verdict {
                VpnVerdict::Healthy => Outcome::Ok,
                VpnVerdict::Faulty => Outcome::FaultFound,
                VpnVerdict::Unknown => Outcome::Unable,
            },
            host: facts.snapshot.host.clone(),
            netns: facts.snapshot.netns.clone(),
            verdict,
            sample_ms: milliseconds(facts.measured.window),
            counts,
            tunnels: facts.tunnels.iter().map(tunnel_report).collect(),
            associations: verify::associations(facts),
            neighbours: verify::neighbours(facts),
            notes: facts.judgement.notes.clone(),
            checks,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
