//! The ABI between vpnfix's eBPF programs and its user space.
//!
//! Every type here crosses the kernel border by memory copy, so each is `repr(C)`, free of implicit padding (asserted
//! below) and made of integers only: a `bool` or a Rust enum read from foreign memory would be undefined behaviour.
//! Numbers with a meaning have a constant here and an enum in user space that is made by a checked conversion.
//!
//! Addresses are in network byte order, an IPv4 address in the first four bytes with the rest zero. Ports are in host
//! byte order. Times are nanoseconds of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`).
#![no_std]

/// Changes with every change of a type or constant in this crate; each record carries it.
pub const ABI_VERSION: u16 = 3;

/// Most lookup keys kept; the map is preallocated and never evicts.
pub const LOOKUP_KEYS_MAX: u32 = 8192;
/// Most packet keys kept.
pub const PACKET_KEYS_MAX: u32 = 4096;
/// Most (namespace, watch) pairs whose last outcome is kept.
pub const LAST_OUTCOMES_MAX: u32 = 16384;
/// Most destinations counted one by one.
pub const DESTINATIONS_MAX: u32 = 16384;
/// Most things told apart by flow ([`FlowKey`]).
pub const FLOWS_MAX: u32 = 8192;
/// Most return addresses of a call stack that an event carries.
pub const STACK_FRAMES: usize = 32;
/// Most prefixes in one family's trie, watched ones and holes together.
pub const WATCHES_MAX: u32 = 65536;
/// Size in bytes of the ring buffer that carries [`LookupEvent`], [`PacketEvent`], [`TcpEvent`] and
/// [`FlowEvent`].
pub const RING_BYTES: u32 = 1 << 20;
/// Most bytes of a packet that [`HeadersEvent`] carries: a link's header, IPv6 with some options, TCP with all of its.
pub const HEADER_BYTES: usize = 128;
/// The packets of one key, on one CPU, whose headers are told: the first ones.
pub const HEADERS_PER_KEY: u64 = 256;
/// Size in bytes of the ring buffer that carries [`HeadersEvent`], while they are asked for.
pub const HEADERS_RING_BYTES: u32 = 1 << 18;
/// 64-bit words of one family's bitmap over the first bits of a destination: the first 16 of an IPv4 address,
/// [`bitmap6_bit`] of an IPv6 address.
pub const BITMAP_WORDS: u32 = 1024;

/// The bit of an IPv6 destination in the bitmap, from its first four bytes. (Most of the world's begin with the same 12
/// bits, so the first 16 alone would reject little.)
#[inline(always)]
#[must_use]
pub const fn bitmap6_bit(first: [u8; 4]) -> u16 {
    u16::from_be_bytes([first[0], first[1]]) ^ u16::from_be_bytes([first[2], first[3]])
}

/// Most misses of one walk that wait for a hit's namespace; further ones are counted with [`NETNS_UNKNOWN`].
pub const WAITING_MAX: usize = 4;
/// A change of the same outcome is told at most this often, in nanoseconds. Devices in layers (a VLAN on a bond) or
/// multipath would send an event a packet otherwise. A change that is held back is told by the first lookup or packet
/// after this time, as the last outcome told stays what it is compared with.
pub const CHANGE_INTERVAL_NS: u64 = 1_000_000;

/// The value of a trie entry that is a hole in a wider watched prefix: traffic there belongs to no tunnel.
pub const WATCH_NONE: u32 = u32::MAX;

/// [`LookupKey::netns`] of a lookup whose namespace the hook cannot tell (an IPv4 table miss).
pub const NETNS_UNKNOWN: u32 = 0;

/// Which program made a lookup record.
pub mod hook {
    /// Tracepoint `fib_table_lookup`: one IPv4 table tried.
    pub const FIB_TABLE: u8 = 1;
    /// `fexit` of `__fib_lookup`: the outcome of a whole IPv4 walk of the rules.
    pub const FIB_RULES: u8 = 2;
    /// Tracepoint `fib6_table_lookup`: one IPv6 table tried.
    pub const FIB6_TABLE: u8 = 3;
}

/// What a lookup was for, as far as the flow's fields tell (`net/ipv4/route.c`, `net/ipv4/fib_frontend.c`).
pub mod lookup_kind {
    /// Output: the kernel sets the input interface to the loopback device.
    pub const OUTPUT: u8 = 1;
    /// Input or forwarding: a real input interface.
    pub const INPUT: u8 = 2;
    /// Loopback as input interface and no protocol: source validation, or another of the kernel's own questions.
    pub const SOURCE_VALIDATION: u8 = 3;
}

/// Bits of [`LookupKey::flags`] and [`PacketKey::flags`].
pub mod flag {
    /// One of the ports is TCP 179 (BGP).
    pub const BGP: u8 = 1;
    /// The flow is bound to an output device (`SO_BINDTODEVICE` or an explicit output interface), and not to the VRF that the
    /// watched prefix belongs to.
    pub const BOUND: u8 = 2;
    /// Made by vpnfix's own probe.
    pub const PROBE: u8 = 4;
    /// The namespace has, or once had, rules beside the kernel's three: the walk goes through `__fib_lookup`.
    pub const CUSTOM_RULES: u8 = 8;
}

/// Why an event was sent.
pub mod occasion {
    /// The key was never seen before.
    pub const FIRST_SIGHT: u8 = 1;
    /// The outcome for the same namespace, watched prefix and kind differs from its last one. A new key whose outcome
    /// differs from the one before is a change too.
    pub const CHANGE: u8 = 2;
}

/// Values of [`EventHeader::kind`].
pub mod event_kind {
    /// The record is a [`super::LookupEvent`].
    pub const LOOKUP: u16 = 1;
    /// The record is a [`super::PacketEvent`].
    pub const PACKET: u16 = 2;
    /// The record is a [`super::TcpEvent`].
    pub const TCP: u16 = 3;
    /// The record is a [`super::FlowEvent`].
    pub const FLOW: u16 = 4;
    /// The record is a [`super::HeadersEvent`].
    pub const HEADERS: u16 = 5;
}

/// What happened to a flow: values of [`FlowKey::act`].
pub mod act {
    /// A route was looked up for it.
    pub const LOOKUP: u8 = 1;
    /// A packet of it was handed to a device.
    pub const PACKET: u8 = 2;
    /// A packet of it was dropped.
    pub const DROP: u8 = 3;
    /// A packet that came from its destination was dropped.
    pub const ANSWER_DROP: u8 = 4;
    /// A packet came from its destination.
    pub const ANSWER: u8 = 5;
    /// TCP sent a segment of it again.
    pub const RETRANSMIT: u8 = 6;
}

/// Indices of the per-CPU array of loss and skip counters.
pub mod counter {
    /// Events that found the ring buffer full.
    pub const RING_FULL: u32 = 0;
    /// Lookups whose key found the lookup map full; they are in no count.
    pub const LOOKUPS_UNCOUNTED: u32 = 1;
    /// Packets whose key found the packet map full; they are in no count.
    pub const PACKETS_UNCOUNTED: u32 = 2;
    /// Lookups and packets whose destination found the destination map full; the counts by key still hold.
    pub const DESTINATIONS_UNCOUNTED: u32 = 3;
    /// Changes of outcome that could not be told from no change, because the map of last outcomes was full.
    pub const OUTCOMES_UNTRACKED: u32 = 4;
    /// Watched lookups left out because they are another namespace's. (Packets of other namespaces are passed over
    /// before anything else is known of them, and not counted.)
    pub const OTHER_NETNS: u32 = 5;
    /// Lookups left out because vpnfix itself asked (`RTM_GETROUTE`).
    pub const OWN_QUERIES: u32 = 6;
    /// Packets whose header could not be read.
    pub const UNREADABLE_PACKETS: u32 = 7;
    /// What happened to a flow and found the map of flows full; the counts by key still hold.
    pub const FLOWS_UNCOUNTED: u32 = 8;
    /// Headers that found their ring buffer full, or could not be read.
    pub const HEADERS_LOST: u32 = 9;
    /// How many counters there are.
    pub const COUNT: u32 = 10;
}

/// What lookups are counted by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LookupKey {
    /// Inode of the network namespace, [`NETNS_UNKNOWN`] where the hook cannot tell.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Routing table that answered, or was tried.
    pub table: u32,
    /// Interface index of the nexthop's device, 0 without one.
    pub ifindex: u32,
    /// 0 for a hit, else a negative errno.
    pub outcome: i32,
    /// One of [`hook`].
    pub hook: u8,
    /// One of [`lookup_kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Length of the matched prefix where the hook knows it ([`hook::FIB_RULES`] with outcome 0), else 255.
    pub prefix_length: u8,
}

/// What transmitted packets are counted by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketKey {
    /// Inode of the network namespace of the device.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Interface index of the device that the packet was handed to.
    pub ifindex: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// Counts and times of one key, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of the packets from the network header on; 0 for lookups.
    pub bytes: u64,
    /// When the first was seen on this CPU; 0 for never.
    pub first_ns: u64,
    /// When the last was seen on this CPU.
    pub last_ns: u64,
}

/// What the bounded detail by destination is counted by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationKey {
    /// Destination address.
    pub address: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
    /// Interface index of the device.
    pub ifindex: u32,
    /// [`event_kind::LOOKUP`] or [`event_kind::PACKET`].
    pub kind: u16,
    /// 4 or 6.
    pub family: u8,
    /// Bits of [`flag`].
    pub flags: u8,
}

/// What the last outcome is kept by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutcomeKey {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// [`event_kind::LOOKUP`] or [`event_kind::PACKET`].
    pub event: u16,
    /// One of [`hook`], 0 for packets.
    pub hook: u8,
    /// One of [`lookup_kind`], 0 for packets.
    pub kind: u8,
    /// The bits [`flag::BGP`] and [`flag::BOUND`].
    pub flags: u8,
    /// How many hits of the same walk came before this one: a hit that a rule suppresses and the hit after it take
    /// turns in every walk, which is no change. 0 for packets and for [`hook::FIB_RULES`].
    pub step: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// An outcome to compare the next one with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Routing table, 0 for packets.
    pub table: u32,
    /// Interface index of the device, 0 without one.
    pub ifindex: u32,
    /// 0 or a negative errno.
    pub outcome: i32,
}

/// The last outcome, and when user space was told of a change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastOutcome {
    /// When the last event of a change was sent; 0 for never.
    pub told_ns: u64,
    /// The outcome that was told.
    pub outcome: Outcome,
    /// Zero.
    pub _pad: u32,
}

/// Head of every record in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// [`ABI_VERSION`].
    pub abi: u16,
    /// One of [`event_kind`].
    pub kind: u16,
    /// Size of the whole record in bytes.
    pub size: u32,
    /// When.
    pub time_ns: u64,
}

/// The task in whose context a hook ran. In a softirq that is whoever was interrupted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskContext {
    /// Process id (the kernel's tgid), in the initial pid namespace.
    pub process: u32,
    /// Thread id.
    pub thread: u32,
    /// Name, NUL-padded.
    pub comm: [u8; 16],
}

/// Source, destination and ports of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowAddresses {
    /// Source address, zero where not chosen yet.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Source port, 0 where there is none.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// What one lookup tells of itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What it is counted by.
    pub key: LookupKey,
    /// The flow asked about.
    pub flow: FlowAddresses,
    /// Input interface of the flow.
    pub iif: u32,
    /// Output interface of the flow, 0 if not bound.
    pub oif: u32,
    /// Firewall mark of the flow.
    pub mark: u32,
    /// User id of the flow.
    pub uid: u32,
    /// Gateway of the nexthop; valid only with [`Sighting::gateway_family`].
    pub gateway: [u8; 16],
    /// 0 (none), 4 or 6.
    pub gateway_family: u8,
    /// Type of service byte.
    pub tos: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// One walk of the rules as far as it was seen on a CPU. An IPv4 miss has no device and so no namespace: it waits here
/// for a hit of the same walk, whose namespace is the misses' too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Address of the flow, which all lookups of one walk share.
    pub flow: u64,
    /// When the last waiting miss was seen.
    pub missed_ns: u64,
    /// Thread of the walk.
    pub thread: u32,
    /// First table of the walk: when it is tried again, a new walk has begun.
    pub first_table: u32,
    /// Hits so far.
    pub hits: u32,
    /// Misses that wait.
    pub waiting: u32,
    /// Their tables.
    pub tables: [u32; WAITING_MAX],
    /// The lookup that missed first; but for the table, the others were the same.
    pub sighting: Sighting,
    /// Zero.
    pub _pad: u32,
}

/// A lookup worth waking user space for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupEvent {
    /// Head, of kind [`event_kind::LOOKUP`].
    pub header: EventHeader,
    /// What it is counted by.
    pub key: LookupKey,
    /// The flow asked about.
    pub flow: FlowAddresses,
    /// Input interface of the flow.
    pub iif: u32,
    /// Output interface of the flow, 0 if not bound.
    pub oif: u32,
    /// Firewall mark of the flow.
    pub mark: u32,
    /// User id of the flow.
    pub uid: u32,
    /// Gateway of the nexthop; valid only with [`LookupEvent::gateway_family`].
    pub gateway: [u8; 16],
    /// 0 (none), 4 or 6.
    pub gateway_family: u8,
    /// One of [`occasion`].
    pub occasion: u8,
    /// Type of service byte.
    pub tos: u8,
    /// Zero.
    pub _pad: u8,
    /// The outcome before this one, zero at first sight.
    pub previous: Outcome,
    /// In whose context the lookup ran.
    pub task: TaskContext,
}

/// A transmitted packet worth waking user space for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketEvent {
    /// Head, of kind [`event_kind::PACKET`].
    pub header: EventHeader,
    /// What it is counted by.
    pub key: PacketKey,
    /// Addresses and ports in the packet.
    pub flow: FlowAddresses,
    /// Bytes from the network header on.
    pub length: u32,
    /// Interface index of the device before this one, 0 at first sight.
    pub previous_ifindex: u32,
    /// One of [`occasion`].
    pub occasion: u8,
    /// Zero.
    pub _pad: [u8; 7],
    /// In whose context the packet was handed over.
    pub task: TaskContext,
}

/// A TCP socket of port 179 changed its state.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEvent {
    /// Head, of kind [`event_kind::TCP`].
    pub header: EventHeader,
    /// Addresses and ports: source is the local end.
    pub flow: FlowAddresses,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    /// State before (`include/net/tcp_states.h`).
    pub old_state: u8,
    /// State after.
    pub new_state: u8,
    /// Zero.
    pub _pad: [u8; 2],
    /// In whose context it changed.
    pub task: TaskContext,
}

/// What is counted flow by flow, while it is asked for. The flow is told from the host's side, or the forwarded packet's:
/// the destination is the watched address, for packets that came from there as well.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Addresses and ports.
    pub flow: FlowAddresses,
    /// Address of the instruction that dropped a packet ([`act::DROP`], [`act::ANSWER_DROP`]), else 0.
    pub location: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Interface index: of the nexthop's device, the device that a packet was handed to or came by; 0 without one.
    pub ifindex: u32,
    /// Routing table ([`act::LOOKUP`]), else 0.
    pub table: u32,
    /// Outcome of a lookup (0 or a negative errno); the kernel's reason for a drop (`enum skb_drop_reason`, 0 where it
    /// gives none); else 0.
    pub detail: i32,
    /// One of [`act`].
    pub act: u8,
    /// One of [`hook`] ([`act::LOOKUP`]), else 0.
    pub hook: u8,
    /// One of [`lookup_kind`] ([`act::LOOKUP`]), else 0.
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
}

/// Something happened to a flow for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Head, of kind [`event_kind::FLOW`].
    pub header: EventHeader,
    /// What it is counted by.
    pub key: FlowKey,
    /// Input interface of the flow that a lookup asked about, else 0.
    pub iif: u32,
    /// Output interface that it is bound to, else 0.
    pub oif: u32,
    /// Firewall mark of a lookup's flow, else 0.
    pub mark: u32,
    /// User id of a lookup's flow, else 0.
    pub uid: u32,
    /// Bytes of a packet from the network header on, else 0.
    pub length: u32,
    /// Bytes of [`FlowEvent::stack`] that are filled, or a negative errno.
    pub stack_bytes: i32,
    /// In whose context it happened.
    pub task: TaskContext,
    /// Return addresses of the call stack, the innermost first.
    pub stack: [u64; STACK_FRAMES],
}

/// The first bytes of a packet as it was handed to a device, while they are asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersEvent {
    /// Head, of kind [`event_kind::HEADERS`].
    pub header: EventHeader,
    /// What the packet is counted by.
    pub key: PacketKey,
    /// Bytes from the network header on, of the whole packet.
    pub length: u32,
    /// Bytes of the link's header before the network header.
    pub link_length: u32,
    /// How many of [`HeadersEvent::bytes`] are the packet's: its linear part. What follows is other memory of the
    /// kernel's.
    pub linear: u32,
    /// Zero.
    pub _pad: u32,
    /// The bytes, from the link's header on.
    pub bytes: [u8; HEADER_BYTES],
}

/// Asserts that a type's size is the sum of its fields' sizes, so that no padding byte hides in it: a hash map compares
/// keys byte by byte, and the verifier refuses to copy what was never written.
macro_rules! assert_packed {
    ($($type:ty = $size:expr;)*) => {
        $(const _: () = assert!(core::mem::size_of::<$type>() == $size);)*
    };
}

assert_packed! {
    LookupKey = 5 * 4 + 4;
    PacketKey = 3 * 4 + 4;
    Tally = 4 * 8;
    DestinationKey = 16 + 2 * 4 + 4;
    OutcomeKey = 2 * 4 + 2 + 6;
    Outcome = 3 * 4;
    LastOutcome = 8 + 12 + 4;
    Sighting = 24 + 40 + 4 * 4 + 16 + 4;
    Walk = 2 * 8 + 4 * 4 + 4 * WAITING_MAX + 100 + 4;
    EventHeader = 2 * 2 + 4 + 8;
    TaskContext = 2 * 4 + 16;
    FlowAddresses = 2 * 16 + 2 * 2 + 4;
    LookupEvent = 16 + 24 + 40 + 4 * 4 + 16 + 4 + 12 + 24;
    PacketEvent = 16 + 16 + 40 + 2 * 4 + 8 + 24;
    TcpEvent = 16 + 40 + 4 + 4 + 24;
    FlowKey = 40 + 8 + 4 * 4 + 4 + 4;
    FlowEvent = 16 + 72 + 4 * 6 + 24 + 8 * STACK_FRAMES;
    HeadersEvent = 16 + 16 + 4 * 4 + HEADER_BYTES;
}

#[cfg(feature = "user")]
mod pod {
    //! Leave for aya to copy these types to and from the kernel's maps.

    macro_rules! pod {
        ($($type:ty),*) => {
            // SAFETY: `repr(C)`, made of integers only, so every bit pattern is valid, and without padding (asserted
            // in the crate's root).
            $(unsafe impl aya::Pod for $type {})*
        };
    }

    pod!(super::LookupKey, super::PacketKey, super::Tally, super::DestinationKey, super::Walk);
}
