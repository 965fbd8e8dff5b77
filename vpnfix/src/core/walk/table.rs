//! What one table says to a flow: the longest prefix with a usable nexthop (`fib_table_lookup`, `net/ipv4/fib_trie.c`;
//! `fib6_table_lookup` and `rt6_select`, `net/ipv6/route.c`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::fib::{Bound, Fib};
use super::flow::LOOPBACK_INDEX;
use super::selector::tos_fits;
use super::{Doubt, Flow};
use crate::core::model::{Family, Nexthop, Route, RouteKind};

/// What a table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This route, by one of its usable nexthops (several share the load).
    Route {
        /// The route.
        route: &'a Route,
        /// Its nexthops that may be taken.
        nexthops: Vec<&'a Nexthop>,
    },
    /// This route refuses (unreachable, prohibit, blackhole): the walk ends.
    Refused(&'a Route),
    /// This `throw` route sends the walk on to the next rule.
    Thrown(&'a Route),
    /// No route.
    Nothing,
    /// Not to be told.
    Unknown(Doubt),
}

/// Looks a flow up in a table.
pub(super) fn lookup<'a>(fib: &Fib<'a>, table: u32, flow: &Flow, bound: Bound) -> Found<'a> {
    if !fib.is_whole(flow.family(), table) {
        return Found::Unknown(Doubt::PartialTable(table));
    }
    let leaves = fib.covering(table, IpNet::from(flow.to));
    let leaf = match flow.family() {
        Family::V4 => leaf_v4,
        Family::V6 => leaf_v6,
    };
    leaves.iter().find_map(|routes| leaf(fib, routes, flow, bound)).unwrap_or(Found::Nothing)
}

/// The routes of one prefix: a higher type of service before a lower, then the smaller metric, then the order in which
/// they were added. Nothing if none can be used; a shorter prefix then has its turn.
fn leaf_v4<'a>(fib: &Fib<'a>, routes: &[&'a Route], flow: &Flow, bound: Bound) -> Option<Found<'a>> {
    let mut fitting: Vec<&Route> =
        routes.iter().copied().filter(|route| route.tos == 0 || tos_fits(flow, route.tos)).collect();
    fitting.sort_by_key(|route| (std::cmp::Reverse(route.tos), route.metric));
    for route in &fitting {
        if let Some(end) = without_nexthop(route) {
            return Some(end);
        }
        let nexthops: Vec<&Nexthop> = usable(fib, route, bound.device).collect();
        if nexthops.is_empty() {
            // `fib_table_lookup` leaves the leaf where a nexthop object has nothing to offer.
            if route.nexthop_object.is_some() && !route.nexthops.iter().all(|nexthop| nexthop.dead) {
                return None;
            }
            continue;
        }
        if has_equals(route, &fitting) {
            return Some(Found::Unknown(Doubt::EqualDefaults));
        }
        return Some(Found::Route { route, nexthops });
    }
    None
}

/// Among default routes of equal metric the kernel chooses by the state of the gateways' neighbour entries
/// (`fib_select_default`, `net/ipv4/fib_semantics.c`).
fn has_equals(route: &Route, fitting: &[&Route]) -> bool {
    let equal = |other: &&&Route| other.metric == route.metric && other.kind == RouteKind::Unicast;
    route.destination.prefix_len() == 0
        && route.kind == RouteKind::Unicast
        && route.nexthops.len() == 1
        && fitting.iter().filter(equal).count() > 1
}

/// IPv6: a source-specific route before one for any source, then the smallest metric that has a usable route, and in it
/// the best score; among equals the first.
fn leaf_v6<'a>(fib: &Fib<'a>, routes: &[&'a Route], flow: &Flow, bound: Bound) -> Option<Found<'a>> {
    let source = flow.from.unwrap_or(IpAddr::from([0_u8; 16]));
    let mut fitting: Vec<&Route> =
        routes.iter().copied().filter(|route| route.source.is_none_or(|from| from.contains(&source))).collect();
    fitting.sort_by_key(|route| (std::cmp::Reverse(source_length(route)), route.metric));
    let same = |a: &&Route, b: &&Route| (source_length(a), a.metric) == (source_length(b), b.metric);
    fitting.chunk_by(same).find_map(|group| best_v6(fib, group, flow, bound))
}

fn source_length(route: &Route) -> u8 {
    route.source.map_or(0, |source| source.prefix_len())
}

fn best_v6<'a>(fib: &Fib<'a>, group: &[&'a Route], flow: &Flow, bound: Bound) -> Option<Found<'a>> {
    let strict = bound.device.is_some() && (flow.from.is_none() || needs_device(flow.to));
    let by_device = |device: u32| bound.device.is_none_or(|bound| bound == device);
    let mut best: Option<((bool, _), Found<'a>)> = None;
    for route in group {
        // A refusing route counts as one by the loopback device (`ip6_route_info_create`).
        let (fits, found) = match without_nexthop(route) {
            Some(end) => (by_device(LOOPBACK_INDEX), end),
            None => {
                let exact: Vec<&Nexthop> = usable(fib, route, bound.device).collect();
                let fits = !exact.is_empty();
                let nexthops = if fits { exact } else { usable(fib, route, None).collect() };
                if nexthops.is_empty() {
                    continue;
                }
                (fits, Found::Route { route, nexthops })
            }
        };
        let score = (fits, route.preference);
        if (fits || !strict) && best.as_ref().is_none_or(|(other, _)| score > *other) {
            best = Some((score, found));
        }
    }
    best.map(|(_, found)| found)
}

/// A destination that lies on every link: only a route by the bound device will do (`rt6_need_strict`).
fn needs_device(to: IpAddr) -> bool {
    matches!(to, IpAddr::V6(v6) if v6.is_multicast() || v6.is_unicast_link_local() || v6.is_loopback())
}

/// What a route says that goes nowhere.
fn without_nexthop(route: &Route) -> Option<Found<'_>> {
    match route.kind {
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => Some(Found::Refused(route)),
        RouteKind::Throw => Some(Found::Thrown(route)),
        RouteKind::Other(number) => Some(Found::Unknown(Doubt::RouteKind(number))),
        _ => None,
    }
}

/// The nexthops that a flow bound to `device` may take: not dead, not by a device without carrier that is set to be passed
/// over then (`fib_lookup_good_nhc`).
fn usable<'a>(fib: &Fib<'a>, route: &'a Route, device: Option<u32>) -> impl Iterator<Item = &'a Nexthop> {
    let passed_over = move |nexthop: &Nexthop| {
        let settings = nexthop.ifindex.and_then(|index| fib.link(index)).map(|link| link.settings);
        let ignores = settings.is_some_and(|settings| match route.family {
            Family::V4 => settings.ignores_linkdown,
            Family::V6 => settings.ignores_linkdown_v6,
        });
        nexthop.linkdown && ignores
    };
    let passed: Vec<&'a Nexthop> = route
        .nexthops
        .iter()
        .filter(|nexthop| !nexthop.dead && !passed_over(nexthop))
        .filter(|nexthop| device.is_none_or(|device| nexthop.ifindex == Some(device)))
        .collect();
    passed.into_iter()
}
