//! The lines of `trace`: one JSON object each.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::flow::{StoryLine, StoryReport};
use crate::core::live::{Standing, Verdict};
use crate::core::model::{HostFacts, Netns};
use crate::core::observation::{Hook, LookupKind, Losses, Occasion, PassedOver, TcpState};

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.trace/1";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TraceLine {
    /// Everything is attached; events from now on are seen.
    Start(Start),
    /// A lookup at first sight, or a change of outcome.
    Lookup(LookupLine),
    /// A packet seen leaving by a device.
    Egress(EgressLine),
    /// A TCP socket of port 179 changed its state.
    Tcp(TcpLine),
    /// The verdict on a prefix changed.
    Verdict(VerdictLine),
    /// The story of a flow, when it has settled, and again when it changed.
    Story(Box<StoryLine>),
    /// The last line.
    Summary(Summary),
}

/// What is attached and watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Always `vpnfix.trace/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The host.
    pub host: HostFacts,
    /// The namespace that is judged.
    pub netns: Netns,
    /// Other namespaces are told of too.
    pub every_netns: bool,
    /// The hooks.
    pub hooks: Vec<HookReport>,
    /// The outcome of whole walks is seen, not only each table's.
    pub knows_outcomes: bool,
    /// The prefixes watched.
    pub watched: Vec<Watched>,
}

/// A hook of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookReport {
    /// Name of the tracepoint or function.
    pub name: String,
    /// It is attached.
    pub attached: bool,
    /// Why not, or what is reduced.
    pub why: Option<String>,
}

/// A prefix watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Watched {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The tunnels that it belongs to; empty if it is only watched.
    pub tunnels: Vec<String>,
}

/// Addresses and ports of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowReport {
    /// Source, `null` while none is chosen.
    pub source: Option<IpAddr>,
    /// Destination.
    pub destination: IpAddr,
    /// IP protocol number, 0 where the lookup does not say.
    pub protocol: u8,
    /// Source port, 0 without.
    pub source_port: u16,
    /// Destination port, 0 without.
    pub destination_port: u16,
}

/// The task in whose context it happened. In a softirq that is whoever was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskReport {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub name: String,
}

/// A lookup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LookupLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// First sight or change.
    pub occasion: Occasion,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowReport,
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Table that answered or was tried.
    pub table: u32,
    /// Device of the route, `null` without one.
    pub device: Option<String>,
    /// Gateway, `null` on-link.
    pub gateway: Option<IpAddr>,
    /// What the table or walk said.
    pub outcome: LookupResult,
    /// Errno of a refusal.
    pub errno: Option<i32>,
    /// This is the outcome of the walk, not one table of it.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// What it says about the prefix.
    pub standing: Standing,
    /// Who saw it.
    pub hook: Hook,
    /// What it was for.
    pub kind: LookupKind,
    /// Namespace's inode, `null` where the hook cannot tell.
    pub netns: Option<u32>,
    /// Name of the namespace, `null` where it has none.
    pub netns_name: Option<String>,
    /// TCP port 179.
    pub bgp: bool,
    /// Bound to a device.
    pub bound: bool,
    /// vpnfix's own probe.
    pub probe: bool,
    /// Input interface of the flow; `lo` for the host's own packets.
    pub iif: String,
    /// Firewall mark.
    pub mark: u32,
    /// User id.
    pub uid: u32,
    /// Table and device before, for a change.
    pub before: Option<Before>,
    /// In whose context.
    pub task: TaskReport,
}

/// What a lookup said before it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Before {
    /// Table.
    pub table: u32,
    /// Device.
    pub device: Option<String>,
}

/// What a table or a walk said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LookupResult {
    /// A route.
    Hit,
    /// No route.
    Miss,
    /// Refused.
    Refused,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// First sight or change.
    pub occasion: Occasion,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowReport,
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Device it was handed to.
    pub device: String,
    /// What it says about the prefix.
    pub standing: Standing,
    /// Bytes from the network header on.
    pub bytes: u32,
    /// Namespace's inode.
    pub netns: u32,
    /// Name of the namespace, `null` where it has none.
    pub netns_name: Option<String>,
    /// TCP port 179.
    pub bgp: bool,
    /// Bound to a device.
    pub bound: bool,
    /// vpnfix's own probe.
    pub probe: bool,
    /// Device before, for a change.
    pub before: Option<String>,
    /// In whose context.
    pub task: TaskReport,
}

/// A TCP state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The connection; source is the local end.
    #[serde(flatten)]
    pub flow: FlowReport,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
    /// Namespace's inode.
    pub netns: u32,
    /// Name of the namespace, `null` where it has none.
    pub netns_name: Option<String>,
    /// In whose context.
    pub task: TaskReport,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The tunnels that it belongs to.
    pub tunnels: Vec<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Device that it leaves by.
    pub device: Option<String>,
    /// Table that the route was found in, where a lookup tells it.
    pub table: Option<u32>,
    /// The rule that leads to that table.
    pub rule: Option<String>,
    /// Who most likely put the rule there.
    pub owner: Option<String>,
}

/// The counts at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Always `vpnfix.trace/1`.
    pub schema: String,
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// How long it ran, seconds.
    pub seconds: f64,
    /// Lookups by key.
    pub lookups: Vec<LookupCount>,
    /// Packets by key.
    pub packets: Vec<PacketCount>,
    /// Counts by destination, as far as there was room.
    pub destinations: Vec<DestinationCount>,
    /// The worst verdict on each judged prefix of which something was seen.
    pub verdicts: Vec<PrefixVerdict>,
    /// The flows, the worst first.
    pub stories: Vec<StoryReport>,
    /// What happened to flows of which no story is told, for want of room.
    pub stories_untold: u64,
    /// The command that was run, if one was.
    pub command: Option<CommandReport>,
    /// What was lost.
    pub lost: Losses,
    /// What was left out.
    pub passed_over: PassedOver,
}

/// Lookups of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LookupCount {
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Table.
    pub table: u32,
    /// Device.
    pub device: Option<String>,
    /// What the table or walk said.
    pub outcome: LookupResult,
    /// Errno of a refusal.
    pub errno: Option<i32>,
    /// What they were for.
    pub kind: LookupKind,
    /// Who saw them.
    pub hook: Hook,
    /// These are outcomes of walks, not one table of them.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// What they say about the prefix.
    pub standing: Standing,
    /// Namespace's inode, `null` where the hook cannot tell.
    pub netns: Option<u32>,
    /// TCP port 179.
    pub bgp: bool,
    /// Bound to a device.
    pub bound: bool,
    /// vpnfix's own probe.
    pub probe: bool,
    /// How many.
    pub count: u64,
    /// Wall-clock time of the first, RFC 3339, UTC.
    pub first: String,
    /// Wall-clock time of the last.
    pub last: String,
}

/// Packets of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketCount {
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Device they were handed to.
    pub device: String,
    /// Namespace's inode.
    pub netns: u32,
    /// It is a tunnel that they belong to; `null` for a prefix that is only watched.
    pub right: Option<bool>,
    /// What they say about the prefix.
    pub standing: Standing,
    /// TCP port 179.
    pub bgp: bool,
    /// Bound to a device.
    pub bound: bool,
    /// vpnfix's own probe.
    pub probe: bool,
    /// How many.
    pub count: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
    /// Wall-clock time of the first, RFC 3339, UTC.
    pub first: String,
    /// Wall-clock time of the last.
    pub last: String,
}

/// Counts of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationCount {
    /// Destination.
    pub destination: IpAddr,
    /// Device.
    pub device: Option<String>,
    /// Lookups or packets.
    pub what: Counted,
    /// How many.
    pub count: u64,
}

/// What a count counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// Lookups.
    Lookups,
    /// Packets.
    Packets,
}

/// The verdict on one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrefixVerdict {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The tunnels that it belongs to.
    pub tunnels: Vec<String>,
    /// The worst verdict during the trace.
    pub verdict: Verdict,
    /// Packets handed to a wrong device.
    pub misrouted_packets: u64,
    /// Bytes of them, from the network header on.
    pub misrouted_bytes: u64,
    /// Lookups that ended wrong.
    pub wrong_lookups: u64,
    /// The devices they left by.
    pub wrong_devices: Vec<String>,
}

/// The command that was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandReport {
    /// Its words; what is not UTF-8 in them is replaced.
    pub words: Vec<String>,
    /// Its process id.
    pub pid: u32,
    /// Its exit status, `null` if a signal ended it.
    pub status: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}
