//! What the kernel was seen doing: the records of the eBPF programs as typed values.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One event of the kernel, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A route lookup.
    Lookup(LookupSeen),
    /// A packet handed to a device.
    Packet(PacketSeen),
    /// A TCP socket of port 179 changed its state.
    Tcp(TcpSeen),
    /// Something happened to a flow for the first time.
    Flow(FlowEvent),
}

impl Observation {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Lookup(seen) => seen.time_ns,
            Self::Packet(seen) => seen.time_ns,
            Self::Tcp(seen) => seen.time_ns,
            Self::Flow(event) => event.time_ns,
        }
    }
}

/// Which hook a lookup was seen by. It tells what an outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// One IPv4 table tried (tracepoint `fib_table_lookup`).
    FibTable,
    /// The outcome of a whole IPv4 walk (`fexit` of `__fib_lookup`).
    FibRules,
    /// One IPv6 table tried (tracepoint `fib6_table_lookup`).
    Fib6Table,
}

/// What a lookup was for, as far as its fields prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LookupKind {
    /// For a packet of this host.
    Output,
    /// For a packet that came in: delivery or forwarding.
    Input,
    /// Source validation (reverse path), or another question of the kernel's own.
    SourceValidation,
}

/// What sets flows of the same destination apart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct FlowMarks {
    /// TCP port 179 on either side.
    pub bgp: bool,
    /// Bound to an output device that is not the VRF of the watched prefix.
    pub bound: bool,
    /// Made by vpnfix's own probe.
    pub probe: bool,
}

/// Why the kernel side woke us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// This key was never seen before.
    FirstSight,
    /// The outcome for this prefix differs from its last one.
    Change,
}

/// What lookups are counted by. `netns` is the namespace's inode, `None` where the hook cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LookupKey {
    /// Namespace.
    pub netns: Option<u32>,
    /// Index of the watched prefix, as given to the tracer.
    pub watch: u32,
    /// Table that answered or was tried.
    pub table: u32,
    /// Index of the nexthop's device.
    pub ifindex: Option<u32>,
    /// What the table or the walk said.
    pub outcome: LookupOutcome,
    /// Who saw it.
    pub hook: Hook,
    /// What it was for.
    pub kind: LookupKind,
    /// What sets the flow apart.
    pub marks: FlowMarks,
    /// The namespace has rules beside the kernel's three, so the walk goes through `__fib_lookup`.
    pub custom_rules: bool,
    /// Length of the matched prefix, where the hook knows it.
    pub prefix_length: Option<u8>,
}

/// The result of a table or of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LookupOutcome {
    /// A route.
    Hit,
    /// No route (`EAGAIN`): the walk goes on with the next rule.
    Miss,
    /// Refused with this errno (positive).
    Refused(i32),
}

/// A route lookup that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSeen {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What it is counted by.
    pub key: LookupKey,
    /// Addresses and ports.
    pub flow: FlowSeen,
    /// Index of the flow's input interface, 1 for output lookups.
    pub iif: u32,
    /// Index of the output interface that the flow is bound to.
    pub oif: Option<u32>,
    /// Firewall mark of the flow.
    pub mark: u32,
    /// User id of the flow.
    pub uid: u32,
    /// Gateway of the nexthop; absent for an on-link route.
    pub gateway: Option<IpAddr>,
    /// First sight or change.
    pub occasion: Occasion,
    /// Table, device and result before, for a change.
    pub previous: Option<PreviousOutcome>,
    /// In whose context it ran; in a softirq that is whoever was interrupted.
    pub task: Task,
}

/// What the outcome was before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousOutcome {
    /// Table.
    pub table: u32,
    /// Device.
    pub ifindex: Option<u32>,
    /// Result.
    pub outcome: LookupOutcome,
}

/// A packet seen leaving by a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSeen {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What it is counted by.
    pub key: PacketKey,
    /// Addresses and ports.
    pub flow: FlowSeen,
    /// Bytes from the network header on.
    pub length: u32,
    /// First sight or change.
    pub occasion: Occasion,
    /// Index of the device before, for a change.
    pub previous_ifindex: Option<u32>,
    /// In whose context it was handed over.
    pub task: Task,
}

/// The first bytes of a packet, as it was handed to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadersSeen {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What the packet is counted by.
    pub key: PacketKey,
    /// Bytes from the network header on, of the whole packet.
    pub length: u32,
    /// Bytes of the link's header, which [`HeadersSeen::bytes`] begins with.
    pub link_length: usize,
    /// The bytes; payload may be among them.
    pub bytes: Vec<u8>,
}

/// What packets are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PacketKey {
    /// Namespace of the device.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Index of the device.
    pub ifindex: u32,
    /// What sets the flow apart.
    pub marks: FlowMarks,
}

/// A TCP socket of port 179 that changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSeen {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Namespace of the socket.
    pub netns: u32,
    /// Source is the local end.
    pub flow: FlowSeen,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
    /// In whose context.
    pub task: Task,
}

/// TCP states (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of RFC 9293")]
pub enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    NewSynReceived,
    BoundInactive,
}

/// Addresses and ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowSeen {
    /// Source, absent while none is chosen.
    pub source: Option<IpAddr>,
    /// Destination.
    pub destination: IpAddr,
    /// Source port, host byte order, 0 where there is none.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// What happened to a flow, without the times: what is counted flow by flow. The flow's destination is the watched address,
/// for packets that came from there as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// Namespace.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Addresses and ports.
    pub flow: FlowSeen,
    /// What sets the flow apart.
    pub marks: FlowMarks,
    /// What happened.
    pub act: Act,
}

/// What can happen to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Act {
    /// A route was looked up for it.
    Lookup {
        /// Table.
        table: u32,
        /// Index of the nexthop's device.
        ifindex: Option<u32>,
        /// What the table or the walk said.
        outcome: LookupOutcome,
        /// Who saw it.
        hook: Hook,
        /// What it was for, by its fields.
        kind: LookupKind,
        /// The namespace has rules beside the kernel's three.
        custom_rules: bool,
    },
    /// A packet of it was handed to this device.
    Packet(u32),
    /// A packet was dropped.
    Drop(DropPlace),
    /// A packet came from the destination, by this device.
    Answer(u32),
    /// TCP sent a segment again.
    Retransmission,
}

/// Where and why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DropPlace {
    /// It came from the destination; otherwise it was on its way there.
    pub incoming: bool,
    /// The kernel's number of its reason (`enum skb_drop_reason`), absent where it gives none.
    pub reason: Option<i32>,
    /// Address of the instruction that dropped it.
    pub location: u64,
    /// Index of the device that it was at, if it was at any.
    pub ifindex: Option<u32>,
}

/// Something that happened to a flow for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What it is counted by.
    pub key: FlowKey,
    /// Index of the input interface of a lookup's flow, 0 for others.
    pub iif: u32,
    /// Index of the output interface that a lookup's flow is bound to.
    pub oif: Option<u32>,
    /// Firewall mark of a lookup's flow.
    pub mark: u32,
    /// User id of a lookup's flow.
    pub uid: u32,
    /// Bytes of a packet from the network header on.
    pub length: u32,
    /// In whose context it ran; in a softirq that is whoever was interrupted.
    pub task: Task,
    /// Return addresses of the call stack, the innermost first; empty where the kernel gave none.
    pub stack: Vec<u64>,
}

/// A task by its numbers in the initial pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Process id.
    pub process: u32,
    /// Thread id.
    pub thread: u32,
    /// Name; what is not UTF-8 in it is replaced.
    pub comm: String,
}

/// Counts and times of one key, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes from the network header on; 0 for lookups.
    pub bytes: u64,
    /// First time, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// Last time.
    pub last_ns: u64,
}

/// Everything counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Lookups by key.
    pub lookups: Vec<(LookupKey, Tally)>,
    /// Packets by key.
    pub packets: Vec<(PacketKey, Tally)>,
    /// Lookups and packets by destination, as far as there was room.
    pub destinations: Vec<DestinationTotal>,
    /// What happened to single flows, as far as there was room, in the order of the first times.
    pub flows: Vec<(FlowKey, Tally)>,
    /// What was lost.
    pub losses: Losses,
    /// What was left out.
    pub passed_over: PassedOver,
}

/// Count of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationTotal {
    /// Namespace.
    pub netns: u32,
    /// Destination.
    pub address: IpAddr,
    /// Device.
    pub ifindex: u32,
    /// Counts packets; otherwise lookups.
    pub packets: bool,
    /// What sets the flows apart.
    pub marks: FlowMarks,
    /// Counts and times.
    pub tally: Tally,
}

/// What was lost. All zero on a good day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Losses {
    /// Events that user space was not told of (the counts still hold).
    pub events_lost: u64,
    /// Lookups not counted for want of room.
    pub lookups_uncounted: u64,
    /// Packets not counted for want of room.
    pub packets_uncounted: u64,
    /// Destinations not told apart for want of room.
    pub destinations_uncounted: u64,
    /// Outcomes whose changes could not be followed for want of room.
    pub outcomes_untracked: u64,
    /// What happened to flows and was not told apart for want of room.
    pub flows_uncounted: u64,
    /// Packets whose header could not be read.
    pub unreadable_packets: u64,
    /// Records of the kernel side that could not be decoded.
    pub undecodable_records: u64,
}

/// What is in no count without being lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PassedOver {
    /// Lookups of other namespaces, left out.
    pub other_netns: u64,
    /// vpnfix's own queries, left out.
    pub own_queries: u64,
    /// Runs of a program that the kernel skipped because they would have interrupted the same program on the same CPU
    /// (a softirq's lookup amid a process's). Most are about traffic that is not watched: the counts lack at most these.
    pub hook_runs_skipped: u64,
}

/// A record of the kernel side that makes no sense.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind needs.
    #[error("record of {got} bytes, {need} needed")]
    Truncated {
        /// Bytes there.
        got: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Another version of the ABI.
    #[error("record of ABI version {got}, this is version {want}")]
    Version {
        /// Version of the record.
        got: u16,
        /// Version of this program.
        want: u16,
    },
    /// A field with a value that has no meaning.
    #[error("unknown {field} {value}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}
