//! IPv4 route lookups.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_ktime_get_ns,
    programs::{BtfTracePointContext, FExitContext},
};
use vpnfix_common::{NETNS_UNKNOWN, Sighting, counter, flag, hook};

use crate::{
    filter::{may_be_watched4, watch4, watched4},
    flow::{is_asked_for, sighting4},
    flows, lookup,
    maps::{WALK4, bump},
    offsets::{
        FIB_RESULT_NHC, FIB_RESULT_PREFIXLEN, FIB_RESULT_TABLE, FIB_TABLE_ID, FLOWI4_DADDR, NET_DEVICE_IFINDEX,
        NET_DEVICE_NET, NET_IPV4_CUSTOM_RULES, NHC_DEV, NHC_GW, NHC_GW_FAMILY, TARGET_NETNS, address4, load,
        load_address6, load_if_there, netns_inode,
    },
    own, task, walk,
};

/// `AF_INET`.
const AF_INET: u8 = 2;
/// `AF_INET6`.
const AF_INET6: u8 = 10;

/// One IPv4 table tried: `(u32 tb_id, const struct flowi4 *flp, const struct fib_nh_common *nhc, int err)`, on 5.10 to
/// 7.3 alike.
#[inline(always)]
pub fn table_lookup(ctx: &BtfTracePointContext) {
    let flow: *const u8 = ctx.arg(1);
    // SAFETY: an argument of the hook.
    let destination: u32 = unsafe { load(flow, &FLOWI4_DADDR) };
    if !may_be_watched4(destination) {
        return;
    }
    let thread = task::id() as u32;
    let table: u32 = ctx.arg(0);
    let Some(walk) = WALK4.get_ptr_mut(0) else { return };
    // SAFETY: a whole element of the map.
    if !unsafe { walk::goes_on(walk, flow as u64, thread, &[destination, 0, 0, 0], table) } {
        let Some(watch) = watch4(destination) else { return };
        if own::is_query(ctx, thread) {
            bump(counter::OWN_QUERIES, 1);
            return;
        }
        // SAFETY: an argument of the hook.
        let sighting = unsafe { sighting4(flow, destination, watch, hook::FIB_TABLE, thread) };
        if !is_asked_for(&sighting.flow) {
            return;
        }
        // SAFETY: as above.
        unsafe { walk::begin::<true>(walk, &sighting, flow as u64, thread, table) };
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let error: i32 = ctx.arg(3);
    // The error is asked too: before about 6.13 the verifier takes the nexthop for non-null and drops a test of it.
    let nexthop: *const u8 = ctx.arg(2);
    if error == 0 && !nexthop.is_null() {
        // SAFETY: an argument of the hook, not null; a whole element of the map.
        unsafe {
            let device: *const u8 = load(nexthop, &NHC_DEV);
            let net: *const u8 = load(device, &NET_DEVICE_NET);
            let netns = netns_inode(net);
            if is_other_netns(netns) {
                bump(counter::OTHER_NETNS, 1);
                walk::leave_out(walk, counter::OTHER_NETNS);
                return;
            }
            let custom = custom_rules(net);
            if (*walk).waiting != 0 {
                walk::settle(walk, netns, custom);
            }
            walk::answer(walk, table, 0, netns, custom);
            read_nexthop(nexthop, &mut (*walk).sighting);
            lookup::record(&(*walk).sighting, walk::step(walk), now);
            if flows::are_told() {
                flows::looked_up(ctx.as_ptr(), &(*walk).sighting, now);
            }
        }
        return;
    }
    // SAFETY: a whole element of the map.
    unsafe {
        if error == lookup::MISS && walk::wait(walk, table, now) {
            return;
        }
        walk::answer(walk, table, error, NETNS_UNKNOWN, 0);
        lookup::record(&(*walk).sighting, 0, now);
    }
}

/// The outcome of a whole walk: `int __fib_lookup(struct net *net, struct flowi4 *flp, struct fib_result *res,
/// unsigned int flags)`, on 5.10 to 7.3 alike. The kernel calls it only where there are custom rules.
#[inline(always)]
pub fn rules_lookup(ctx: &FExitContext) {
    let flow: *const u8 = ctx.arg(1);
    // SAFETY: an argument of the hook.
    let destination: u32 = unsafe { load(flow, &FLOWI4_DADDR) };
    let Some(watch) = watched4(destination) else { return };
    let net: *const u8 = ctx.arg(0);
    // SAFETY: an argument of the hook.
    let netns = unsafe { netns_inode(net) };
    if is_other_netns(netns) {
        bump(counter::OTHER_NETNS, 1);
        return;
    }
    let thread = task::id() as u32;
    if own::is_query(ctx, thread) {
        bump(counter::OWN_QUERIES, 1);
        return;
    }
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: an argument of the hook.
    let mut sighting = unsafe { sighting4(flow, destination, watch, hook::FIB_RULES, thread) };
    if !is_asked_for(&sighting.flow) {
        return;
    }
    sighting.key.netns = netns;
    sighting.key.flags |= flag::CUSTOM_RULES;
    // The return value follows the arguments. (aya's `ret` uses a helper that came with 5.17.)
    let error: i32 = ctx.arg(4);
    sighting.key.outcome = error;
    if error == 0 {
        let result: *const u8 = ctx.arg(2);
        // SAFETY: an argument of the hook, which the function has filled as it returned 0.
        unsafe {
            sighting.key.prefix_length = load(result, &FIB_RESULT_PREFIXLEN);
            let table: *const u8 = load(result, &FIB_RESULT_TABLE);
            sighting.key.table = load(table, &FIB_TABLE_ID);
            let nexthop: *const u8 = load(result, &FIB_RESULT_NHC);
            if !nexthop.is_null() {
                read_nexthop(nexthop, &mut sighting);
            }
        }
    }
    lookup::record(&sighting, 0, now);
    if flows::are_told() {
        flows::looked_up(ctx.as_ptr(), &sighting, now);
    }
}

/// Device and gateway. The tracepoint's own record of the gateway is stale memory where there is none.
///
/// # Safety
///
/// `nexthop` must be a `struct fib_nh_common *` known to the verifier.
#[inline(always)]
pub unsafe fn read_nexthop(nexthop: *const u8, sighting: &mut Sighting) {
    // SAFETY: the caller's promise.
    unsafe {
        let device: *const u8 = load(nexthop, &NHC_DEV);
        sighting.key.ifindex = load(device, &NET_DEVICE_IFINDEX);
        match load(nexthop, &NHC_GW_FAMILY) {
            AF_INET => {
                sighting.gateway = address4(load(nexthop, &NHC_GW));
                sighting.gateway_family = 4;
            }
            AF_INET6 => {
                sighting.gateway = load_address6(nexthop, &NHC_GW);
                sighting.gateway_family = 6;
            }
            _ => {}
        }
    }
}

/// # Safety
///
/// `net` must be a `struct net *` known to the verifier.
#[inline(always)]
unsafe fn custom_rules(net: *const u8) -> u8 {
    // SAFETY: the caller's promise.
    let custom: u8 = unsafe { load_if_there(net, &NET_IPV4_CUSTOM_RULES) }.unwrap_or(0);
    if custom != 0 { flag::CUSTOM_RULES } else { 0 }
}

/// Is only another namespace watched?
#[inline(always)]
pub fn is_other_netns(netns: u32) -> bool {
    let target = TARGET_NETNS.load();
    target != 0 && netns != target
}
