//! Flows.

use proptest::prelude::*;
use proptest::sample::select;
use vpnfix::core::model::Family;

use super::pool::Pool;
use super::words::optional;
use crate::ask::Ask;
use crate::kernel::Kernel;

const PORTS: &[u16] = &[53, 179, 0x1234, 0x1200, 40000];

pub(super) fn ask(pool: Pool, kernel: Kernel) -> impl Strategy<Value = Ask> {
    let v6 = pool.family == Family::V6;
    let own = pool.own.to_vec();
    let anyone = [pool.own, pool.foreign].concat();
    let input: &[&str] = if kernel.vrf { &["d0", "d1", "d2", "d3", "v0"] } else { &["d0", "d1", "d2", "d3"] };
    let output: &[&str] =
        if kernel.vrf { &["d0", "d1", "d2", "d3", "v0", "d4"] } else { &["d0", "d1", "d2", "d3", "d4"] };
    // IPv4 sends only from an address of its own.
    let source = optional(0.3, select(if v6 { anyone.clone() } else { own }));
    let way = prop_oneof![
        5 => source.clone().prop_map(|from| (from, None, None)),
        3 => (select(anyone), select(input.to_vec())).prop_map(|(from, iif)| (Some(from), Some(iif), None)),
        2 => (source, select(output.to_vec())).prop_map(|(from, oif)| (from, None, Some(oif))),
    ];
    let selectors = (
        select(vec![0, 0, 0, 1, 2, 0x11, 0x12]),
        optional(0.2, select(vec![0, 1000])),
        optional(0.4, select(vec![6_u8, 17, if v6 { 58 } else { 1 }])),
        optional(0.2, select(PORTS.to_vec())),
        optional(0.3, select(PORTS.to_vec())),
        select(if v6 {
            vec![0, 0, 0, 0x10, 0x08, 0xb8, 0xa0]
        } else {
            vec![0, 0, 0, 0x10, 0x08, 0x30, 0xb8, 0xa0, 0x18]
        }),
        select(if v6 && kernel.flow_label { vec![0, 0, 0x12345, 0x123ff] } else { vec![0] }),
    );
    (select(pool.to.to_vec()), way, selectors).prop_map(
        |(to, (from, iif, oif), (mark, uid, protocol, sport, dport, tos, flow_label))| Ask {
            from: from.map(|from| from.parse().unwrap()),
            iif: iif.map(str::to_string),
            oif: oif.map(str::to_string),
            mark,
            uid,
            protocol,
            sport,
            dport,
            tos,
            flow_label,
            ..Ask::to(to.parse().unwrap())
        },
    )
}
