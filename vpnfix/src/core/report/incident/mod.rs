//! The report of an incident: one page that says what was wrong and what was done, and the evidence behind it.

mod page;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::explain::ExplainReport;
use super::fix::FixReport;
use super::watch::Incident;
use super::{Outcome, VERSION};
use crate::core::bundle::comparison::{Compared, compare};
use crate::core::bundle::contents::{ChangeStep, Changes, Contents};
use crate::core::bundle::manifest::Missing;
use crate::core::bundle::timeline::{Side, Timeline};
use crate::core::confirm::Confirmation;
use crate::core::model::{HostFacts, Netns};
use crate::core::report::trace::Summary;
use page::Known;

pub use page::clock;

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.report/1";

/// The report of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentReport {
    /// Always `vpnfix.report/1`.
    pub schema: String,
    /// Version of vpnfix that made the report.
    pub version: String,
    /// The exit status of the capture in words; `null` if it was interrupted.
    pub outcome: Option<Outcome>,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// When it began, RFC 3339, UTC.
    pub began: String,
    /// When it ended.
    pub ended: Option<String>,
    /// Public addresses and names are stand-ins.
    pub redacted: bool,
    /// The whole in one sentence.
    pub headline: Told,
    /// The first page.
    pub page: Vec<Fact>,
    /// What left in the clear.
    pub cost: Cost,
    /// The steps of the change.
    pub changes: Vec<ChangeStep>,
    /// Before and after.
    pub tables: Vec<Compared>,
    /// What happened when.
    pub timeline: Option<Timeline>,
    /// Walks of single packets.
    pub walks: Vec<WalkPair>,
    /// The ladder of each destination that was repaired.
    pub ladder: Vec<Confirmation>,
    /// What is not in the bundle and why.
    pub missing: Vec<Missing>,
}

/// A question of the first page with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// Which question.
    pub topic: Topic,
    /// The answer, a sentence or a thing each.
    pub lines: Vec<Told>,
}

/// The questions of the first page, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// What was wrong.
    Wrong,
    /// Since when.
    Since,
    /// What it cost.
    Cost,
    /// Why.
    Why,
    /// What was changed.
    Changed,
    /// The proof that it is right now.
    Proof,
    /// What remains to do.
    Remains,
}

impl Topic {
    /// As a heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Wrong => "What was wrong",
            Self::Since => "Since when",
            Self::Cost => "What it cost",
            Self::Why => "Why",
            Self::Changed => "What was changed",
            Self::Proof => "Proof that it is right now",
            Self::Remains => "What remains to do",
        }
    }
}

/// Something in words, and how it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// How it is meant.
    pub tone: Tone,
    /// The words.
    pub text: String,
    /// A command, to be shown as such.
    pub command: Option<String>,
}

/// How something is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It is not sure.
    Doubtful,
    /// It is so.
    Plain,
}

impl Told {
    fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into(), command: None }
    }

    fn command(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { tone: Tone::Plain, text: text.into(), command: Some(command.into()) }
    }
}

/// What left in the clear while it was watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Packets that were handed to a wrong device.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
    /// The devices.
    pub devices: Vec<String>,
    /// For how long it was watched, seconds; `null` where it was not.
    pub watched_seconds: Option<f64>,
    /// Something was lost: the counts are at least so high.
    pub at_least: bool,
}

impl Cost {
    fn of_trace(trace: &Summary) -> Self {
        let mut cost = Self {
            watched_seconds: Some(trace.seconds),
            at_least: trace.lost.packets_uncounted > 0 || trace.lost.unreadable_packets > 0,
            ..Self::default()
        };
        for verdict in &trace.verdicts {
            cost.packets = cost.packets.saturating_add(verdict.misrouted_packets);
            cost.bytes = cost.bytes.saturating_add(verdict.misrouted_bytes);
            for device in &verdict.wrong_devices {
                if verdict.misrouted_packets > 0 && !cost.devices.contains(device) {
                    cost.devices.push(device.clone());
                }
            }
        }
        cost
    }

    fn of_timeline(timeline: &Timeline) -> Self {
        let sum = timeline.sum(Side::Misrouted);
        let wrong = timeline.samples.iter().flat_map(|sample| &sample.egress);
        let wrong = wrong.filter(|egress| egress.side == Side::Misrouted);
        let devices: std::collections::BTreeSet<&str> = wrong.map(|egress| egress.device.as_str()).collect();
        Self {
            packets: sum.packets,
            bytes: sum.bytes,
            devices: devices.into_iter().map(str::to_owned).collect(),
            watched_seconds: Some(std::time::Duration::from_millis(timeline.length_ms).as_secs_f64()),
            at_least: true,
        }
    }
}

/// The walk of one packet, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WalkPair {
    /// Destination.
    pub destination: IpAddr,
    /// Before.
    pub before: Option<ExplainReport>,
    /// After.
    pub after: Option<ExplainReport>,
}

impl IncidentReport {
    /// The report of a bundle. A bundle that lacks things gives a report that says so.
    #[must_use]
    pub fn of(contents: &Contents) -> Self {
        let manifest = contents.manifest.as_ref();
        let cost = match (&contents.trace, &contents.timeline) {
            (Some(trace), _) => Cost::of_trace(trace),
            (None, Some(timeline)) => Cost::of_timeline(timeline),
            (None, None) => Cost::default(),
        };
        let began = manifest.map_or_else(String::new, |manifest| manifest.began.clone());
        let known = Known {
            complete: manifest.is_none_or(|manifest| manifest.complete),
            began: &began,
            before: contents.before.as_ref().and_then(|state| state.diagnose.as_ref()),
            after: contents.after.as_ref().and_then(|state| state.diagnose.as_ref()),
            bgp: [&contents.before, &contents.after].map(|state| state.as_ref().and_then(|state| state.bgp.as_ref())),
            trace: contents.trace.as_ref(),
            timeline: contents.timeline.as_ref(),
            fix: contents.fix.as_ref(),
            cost: &cost,
            findings: contents
                .before
                .as_ref()
                .and_then(|state| state.diagnose.as_ref())
                .map_or(&[], |diagnose| diagnose.findings.as_slice()),
        };
        let mut missing = manifest.map(|manifest| manifest.missing.clone()).unwrap_or_default();
        missing.extend(contents.damaged.iter().map(|why| {
            let (file, why) = why.split_once(": ").unwrap_or(("?", why));
            Missing { file: file.into(), why: format!("not understood: {why}") }
        }));
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            outcome: manifest.and_then(|manifest| manifest.outcome),
            host: manifest.map(|manifest| manifest.host.clone()).unwrap_or_default(),
            netns: manifest.map(|manifest| manifest.netns.clone()).unwrap_or_default(),
            ended: manifest.and_then(|manifest| manifest.ended.clone()),
            redacted: manifest.is_some_and(|manifest| manifest.redacted),
            headline: page::headline(&known),
            page: page::page(&known),
            changes: contents.changes.as_ref().map(|changes| changes.steps.clone()).unwrap_or_default(),
            tables: compare(contents.before.as_ref(), contents.after.as_ref()),
            timeline: contents.timeline.clone(),
            walks: walks(contents),
            ladder: contents.fix.as_ref().map(|fix| fix.confirmations.clone()).unwrap_or_default(),
            missing,
            began,
            cost,
        }
    }

    /// The report of an incident that `watch` kept. It has no states and no timeline, and says what there is.
    #[must_use]
    pub fn of_incident(incident: &Incident) -> Self {
        let devices: std::collections::BTreeSet<String> =
            incident.findings.iter().filter_map(|finding| finding.actual.device.clone()).collect();
        let cost = Cost {
            packets: incident.leaked_packets,
            bytes: incident.leaked_bytes,
            devices: devices.into_iter().collect(),
            watched_seconds: incident.seconds,
            at_least: false,
        };
        let fix: Option<&FixReport> = incident.repair.as_ref();
        let known = Known {
            complete: true,
            began: &incident.began,
            before: None,
            after: None,
            bgp: [None, None],
            trace: None,
            timeline: None,
            fix,
            cost: &cost,
            findings: &incident.findings,
        };
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            outcome: fix.map(|fix| fix.outcome),
            host: incident.host.clone(),
            netns: incident.netns.clone(),
            began: incident.began.clone(),
            ended: incident.states.last().map(|state| state.time.clone()),
            redacted: false,
            headline: page::headline(&known),
            page: page::page(&known),
            changes: fix.map(|fix| Changes::of(fix).steps).unwrap_or_default(),
            tables: Vec::new(),
            timeline: None,
            walks: Vec::new(),
            ladder: fix.map(|fix| fix.confirmations.clone()).unwrap_or_default(),
            missing: Vec::new(),
            cost,
        }
    }
}

fn walks(contents: &Contents) -> Vec<WalkPair> {
    let of = |state: &Option<crate::core::bundle::state::State>| {
        state.as_ref().and_then(|state| state.explain.clone()).unwrap_or_default()
    };
    let (before, after) = (of(&contents.before), of(&contents.after));
    let mut pairs: Vec<WalkPair> = before
        .into_iter()
        .map(|walk| WalkPair { destination: walk.flow.to, before: Some(walk), after: None })
        .collect();
    for walk in after {
        let destination = walk.flow.to;
        match pairs.iter_mut().find(|pair| pair.destination == destination) {
            Some(pair) => pair.after = Some(walk),
            None => pairs.push(WalkPair { destination, before: None, after: Some(walk) }),
        }
    }
    pairs
}
