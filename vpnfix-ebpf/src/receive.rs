//! Packets that come in from watched prefixes: the answers.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::BtfTracePointContext};
use vpnfix_common::{FlowKey, act};

use crate::{
    fib4::is_other_netns,
    flows,
    offsets::{
        NET_DEVICE_IFINDEX, NET_DEVICE_NET, SKB_DEV, SKB_HEAD, SKB_LEN, SKB_NETWORK_HEADER, SKB_PROTOCOL, load,
        netns_inode,
    },
    packet::{FROM_WATCHED, Parsed, parse},
};

/// A packet came in by a device: `(struct sk_buff *skb)`, on 5.10 to 7.3 alike. The kernel has set the network header by
/// then (`__netif_receive_skb_core`).
#[inline(always)]
pub fn received(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    // SAFETY: an argument of the hook, and what it points to.
    unsafe {
        let device: *const u8 = load(skb, &SKB_DEV);
        let netns = netns_inode(load(device, &NET_DEVICE_NET));
        if is_other_netns(netns) {
            return;
        }
        let protocol = u16::from_be(load(skb, &SKB_PROTOCOL));
        let header = load::<u64>(skb, &SKB_HEAD) + u64::from(load::<u16>(skb, &SKB_NETWORK_HEADER));
        let mut parsed = MaybeUninit::<Parsed>::uninit();
        if !parse::<{ FROM_WATCHED }>(protocol, header, &mut parsed) {
            return;
        }
        // It was read, and so written.
        let &Parsed { flow, watch, flags, .. } = parsed.assume_init_ref();
        let key = FlowKey {
            flow,
            location: 0,
            netns,
            watch,
            ifindex: load(device, &NET_DEVICE_IFINDEX),
            table: 0,
            detail: 0,
            act: act::ANSWER,
            hook: 0,
            kind: 0,
            flags,
        };
        // The link's header is off already.
        flows::happened(ctx.as_ptr(), &key, load(skb, &SKB_LEN), bpf_ktime_get_ns());
    }
}
