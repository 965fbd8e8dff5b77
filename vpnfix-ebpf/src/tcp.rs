//! The TCP states of BGP's sessions.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use vpnfix_common::{
    ABI_VERSION, EventHeader, FlowAddresses, FlowKey, TaskContext, TcpEvent, act, counter, event_kind,
};

use crate::{
    fib4::is_other_netns,
    filter::watched,
    flow::{BGP_PORT, TCP, is_asked_for, marks},
    flows,
    maps::{EVENTS, bump},
    offsets::{
        SK_PROTOCOL, SKC_DADDR, SKC_DPORT, SKC_FAMILY, SKC_NET, SKC_NUM, SKC_RCV_SADDR, SKC_V6_DADDR, SKC_V6_RCV_SADDR,
        address4, load, load_address6, netns_inode,
    },
    task,
};

/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;

/// A socket changes its state: `(const struct sock *sk, int oldstate, int newstate)`, on 5.10 to 7.3 alike.
#[inline(always)]
pub fn set_state(ctx: &BtfTracePointContext) {
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: an argument of the hook.
    unsafe {
        let source_port: u16 = load(socket, &SKC_NUM);
        let destination_port = u16::from_be(load(socket, &SKC_DPORT));
        if (source_port != BGP_PORT && destination_port != BGP_PORT)
            || load::<u16>(socket, &SK_PROTOCOL) != u16::from(TCP)
        {
            return;
        }
        let netns = netns_inode(load(socket, &SKC_NET));
        if is_other_netns(netns) {
            return;
        }
        let Some(flow) = socket_flow(socket) else { return };
        if !is_asked_for(&flow) {
            return;
        }
        send(flow, netns, ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    }
}

/// A segment is sent again: `(const struct sock *sk, const struct sk_buff *skb)`, on newer kernels with an error behind.
#[inline(always)]
pub fn retransmit(ctx: &BtfTracePointContext) {
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: an argument of the hook.
    unsafe {
        let netns = netns_inode(load(socket, &SKC_NET));
        if is_other_netns(netns) {
            return;
        }
        let Some(flow) = socket_flow(socket) else { return };
        let Some(watch) = watched(&flow) else { return };
        if !is_asked_for(&flow) {
            return;
        }
        let key = FlowKey {
            flow,
            location: 0,
            netns,
            watch,
            ifindex: 0,
            table: 0,
            detail: 0,
            act: act::RETRANSMIT,
            hook: 0,
            kind: 0,
            flags: marks(&flow),
        };
        flows::happened(ctx.as_ptr(), &key, 0, bpf_ktime_get_ns());
    }
}

/// Addresses and ports of a socket; the source is the local end.
///
/// # Safety
///
/// `socket` must be a `struct sock *` known to the verifier.
#[inline(always)]
pub unsafe fn socket_flow(socket: *const u8) -> Option<FlowAddresses> {
    // SAFETY: the caller's promise.
    unsafe {
        let (family, source, destination) = match load::<u16>(socket, &SKC_FAMILY) {
            AF_INET => (4, address4(load(socket, &SKC_RCV_SADDR)), address4(load(socket, &SKC_DADDR))),
            AF_INET6 => (6, load_address6(socket, &SKC_V6_RCV_SADDR), load_address6(socket, &SKC_V6_DADDR)),
            _ => return None,
        };
        Some(FlowAddresses {
            source,
            destination,
            source_port: load(socket, &SKC_NUM),
            destination_port: u16::from_be(load(socket, &SKC_DPORT)),
            protocol: load::<u16>(socket, &SK_PROTOCOL) as u8,
            family,
            _pad: [0; 2],
        })
    }
}

#[inline(always)]
fn send(flow: FlowAddresses, netns: u32, old_state: u8, new_state: u8) {
    let (id, comm) = task::current();
    // SAFETY: takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let Some(mut entry) = EVENTS.reserve::<TcpEvent>(0) else {
        bump(counter::RING_FULL, 1);
        return;
    };
    let event: &mut MaybeUninit<TcpEvent> = &mut entry;
    event.write(TcpEvent {
        header: EventHeader { abi: ABI_VERSION, kind: event_kind::TCP, size: size_of::<TcpEvent>() as u32, time_ns },
        flow,
        netns,
        old_state,
        new_state,
        _pad: [0; 2],
        task: TaskContext { process: (id >> 32) as u32, thread: id as u32, comm },
    });
    entry.submit(0);
    log(netns, u32::from(old_state), u32::from(new_state));
}

/// Apart, for the stack that a debug line needs.
#[inline(never)]
fn log(netns: u32, old_state: u32, new_state: u32) -> u32 {
    debug!((), "tcp: netns {} state {} to {}", netns, old_state, new_state);
    0
}
