//! IPv6 route lookups.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_ns, programs::BtfTracePointContext};
use vpnfix_common::{counter, flag, hook};

use crate::{
    fib4::{is_other_netns, read_nexthop},
    filter::{may_be_watched6, watch6},
    flow::{is_asked_for, sighting6},
    flows, lookup,
    maps::{WALK6, bump},
    offsets::{
        FIB6_RESULT_F6I, FIB6_RESULT_NH, FIB6_RESULT_TYPE, FIB6_TABLE_ID, FLOWI6_DADDR, NET_IPV6_CUSTOM_RULES,
        NET_IPV6_NULL_ENTRY, load, load_address6, load_if_there, netns_inode,
    },
    own, task, walk,
};

/// One IPv6 table tried: `(const struct net *net, const struct fib6_result *res, struct fib6_table *table,
/// const struct flowi6 *flp)`, on 5.10 to 7.3 alike.
#[inline(always)]
pub fn table_lookup(ctx: &BtfTracePointContext) {
    let flow: *const u8 = ctx.arg(3);
    // SAFETY: an argument of the hook; an address begins with its first four bytes.
    if !may_be_watched6(unsafe { load(flow, &FLOWI6_DADDR) }) {
        return;
    }
    let net: *const u8 = ctx.arg(0);
    // SAFETY: an argument of the hook.
    let netns = unsafe { netns_inode(net) };
    if is_other_netns(netns) {
        bump(counter::OTHER_NETNS, 1);
        return;
    }
    let thread = task::id() as u32;
    let result: *const u8 = ctx.arg(1);
    let table: *const u8 = ctx.arg(2);
    // SAFETY: arguments of the hook; a whole element of the map.
    unsafe {
        let destination = load_address6(flow, &FLOWI6_DADDR);
        let table: u32 = load(table, &FIB6_TABLE_ID);
        let Some(walk) = WALK6.get_ptr_mut(0) else { return };
        if !walk::goes_on(walk, flow as u64, thread, &words(destination), table) {
            let Some(watch) = watch6(&destination) else { return };
            if own::is_query(ctx, thread) {
                bump(counter::OWN_QUERIES, 1);
                return;
            }
            let sighting = sighting6(flow, destination, watch, hook::FIB6_TABLE, thread);
            if !is_asked_for(&sighting.flow) {
                return;
            }
            walk::begin::<false>(walk, &sighting, flow as u64, thread, table);
        }
        let now = bpf_ktime_get_ns();
        let custom: u8 = load_if_there(net, &NET_IPV6_CUSTOM_RULES).unwrap_or(0);
        // A table without a match answers with the null entry, whose type would read as an unreachable route.
        let route: u64 = load(result, &FIB6_RESULT_F6I);
        let null_entry: u64 = load(net, &NET_IPV6_NULL_ENTRY);
        let outcome = if route == null_entry { lookup::MISS } else { error_of(load(result, &FIB6_RESULT_TYPE)) };
        walk::answer(walk, table, outcome, netns, if custom != 0 { flag::CUSTOM_RULES } else { 0 });
        if outcome == 0 {
            // `struct fib6_nh` begins with its `struct fib_nh_common`.
            let nexthop: *const u8 = load(result, &FIB6_RESULT_NH);
            if !nexthop.is_null() {
                read_nexthop(nexthop, &mut (*walk).sighting);
            }
        }
        let step = if outcome == 0 { walk::step(walk) } else { 0 };
        lookup::record(&(*walk).sighting, step, now);
        if flows::are_told() && outcome == 0 {
            flows::looked_up(ctx.as_ptr(), &(*walk).sighting, now);
        }
    }
}

/// An address as [`walk::goes_on`] compares it.
#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(address) }
}

/// `ip6_rt_type_to_error` (`net/ipv6/route.c`): the error that a route of this type gives.
#[inline(always)]
fn error_of(kind: u8) -> i32 {
    match kind {
        6 => -22,
        7 => -113,
        8 => -13,
        9 => lookup::MISS,
        _ => 0,
    }
}
