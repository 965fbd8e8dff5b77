//! The destinations to walk: one address of each class.
//!
//! Every prefix of a rule or a route begins a stretch of addresses and ends one. Between two such boundaries all addresses
//! lie in the same prefixes, so that rules and tables treat them alike: the first of each stretch stands for all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::scope::Scope;
use crate::core::model::{Family, Route, RouteKind, TABLE_MAIN};
use crate::core::walk::Fib;

/// IPv6 destinations that lie on every link, for which the walk takes no route by another device than the bound one
/// (`rt6_need_strict`, `net/ipv6/route.c`): multicast, link-local, loopback.
const ON_EVERY_LINK: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::LOCALHOST, 128),
];

/// The destinations to walk, and what of the routes to them tells other parts of a flow apart.
pub(super) struct Destinations {
    /// One address of each class.
    pub(super) addresses: Vec<IpAddr>,
    /// Devices by which the routes lead.
    pub(super) devices: BTreeSet<u32>,
    /// Source prefixes of the routes.
    pub(super) sources: BTreeSet<IpNet>,
    /// A route is for one type of service.
    pub(super) by_tos: bool,
    /// No class is missing.
    pub(super) whole: bool,
}

impl Destinations {
    /// Looks at `limit` routes at the most.
    pub(super) fn new(fib: &Fib<'_>, scope: &Scope<'_>, limit: usize) -> Self {
        let mut found = Self {
            addresses: Vec::new(),
            devices: BTreeSet::new(),
            sources: BTreeSet::new(),
            by_tos: false,
            whole: true,
        };
        let mut starts: BTreeSet<IpAddr> = scope.ranges.iter().map(IpNet::network).collect();
        let mut mark = |prefix: IpNet| starts.extend(boundaries(prefix).filter(|address| scope.holds(*address)));
        for prefix in scope.rules.iter().filter_map(|rule| rule.to) {
            mark(prefix);
        }
        if scope.family == Family::V6 {
            ON_EVERY_LINK
                .iter()
                .filter_map(|(base, length)| IpNet::new((*base).into(), *length).ok())
                .for_each(&mut mark);
        }
        let mut looked_at = 0;
        for table in &scope.tables {
            for range in &scope.ranges {
                let wider = fib.covering(*table, *range).into_iter().flatten();
                for route in wider.chain(fib.within(*table, *range)) {
                    looked_at += 1;
                    if looked_at > limit {
                        found.whole = false;
                        break;
                    }
                    found.note(route);
                    mark(route.destination);
                }
            }
        }
        found.addresses = starts.into_iter().filter(|address| scope.jumps || main_may_decide(fib, *address)).collect();
        found
    }

    fn note(&mut self, route: &Route) {
        self.devices.extend(route.nexthops.iter().filter_map(|nexthop| nexthop.ifindex));
        self.sources.extend(route.source);
        self.by_tos |= route.tos != 0;
    }
}

/// The new rule passes on what main has nothing but an ordinary default route for. One that refuses is not suppressed.
fn main_may_decide(fib: &Fib<'_>, address: IpAddr) -> bool {
    let may_decide = |route: &&Route| route.destination.prefix_len() > 0 || route.kind != RouteKind::Unicast;
    fib.covering(TABLE_MAIN, IpNet::from(address)).iter().flatten().any(may_decide)
}

/// The first address of a prefix, and the one after its last.
pub(super) fn boundaries(prefix: IpNet) -> impl Iterator<Item = IpAddr> {
    [Some(prefix.network()), after(prefix.broadcast())].into_iter().flatten()
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}
