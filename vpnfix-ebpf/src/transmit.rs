//! Packets handed to a device.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
    programs::BtfTracePointContext,
};
use vpnfix_common::{
    ABI_VERSION, DestinationKey, EventHeader, FlowAddresses, Outcome, OutcomeKey, PacketEvent, PacketKey, TaskContext,
    counter, event_kind, flag, occasion,
};

use crate::{
    fib4::is_other_netns,
    filter::{watched4, watched6},
    flow::{ICMP, ICMP6, has_ports, marks},
    lookup::{Comparison, compare},
    maps::{DESTINATIONS, EVENTS, PACKETS, bump, tally},
    offsets::{
        NET_DEVICE_IFINDEX, NET_DEVICE_NET, PROBE_ICMP_ID, SKB_DATA, SKB_HEAD, SKB_LEN, SKB_NETWORK_HEADER,
        SKB_PROTOCOL, SKB_SK, SKC_BOUND_DEV_IF, address4, load, netns_inode,
    },
    task,
};

/// `ETH_P_IP`.
const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`.
const ETH_P_IPV6: u16 = 0x86dd;
/// ICMP's echo request.
const ECHO_REQUEST: u8 = 8;
/// ICMPv6's echo request.
const ECHO_REQUEST6: u8 = 128;

/// What a watched packet tells.
struct Packet {
    flow: FlowAddresses,
    netns: u32,
    watch: u32,
    ifindex: u32,
    length: u32,
    flags: u8,
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
        if protocol != ETH_P_IP && protocol != ETH_P_IPV6 {
            return;
        }
        let network_header = load::<u64>(skb, &SKB_HEAD) + u64::from(load::<u16>(skb, &SKB_NETWORK_HEADER));
        let parsed = if protocol == ETH_P_IP { packet4(network_header) } else { packet6(network_header) };
        let Some((flow, watch, mut flags)) = parsed else { return };
        let socket: *const u8 = load(skb, &SKB_SK);
        if !socket.is_null() && load::<u32>(socket, &SKC_BOUND_DEV_IF) != 0 {
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
        record(&packet);
    }
}

/// # Safety
///
/// None: a bad address reads as nothing.
#[inline(always)]
unsafe fn read<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer has the size that is given.
    let error = unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), N as u32, address as *const _) };
    (error == 0).then_some(bytes)
}

#[inline(always)]
unsafe fn packet4(header_address: u64) -> Option<(FlowAddresses, u32, u8)> {
    // SAFETY: a bad address reads as nothing.
    let Some(header) = (unsafe { read::<20>(header_address) }) else {
        bump(counter::UNREADABLE_PACKETS, 1);
        return None;
    };
    let destination = u32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
    let watch = watched4(destination)?;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let mut flow = FlowAddresses {
        source: address4(u32::from_ne_bytes([header[12], header[13], header[14], header[15]])),
        destination: address4(destination),
        source_port: 0,
        destination_port: 0,
        protocol: header[9],
        family: 4,
        _pad: [0; 2],
    };
    let mut flags = 0;
    if fragment_offset == 0 {
        let transport = header_address + u64::from(header[0] & 15) * 4;
        // SAFETY: a bad address reads as nothing.
        flags = unsafe { read_transport(&mut flow, transport) };
    }
    Some((flow, watch, flags))
}

/// Extension headers are not walked: behind one, ports are not told.
#[inline(always)]
unsafe fn packet6(header_address: u64) -> Option<(FlowAddresses, u32, u8)> {
    // SAFETY: a bad address reads as nothing.
    let Some(destination) = (unsafe { read::<16>(header_address + 24) }) else {
        bump(counter::UNREADABLE_PACKETS, 1);
        return None;
    };
    let watch = watched6(&destination)?;
    // SAFETY: as above.
    let (source, [_, _, protocol, _]) = unsafe { (read::<16>(header_address + 8)?, read::<4>(header_address + 4)?) };
    let mut flow =
        FlowAddresses { source, destination, source_port: 0, destination_port: 0, protocol, family: 6, _pad: [0; 2] };
    // SAFETY: as above.
    let flags = unsafe { read_transport(&mut flow, header_address + 40) };
    Some((flow, watch, flags))
}

/// Reads the ports and gives the flags that follow from them, or from an echo's identifier.
#[inline(always)]
unsafe fn read_transport(flow: &mut FlowAddresses, address: u64) -> u8 {
    // SAFETY: a bad address reads as nothing.
    let Some(bytes) = (unsafe { read::<8>(address) }) else { return 0 };
    if has_ports(flow.protocol) {
        flow.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
        flow.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
        return marks(flow);
    }
    let is_echo =
        (flow.protocol == ICMP && bytes[0] == ECHO_REQUEST) || (flow.protocol == ICMP6 && bytes[0] == ECHO_REQUEST6);
    let probe = PROBE_ICMP_ID.load();
    if is_echo && probe != 0 && u32::from(u16::from_be_bytes([bytes[4], bytes[5]])) == probe {
        return flag::PROBE;
    }
    0
}

#[inline(never)]
fn record(packet: &Packet) -> u32 {
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = PacketKey {
        netns: packet.netns,
        watch: packet.watch,
        ifindex: packet.ifindex,
        flags: packet.flags,
        family: packet.flow.family,
        _pad: [0; 2],
    };
    let bytes = u64::from(packet.length);
    let new = tally(&PACKETS, &key, bytes, now).unwrap_or_else(|| {
        bump(counter::PACKETS_UNCOUNTED, 1);
        false
    });
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
