//! Large tables: only what counts is fetched.

use std::fmt::Write as _;

use vpnfix::core::model::{Family, PartialTable, Snapshot, TABLE_MAIN};
use vpnfix::system::namespace;

use crate::routes::{our_route, their_route};
use crate::scene::{Namespace, flag, is_able};

/// More routes than one datagram of the kernel holds.
const MANY: u32 = 3000;

fn filled(namespace: &Namespace, devices: &[u32], limit: usize) -> Snapshot {
    let netns = namespace::identify(&namespace.target()).unwrap();
    namespace.netlink(async |netlink| {
        let mut snapshot = netlink.outline(netns).await.unwrap();
        netlink.fill_through(&mut snapshot, devices, limit).await.unwrap();
        snapshot
    })
}

fn crowded() -> Namespace {
    let namespace = Namespace::gateway();
    let mut lines = String::new();
    for number in 0..MANY {
        let (high, low) = (number / 256, number % 256);
        writeln!(lines, "route add 10.{}.{low}.0/24 via 192.168.12.1 dev ens5", 100 + high).unwrap();
        writeln!(lines, "route add 2001:db8:{:x}::/48 via 2001:db8:12::1 dev ens5", 0x1000 + number).unwrap();
    }
    lines.push_str("route add 10.5.0.0/16 nexthop via 192.168.12.1 dev ens5 nexthop via 169.254.55.53 dev Tunnel1\n");
    lines.push_str("route add 2001:db8:77::/48 via fd00:55::1 dev Tunnel1\n");
    namespace.batch(&lines);
    namespace
}

/// What `ip` shows of main by a device, and the default route of IPv4.
fn expected(namespace: &Namespace, family: Family, device: &str) -> Vec<String> {
    let mut routes: Vec<String> = namespace
        .json(&format!("{} -d -N route show table main", flag(family)))
        .iter()
        .filter(|route| {
            let hops = route["nexthops"].as_array().map_or(&[][..], Vec::as_slice);
            let by_device = route["dev"] == device || hops.iter().any(|hop| hop["dev"] == device);
            by_device || (family == Family::V4 && route["dst"] == "default")
        })
        .map(|route| their_route(route, u64::from(TABLE_MAIN)))
        .collect();
    routes.sort();
    routes
}

#[test]
fn of_a_large_table_only_the_routes_by_some_devices_are_fetched() {
    if !is_able("large tables") {
        return;
    }
    let namespace = crowded();
    let index = namespace.snapshot().link_named("Tunnel1").unwrap().index;
    // So many devices that one dump is sifted, and so few that the kernel filters.
    let crowd: Vec<u32> = [index].into_iter().chain(9000..9010).collect();
    for devices in [&[index][..], &crowd] {
        let snapshot = filled(&namespace, devices, 500);
        for family in Family::ALL {
            assert!(snapshot.partial.contains(&PartialTable { family, table: TABLE_MAIN }));
            let mut ours: Vec<String> =
                snapshot.table(family, TABLE_MAIN).map(|route| our_route(&snapshot, route)).collect();
            ours.sort();
            assert_eq!(ours, expected(&namespace, family, "Tunnel1"));
        }
    }
}

#[test]
fn a_table_within_the_limit_is_whole() {
    if !is_able("large tables") {
        return;
    }
    let namespace = crowded();
    let whole = namespace.snapshot();
    let index = whole.link_named("Tunnel1").unwrap().index;
    let filled = filled(&namespace, &[index], MANY as usize * 2);
    assert_eq!(filled.partial, []);
    assert_eq!(filled.routes, whole.routes);
}
