//! Rules.

use proptest::prelude::*;
use proptest::sample::select;
use vpnfix::core::model::Family;

use super::pool::Pool;
use super::words::{always, maybe, optional, words};
use crate::kernel::Kernel;
use crate::masked::Masked;

const PRIORITIES: &[u32] = &[1, 5, 5, 10, 50, 100, 100, 220, 220, 1000, 20000, 32766, 32767];
/// `goto` targets: some stand, some do not.
const TARGETS: &[u32] = &[100, 220, 220, 300, 32766, 32767, 40000];
/// Tables that rules look up. 7000 never has a route.
const TABLES: &[&str] =
    &["220", "220", "220", "220", "main", "main", "main", "100", "100", "100", "local", "default", "7000"];
pub(super) fn rule(pool: Pool, kernel: Kernel) -> impl Strategy<Value = String> {
    let plain = |word: &'static str| move |value: &'static str| format!("{word} {value}");
    let oif: &[&str] = if kernel.vrf { &["d0", "d1", "d3", "v0", "gone"] } else { &["d0", "d1", "d3", "gone"] };
    let iif: &[&str] =
        if kernel.vrf { &["lo", "lo", "d0", "d3", "v0", "gone"] } else { &["lo", "lo", "d0", "d3", "gone"] };
    words(vec![
        always(PRIORITIES, |priority| format!("rule add pref {priority}")),
        maybe(0.12, &["not"], str::to_string),
        maybe(0.2, pool.from, plain("from")),
        maybe(0.3, pool.prefixes, plain("to")),
        maybe(0.08, iif, plain("iif")),
        maybe(0.08, oif, plain("oif")),
        maybe(0.12, &["0x1", "0x1/0xf", "0x10/0xf0", "0x0/0x1", "0x2"], plain("fwmark")),
        maybe(0.08, pool.tos, |tos| format!("tos {tos:#x}")),
        maybe(0.08, &["0-0", "0-999", "1000-1000", "500-4294967294"], plain("uidrange")),
        maybe(0.08, &["tcp", "udp", "icmp"], plain("ipproto")),
        maybe(0.05, &["53", "179", "1-1023", "4660"], plain("sport")),
        maybe(0.05, &["53", "179", "1024-65534", "4608-4863"], plain("dport")),
        maybe(0.02, &["5"], plain("tun_id")),
        maybe(0.15, &["77", "4", "118"], plain("protocol")),
        action().prop_map(Some).boxed(),
    ])
}

fn action() -> impl Strategy<Value = String> {
    let lookup = || select(TABLES.to_vec()).prop_map(|table| format!("lookup {table}"));
    let suppress = (lookup(), select(vec![0, 0, 8, 16, 24, 32, 64]), prop::bool::weighted(0.2));
    let group = (lookup(), select(vec![0, 1, 2]));
    prop_oneof![
        10 => lookup(),
        3 => suppress.prop_map(|(lookup, length, group)| {
            let group = if group { " suppress_ifgroup 1" } else { "" };
            format!("{lookup} suppress_prefixlength {length}{group}")
        }),
        1 => group.prop_map(|(lookup, group)| format!("{lookup} suppress_ifgroup {group}")),
        2 => select(TARGETS.to_vec()).prop_map(|target| format!("goto {target}")),
        3 => select(vec!["nop", "unreachable", "prohibit", "blackhole"]).prop_map(str::to_string),
    ]
}

/// A rule with selectors that this `ip` cannot say, as far as the kernel knows them.
pub(super) fn masked(pool: Pool, kernel: Kernel) -> impl Strategy<Value = Masked> {
    let pairs = |is_known: bool, values: &'static [(u32, u32)]| {
        optional(if is_known { 0.5 } else { 0.0 }, select(values.to_vec()))
    };
    let dscps: &[(u32, u32)] =
        if kernel.dscp_mask { &[(4, 0x3f), (46, 0x3f), (40, 0x38), (4, 0x07)] } else { &[(4, 0x3f), (46, 0x3f)] };
    let labels: &[(u32, u32)] = &[(0x12345, 0xfffff), (0x12300, 0xfff00)];
    let ports: &[(u32, u32)] = &[(0x1200, 0xff00), (0x30, 0xf0), (1, 1)];
    let v6 = pool.family == Family::V6;
    (
        select(PRIORITIES.to_vec()),
        select(vec![220, 254, 100]),
        prop::bool::weighted(0.2),
        pairs(kernel.dscp, dscps),
        pairs(v6 && kernel.flow_label, labels),
        optional(if kernel.port_mask { 0.3 } else { 0.0 }, select(ports.to_vec())),
        optional(if kernel.port_mask { 0.3 } else { 0.0 }, select(ports.to_vec())),
    )
        .prop_map(|(priority, table, invert, dscp, flow_label, sport, dport)| Masked {
            priority,
            table,
            invert,
            dscp,
            flow_label,
            sport,
            dport,
        })
}
