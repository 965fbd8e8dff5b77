//! Packets handed to a device.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::BtfTracePointContext};
use vpnfix_common::{
    ABI_VERSION, DestinationKey, EventHeader, FlowAddresses, FlowKey, Outcome, OutcomeKey, PacketEvent, PacketKey,
    TaskContext, act, counter, event_kind, flag, occasion,
};

use crate::{
    fib4::is_other_netns,
    filter::is_bound,
    flows, headers,
    lookup::{Comparison, compare},
    maps::{DESTINATIONS, EVENTS, PACKETS, bump, tally},
    offsets::{
        BY_DESTINATION, NET_DEVICE_IFINDEX, NET_DEVICE_NET, SKB_DATA, SKB_DATA_LEN, SKB_HEAD, SKB_LEN,
        SKB_NETWORK_HEADER, SKB_PROTOCOL, SKB_SK, SKC_BOUND_DEV_IF, load, load_if_there, netns_inode,
    },
    packet::{Parsed, TO_WATCHED, parse},
    task,
};

/// What a watched packet tells.
pub struct Packet {
    flow: FlowAddresses,
    netns: u32,
    watch: u32,
    ifindex: u32,
    /// Bytes from the network header on.
    pub length: u32,
    flags: u8,
}

impl Packet {
    /// What it is counted by.
    #[inline(always)]
    pub fn key(&self) -> PacketKey {
        PacketKey {
            netns: self.netns,
            watch: self.watch,
            ifindex: self.ifindex,
            flags: self.flags,
            family: self.flow.family,
            _pad: [0; 2],
        }
    }
}

/// A packet handed to a device: `(const struct sk_buff *skb, const struct net_device *dev)`, on 5.10 to 7.3 alike.
#[inline(always)]
pub fn start_xmit(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    let device: *const u8 = ctx.arg(1);
    // SAFETY: arguments of the hook.
    unsafe {
        let netns = netns_inode(load(device, &NET_DEVICE_NET));
        if is_other_netns(netns) {
            return;
        }
        let protocol = u16::from_be(load(skb, &SKB_PROTOCOL));
        let network_header = load::<u64>(skb, &SKB_HEAD) + u64::from(load::<u16>(skb, &SKB_NETWORK_HEADER));
        let mut parsed = MaybeUninit::<Parsed>::uninit();
        if !parse::<{ TO_WATCHED }>(protocol, network_header, &mut parsed) {
            return;
        }
        // It was read, and so written.
        let &Parsed { flow, watch, mut flags, .. } = parsed.assume_init_ref();
        let socket: *const u8 = load(skb, &SKB_SK);
        if !socket.is_null() && is_bound(watch, load(socket, &SKC_BOUND_DEV_IF)) {
            flags |= flag::BOUND;
        }
        // `data` stands at the link's header, where there is one.
        let before_network_header = network_header.wrapping_sub(load(skb, &SKB_DATA)) as u32;
        let packet = Packet {
            flow,
            netns,
            watch,
            ifindex: load(device, &NET_DEVICE_IFINDEX),
            length: load::<u32>(skb, &SKB_LEN).wrapping_sub(before_network_header),
            flags,
        };
        // SAFETY: takes nothing.
        let now = bpf_ktime_get_ns();
        record(&packet, now);
        if headers::are_told()
            && let Some(paged) = load_if_there::<u32>(skb, &SKB_DATA_LEN)
        {
            let linear = load::<u32>(skb, &SKB_LEN).wrapping_sub(paged);
            headers::tell(&packet, load(skb, &SKB_DATA), before_network_header, linear, now);
        }
        if flows::are_told() {
            let key = FlowKey {
                flow: packet.flow,
                location: 0,
                netns: packet.netns,
                watch: packet.watch,
                ifindex: packet.ifindex,
                table: 0,
                detail: 0,
                act: act::PACKET,
                hook: 0,
                kind: 0,
                flags: packet.flags,
            };
            flows::happened(ctx.as_ptr(), &key, packet.length, now);
        }
    }
}

#[inline(never)]
fn record(packet: &Packet, now: u64) -> u32 {
    let key = packet.key();
    let bytes = u64::from(packet.length);
    let new = tally(&PACKETS, &key, bytes, now).unwrap_or_else(|| {
        bump(counter::PACKETS_UNCOUNTED, 1);
        false
    });
    if BY_DESTINATION.load() != 0 {
        count_destination(packet, bytes, now);
    }
    let outcome_key = OutcomeKey {
        netns: packet.netns,
        watch: packet.watch,
        event: event_kind::PACKET,
        hook: 0,
        kind: 0,
        flags: packet.flags & (flag::BGP | flag::BOUND),
        step: 0,
        _pad: [0; 2],
    };
    match compare(&outcome_key, Outcome { table: 0, ifindex: packet.ifindex, outcome: 0 }, now) {
        Comparison::Changed(previous) => send(packet, &key, occasion::CHANGE, previous.ifindex, now),
        _ if new => send(packet, &key, occasion::FIRST_SIGHT, 0, now),
        _ => {}
    }
    0
}

#[inline(always)]
fn count_destination(packet: &Packet, bytes: u64, now: u64) {
    let destination = DestinationKey {
        address: packet.flow.destination,
        netns: packet.netns,
        ifindex: packet.ifindex,
        kind: event_kind::PACKET,
        family: packet.flow.family,
        flags: packet.flags,
    };
    if tally(&DESTINATIONS, &destination, bytes, now).is_none() {
        bump(counter::DESTINATIONS_UNCOUNTED, 1);
    }
}

#[inline(always)]
fn send(packet: &Packet, key: &PacketKey, occasion: u8, previous_ifindex: u32, now: u64) {
    let (id, comm) = task::current();
    let Some(mut entry) = EVENTS.reserve::<PacketEvent>(0) else {
        bump(counter::RING_FULL, 1);
        return;
    };
    let event: &mut MaybeUninit<PacketEvent> = &mut entry;
    event.write(PacketEvent {
        header: EventHeader {
            abi: ABI_VERSION,
            kind: event_kind::PACKET,
            size: size_of::<PacketEvent>() as u32,
            time_ns: now,
        },
        key: *key,
        flow: packet.flow,
        length: packet.length,
        previous_ifindex,
        occasion,
        _pad: [0; 7],
        task: TaskContext { process: (id >> 32) as u32, thread: id as u32, comm },
    });
    entry.submit(0);
}
