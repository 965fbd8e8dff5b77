//! The lines of `watch`: one JSON object each, and the incidents that it keeps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::fix::FixReport;
use super::trace::HookReport;
use crate::core::finding::Finding;
use crate::core::model::{HostFacts, Netns};
use crate::core::watch::{Evidence, Mode, Transition, TunnelState};

/// Name of the lines' schema.
pub const SCHEMA: &str = "vpnfix.watch/1";
/// Name of an incident's schema.
pub const INCIDENT_SCHEMA: &str = "vpnfix.incident/1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum WatchLine {
    /// Everything is attached; changes from now on are seen.
    Start(Start),
    /// The state of a tunnel changed.
    State(StateLine),
    /// A repair, at its change and at its end.
    Repair(RepairLine),
    /// Others deleted a rule of ours.
    TakenAway(TakenAwayLine),
    /// Rules are taken away again and again: nothing more is repaired.
    Fight(FightLine),
    /// An undo by hand holds the repairs, or that is over.
    Hold(HoldLine),
    /// Rules for prefixes that are no tunnel's any more were taken back.
    Withdrawn(WithdrawnLine),
    /// Something did not work this time, or notifications were lost; it is tried again.
    Problem(ProblemLine),
    /// The configuration was read again.
    Reload(ReloadLine),
    /// The last line.
    Summary(Summary),
}

/// What woke `watch`: the first that came since it last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WokenBy {
    /// The start.
    Start,
    /// The kernel told of a rule.
    Rule,
    /// The kernel told of a route.
    Route,
    /// The kernel told of a link.
    Link,
    /// The kernel told of an address.
    Address,
    /// The kernel was seen to look a route up wrongly.
    Lookup,
    /// A packet was seen to leave wrongly.
    Packet,
    /// Notifications were lost, so everything is looked at anew.
    Resync,
    /// Time: a pause is over, or something is tried again.
    Timer,
    /// The configuration was read again.
    Reload,
}

impl WokenBy {
    /// As documents spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Link => "link",
            Self::Address => "address",
            Self::Lookup => "lookup",
            Self::Packet => "packet",
            Self::Resync => "resync",
            Self::Timer => "timer",
            Self::Reload => "reload",
        }
    }
}

/// What is attached and watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Always `vpnfix.watch/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// May the host be changed?
    pub mode: Mode,
    /// The hooks of the kernel.
    pub hooks: Vec<HookReport>,
    /// How many prefixes are watched.
    pub prefixes: usize,
    /// Names of the tunnels.
    pub tunnels: Vec<String>,
    /// Capabilities that are kept.
    pub capabilities: Vec<String>,
}

/// A change of a tunnel's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// Tunnel and states.
    #[serde(flatten)]
    pub transition: Transition,
    /// The evidence in words.
    pub text: String,
    /// What woke `watch`.
    pub woken_by: WokenBy,
    /// Changes of state that were not told since the last line, because they were too many.
    pub untold: u64,
}

/// How a repair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RepairOutcome {
    /// The rules stand and the kernel answers rightly; the confirmation goes on.
    Applied,
    /// Live packets have confirmed it.
    Confirmed,
    /// The rules stand; no live packet has confirmed it.
    Unconfirmed,
    /// It was taken back.
    RolledBack,
    /// Nothing was changed.
    Refused,
    /// Before its confirmation came to an end, something else went wrong.
    Overtaken,
}

impl RepairOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Applied, Self::Confirmed, Self::Unconfirmed, Self::RolledBack, Self::Refused, Self::Overtaken];

    /// As documents and metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Confirmed => "confirmed",
            Self::Unconfirmed => "unconfirmed",
            Self::RolledBack => "rolled-back",
            Self::Refused => "refused",
            Self::Overtaken => "overtaken",
        }
    }
}

/// A repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RepairLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// How it stands.
    pub outcome: RepairOutcome,
    /// The commands equivalent to what was done.
    pub rules: Vec<String>,
    /// What woke `watch`.
    pub woken_by: WokenBy,
    /// From being woken to the kernel's acknowledgement of the last rule, seconds.
    pub seconds: Option<f64>,
    /// Packets seen to leave wrongly since the start of the incident.
    pub leaked_packets: u64,
    /// Their bytes, from the network header on.
    pub leaked_bytes: u64,
    /// Why, where it failed.
    pub why: Option<String>,
    /// The file that the incident is kept in.
    pub incident: Option<String>,
}

/// A rule of ours that others deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TakenAwayLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The rule.
    pub rule: String,
    /// Who, as far as is known.
    pub by: String,
    /// What to do about it, where the program is one that does so by design.
    pub remedy: Option<String>,
}

/// A fight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FightLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The tunnels that are not repaired any more.
    pub tunnels: Vec<String>,
    /// How often needed rules were taken away of late.
    pub times: usize,
    /// Who did it last, as far as is known.
    pub by: String,
    /// What to do about it.
    pub remedy: String,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HoldLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// Nothing is repaired now.
    pub held: bool,
}

/// Rules that were taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WithdrawnLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The commands equivalent to what was done.
    pub rules: Vec<String>,
}

/// Something that did not work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// What, and why.
    pub what: String,
}

/// A configuration that was read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// It holds now; otherwise the one before does.
    pub taken: bool,
    /// What is wrong with it, or what needs a restart.
    pub why: Option<String>,
}

/// The state of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelNow {
    /// Its name.
    pub tunnel: String,
    /// Its state.
    pub state: TunnelState,
}

/// The end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// Every tunnel's state.
    pub tunnels: Vec<TunnelNow>,
    /// Repairs that were applied.
    pub repairs: u64,
    /// Incidents.
    pub incidents: u64,
    /// How often the host was judged.
    pub judgements: u64,
    /// Times that notifications were lost.
    pub resyncs: u64,
    /// Rules that were taken back at the end (`--undo-on-exit`).
    pub undone: Vec<String>,
}

/// An incident, as it is kept on disk: what was found, what was done, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Always `vpnfix.incident/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// When it was noticed, RFC 3339, UTC.
    pub began: String,
    /// What woke `watch`.
    pub woken_by: WokenBy,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// Every change of a tunnel's state, with its time.
    pub states: Vec<StateLine>,
    /// From being woken to the kernel's acknowledgement, seconds.
    pub seconds: Option<f64>,
    /// Packets seen to leave wrongly meanwhile.
    pub leaked_packets: u64,
    /// Their bytes.
    pub leaked_bytes: u64,
    /// What the repair did, before and after; none in report mode.
    pub repair: Option<FixReport>,
}

/// Which evidence makes an incident: what the kernel says or what was seen, not that a tunnel came or went.
#[must_use]
pub fn begins_incident(transition: &Transition) -> bool {
    transition.to.is_wrong() && !matches!(transition.evidence, Evidence::RepairBegan | Evidence::CalmOver)
}
