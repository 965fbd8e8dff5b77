//! The story of one flow.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::explain::WalkStep;
use super::trace::{FlowReport, LookupResult, TaskReport};
use crate::core::live::Standing;
use crate::core::observation::TcpState;
use crate::core::origin::Purpose;

/// What a flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A packet of it was handed to a device that is not its tunnel.
    Misrouted,
    /// Packets of it, or answers to it, were dropped.
    Dropped,
    /// Its lookup was refused.
    Refused,
    /// It left by its tunnel, and nothing came back.
    Unanswered,
    /// It left by its tunnel, and something came back.
    Right,
    /// It is no tunnel's traffic, or its sender chose the device, or it is another namespace's.
    NotJudged,
}

/// One flow, from who sent it to what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryReport {
    /// Number of the flow in this trace.
    pub flow_id: u32,
    /// Addresses and ports, as far as they are known.
    #[serde(flatten)]
    pub flow: FlowReport,
    /// Inode of its namespace.
    pub netns: u32,
    /// Name of its namespace, `null` where it has none.
    pub netns_name: Option<String>,
    /// The watched prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The tunnels that it belongs to.
    pub tunnels: Vec<String>,
    /// What it came to.
    pub fate: Fate,
    /// Who sent it.
    pub sender: Sender,
    /// Made by vpnfix's own probe.
    pub probe: bool,
    /// The lookups for it, in the order of their first times.
    pub lookups: Vec<StoryLookup>,
    /// The walk of its lookup through the rules, by the engine; only the rules that match. Empty for another namespace's.
    pub walk: Vec<WalkStep>,
    /// The walk ends at the table and device that the kernel was seen to find; `null` where the engine or the kernel does
    /// not tell.
    pub walk_agrees: Option<bool>,
    /// The rule that led to the table.
    pub rule: Option<String>,
    /// Who most likely put the rule there.
    pub owner: Option<String>,
    /// The source address that its packets have.
    pub source_device: Option<String>,
    /// The devices that its packets were handed to.
    pub egress: Vec<StoryEgress>,
    /// Drops.
    pub drops: Vec<StoryDrop>,
    /// What came back.
    pub answers: Vec<StoryAnswer>,
    /// Segments that TCP sent again.
    pub retransmissions: u64,
    /// TCP's states; of port 179 only.
    pub tcp: Vec<StoryState>,
    /// Wall-clock time of the first thing seen, RFC 3339, UTC.
    pub first: String,
    /// Wall-clock time of the last.
    pub last: String,
}

/// A story as a line: told when it has settled, and again when something else than its counts has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryLine {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// What changed since it was told last; empty when it is told for the first time.
    pub changed: Vec<String>,
    /// The story.
    #[serde(flatten)]
    pub story: StoryReport,
}

/// Who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sender {
    /// A process, or a thread of the kernel: seen in its own context.
    Process(TaskReport),
    /// It came in by this device and is forwarded.
    Forwarded {
        /// The device.
        device: String,
    },
    /// It was only seen in a softirq (a timer, an answer to a packet): whose it is cannot be told.
    Softirq,
    /// The call stack does not tell.
    Unknown,
}

/// A lookup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryLookup {
    /// Table.
    pub table: u32,
    /// Device.
    pub device: Option<String>,
    /// What the table or walk said.
    pub outcome: LookupResult,
    /// Errno of a refusal.
    pub errno: Option<i32>,
    /// What it says.
    pub standing: Standing,
    /// What it was for.
    pub purpose: Purpose,
    /// How many.
    pub count: u64,
}

/// A device that packets were handed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryEgress {
    /// The device.
    pub device: String,
    /// What it says.
    pub standing: Standing,
    /// How many.
    pub packets: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
    /// What encrypts what this device takes; `null` for a device without IPsec, or where security associations are not known.
    pub encryption: Option<Encryption>,
}

/// The security association that a tunnel device uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Encryption {
    /// This one fits the device.
    By {
        /// Security parameter index.
        spi: u32,
        /// Outer source.
        source: IpAddr,
        /// Outer destination.
        destination: IpAddr,
        /// Packets that it took since the trace began, of all flows.
        packets: u64,
        /// Bytes that it took since the trace began.
        bytes: u64,
    },
    /// None fits the device: the kernel drops what is handed to it.
    None,
}

/// Packets that were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryDrop {
    /// These were answers; otherwise packets on their way.
    pub incoming: bool,
    /// The kernel's reason (`enum skb_drop_reason`, without its prefix); `null` where the kernel gives none (before 5.17).
    pub reason: Option<String>,
    /// The kernel's function that dropped them; `null` where /proc/kallsyms hides addresses.
    pub function: Option<String>,
    /// The device that they were at.
    pub device: Option<String>,
    /// How many.
    pub packets: u64,
}

/// Packets that came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryAnswer {
    /// The device that they came by.
    pub device: String,
    /// How many.
    pub packets: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
}

/// A state of TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoryState {
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
}
