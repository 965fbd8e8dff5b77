//! Packets that the kernel drops.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::BtfTracePointContext};
use vpnfix_common::{FlowKey, act};

use crate::{
    fib4::is_other_netns,
    filter::watched,
    flow::{is_asked_for, marks},
    flows,
    offsets::{
        HAS_DROP_REASON, NET_DEVICE_IFINDEX, NET_DEVICE_NET, SKB_DEV, SKB_HEAD, SKB_LEN, SKB_NETWORK_HEADER,
        SKB_PROTOCOL, SKB_SK, SKC_NET, load, netns_inode,
    },
    packet::{ETH_P_IP, ETH_P_IPV6, FROM_WATCHED, Parsed, TO_WATCHED, parse},
    tcp::socket_flow,
};

const BOTH: u8 = TO_WATCHED | FROM_WATCHED;

/// A packet is dropped: `(struct sk_buff *skb, void *location)`, since 5.17 with `enum skb_drop_reason reason` behind, since
/// 6.11 with the receiving socket behind that.
#[inline(always)]
pub fn dropped(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    let location: u64 = ctx.arg(1);
    let reason: i32 = if HAS_DROP_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    // SAFETY: an argument of the hook, and what it points to.
    unsafe {
        let device: *const u8 = load(skb, &SKB_DEV);
        let socket: *const u8 = load(skb, &SKB_SK);
        // A packet that has not reached a device yet is its socket's. (Where the device's place holds something else, as it
        // does in a queue, no namespace of this number is found.)
        let (netns, ifindex) = if !device.is_null() {
            (netns_inode(load(device, &NET_DEVICE_NET)), load(device, &NET_DEVICE_IFINDEX))
        } else if !socket.is_null() {
            (netns_inode(load(socket, &SKC_NET)), 0)
        } else {
            return;
        };
        if netns == 0 || is_other_netns(netns) {
            return;
        }
        let protocol = u16::from_be(load(skb, &SKB_PROTOCOL));
        let header = load::<u64>(skb, &SKB_HEAD) + u64::from(load::<u16>(skb, &SKB_NETWORK_HEADER));
        let mut parsed = MaybeUninit::<Parsed>::uninit();
        let is_read = match protocol {
            ETH_P_IP | ETH_P_IPV6 => parse::<{ BOTH }>(protocol, header, &mut parsed),
            // Without a route there is no header yet (`__ip_queue_xmit`): the socket knows where to.
            _ if device.is_null() => {
                // Read anew: the verifier has forgotten that it was tested, and the compiler would drop a second test.
                let socket: *const u8 = load(skb, &SKB_SK);
                !socket.is_null() && of_socket(socket, &mut parsed)
            }
            _ => false,
        };
        if !is_read {
            return;
        }
        // It was read, and so written.
        let &Parsed { flow, watch, flags, from_watched } = parsed.assume_init_ref();
        let key = FlowKey {
            flow,
            location,
            netns,
            watch,
            ifindex,
            table: 0,
            detail: reason,
            act: if from_watched { act::ANSWER_DROP } else { act::DROP },
            hook: 0,
            kind: 0,
            flags,
        };
        flows::happened(ctx.as_ptr(), &key, load(skb, &SKB_LEN), bpf_ktime_get_ns());
    }
}

/// # Safety
///
/// `socket` must be a `struct sock *` known to the verifier.
#[inline(always)]
unsafe fn of_socket(socket: *const u8, parsed: &mut MaybeUninit<Parsed>) -> bool {
    // SAFETY: the caller's promise.
    let Some(flow) = (unsafe { socket_flow(socket) }) else { return false };
    let Some(watch) = watched(&flow) else { return false };
    if is_asked_for(&flow) {
        parsed.write(Parsed { flow, watch, flags: marks(&flow), from_watched: false });
        return true;
    }
    false
}
