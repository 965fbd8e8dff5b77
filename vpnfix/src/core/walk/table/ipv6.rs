//! IPv6: the best route of the longest prefix (`fib6_table_lookup`, `rt6_select`, `find_rr_leaf` and `fib6_select_path`,
//! `net/ipv6/route.c`).

use std::cmp::Reverse;
use std::net::IpAddr;

use super::{Found, is_alive, without_nexthop};
use crate::core::model::{Nexthop, Preference, Route, RouteKind};
use crate::core::walk::fib::{Bound, Fib};
use crate::core::walk::flow::LOOPBACK_INDEX;
use crate::core::walk::{Doubt, Flow};

/// How the flow's device counts.
#[derive(Clone, Copy)]
struct Device {
    /// The device: the one that the flow is bound to, or the one that it came in by.
    index: Option<u32>,
    /// Routes by others will not do (`RT6_LOOKUP_F_IFACE`).
    alone: bool,
}

/// Asks the prefixes, the longest first.
pub(super) fn lookup<'a>(fib: &Fib<'a>, prefixes: &[Vec<&'a Route>], flow: &Flow, bound: Bound) -> Found<'a> {
    let device = if flow.iif == LOOPBACK_INDEX {
        Device { index: bound.device, alone: flow.from.is_none() || needs_device(flow.to) }
    } else {
        Device { index: bound.input, alone: needs_device(flow.to) }
    };
    let mut is_descending = true;
    for routes in prefixes {
        let found = select(fib, routes, flow, device);
        is_descending &= hides(routes, flow);
        match found {
            Some(_) if is_descending => return Found::Unknown(Doubt::HiddenBySource),
            Some(found) => return found,
            None => {}
        }
    }
    Found::Nothing
}

/// Until the kernel has a prefix to begin with, it passes over those that have routes for other sources only, with all
/// that else they have (`fib6_node_lookup_1`, `net/ipv6/ip6_fib.c`). The root of the tree is never passed over.
fn hides(routes: &[&Route], flow: &Flow) -> bool {
    let is_root = routes.iter().any(|route| route.destination.prefix_len() == 0);
    let mut for_sources = routes.iter().filter(|route| route.source.is_some()).peekable();
    !is_root && for_sources.peek().is_some() && for_sources.all(|route| !fits_source(route, flow))
}

fn fits_source(route: &Route, flow: &Flow) -> bool {
    let source = flow.from.unwrap_or(IpAddr::from([0_u8; 16]));
    route.source.is_none_or(|from| from.contains(&source))
}

/// Chooses among the routes of one destination prefix: those for the longest source prefix first.
fn select<'a>(fib: &Fib<'a>, routes: &[&'a Route], flow: &Flow, device: Device) -> Option<Found<'a>> {
    let mut fitting: Vec<&Route> = routes.iter().copied().filter(|route| fits_source(route, flow)).collect();
    fitting.sort_by_key(|route| (Reverse(source_length(route)), route.metric));
    fitting.chunk_by(|a, b| source_length(a) == source_length(b)).find_map(|group| of_source(fib, group, device))
}

fn source_length(route: &Route) -> u8 {
    route.source.map_or(0, |source| source.prefix_len())
}

/// A destination that lies on every link (`rt6_need_strict`).
fn needs_device(to: IpAddr) -> bool {
    matches!(to, IpAddr::V6(v6) if v6.is_multicast() || v6.is_unicast_link_local() || v6.is_loopback())
}

/// The routes of the smallest metric come first. If none of them can be used all others compete, whatever their metric.
fn of_source<'a>(fib: &Fib<'a>, group: &[&'a Route], device: Device) -> Option<Found<'a>> {
    let metric = group.first()?.metric;
    let (first, others) = group.split_at(group.partition_point(|route| route.metric == metric));
    best(fib, first, device).or_else(|| best(fib, others, device))
}

/// The route of the highest score, the first of equals.
fn best<'a>(fib: &Fib<'a>, group: &[&'a Route], device: Device) -> Option<Found<'a>> {
    let mut best: Option<(u8, Found<'a>)> = None;
    for route in group {
        // A nexthop object that drops is taken whatever came before.
        if route.kind == RouteKind::Blackhole && route.nexthop_object.is_some() {
            return Some(Found::Refused(route));
        }
        let mut better = scores(fib, route, device);
        better.retain(|score| best.as_ref().is_none_or(|(other, _)| score > other));
        // A nexthop object is taken by its first member that is good enough, a list by its best.
        let score = if route.nexthop_object.is_some() { better.first() } else { better.iter().max() };
        if let Some(score) = score {
            let by_nexthops = || Found::Route { route, nexthops: choices(fib, route, device) };
            best = Some((*score, without_nexthop(route).unwrap_or_else(by_nexthops)));
        }
    }
    best.map(|(_, found)| found)
}

/// The scores of a route's nexthops that will do. A refusing route counts as one by the loopback device
/// (`ip6_route_info_create`).
fn scores(fib: &Fib<'_>, route: &Route, device: Device) -> Vec<u8> {
    if without_nexthop(route).is_some() {
        return score(route, LOOPBACK_INDEX, device).into_iter().collect();
    }
    let of = |nexthop: &Nexthop| score(route, nexthop.ifindex?, device).filter(|_| is_alive(fib, route, nexthop));
    route.nexthops.iter().filter_map(of).collect()
}

/// `rt6_score_route`: the preference counts more than the device. None where only the device would do.
fn score(route: &Route, index: u32, device: Device) -> Option<u8> {
    let fits = device.index.is_none_or(|device| device == index);
    let preference = match route.preference {
        Preference::Low => 1,
        Preference::Medium => 2,
        Preference::High => 3,
    };
    (fits || !device.alone).then_some(preference << 2 | u8::from(fits) << 1)
}

/// Among several nexthops a hash chooses. It passes over those of a list that will not do, but not over those of an object.
fn choices<'a>(fib: &Fib<'a>, route: &'a Route, device: Device) -> Vec<&'a Nexthop> {
    let will_do = |nexthop: &Nexthop| nexthop.ifindex.and_then(|index| score(route, index, device)).is_some();
    let alive = route.nexthops.iter().filter(|nexthop| is_alive(fib, route, nexthop));
    alive.filter(|nexthop| route.nexthop_object.is_some() || will_do(nexthop)).collect()
}
