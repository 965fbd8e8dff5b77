//! IPv4: the first fitting route of the longest prefix (`fib_table_lookup`, `net/ipv4/fib_trie.c`; `fib_select_path`,
//! `net/ipv4/fib_semantics.c`).

use std::cmp::Reverse;

use super::{Found, is_alive, without_nexthop};
use crate::core::model::{Nexthop, Route, RouteKind};
use crate::core::walk::fib::{Bound, Fib};
use crate::core::walk::flow::LOOPBACK_INDEX;
use crate::core::walk::selector::tos_fits;
use crate::core::walk::{Doubt, Flow};

/// What the routes of one prefix say.
enum Leaf<'a> {
    /// This.
    Found(Found<'a>),
    /// Nothing; a shorter prefix has its turn.
    Nothing,
    /// Nothing, and nothing is said either by the shorter prefixes of the same network address.
    Left,
}

/// Asks the prefixes, the longest first.
pub(super) fn lookup<'a>(fib: &Fib<'a>, prefixes: &[Vec<&'a Route>], flow: &Flow, bound: Bound) -> Found<'a> {
    let mut left = None;
    for routes in prefixes {
        // 10.0.0.0/24 and 10.0.0.0/8 stand in the same leaf of the kernel's trie.
        let network = routes.first().map(|route| route.destination.network());
        if left.is_some() && left == network {
            continue;
        }
        match leaf(fib, routes, flow, bound) {
            Leaf::Found(found) => return found,
            Leaf::Nothing => {}
            Leaf::Left => left = network,
        }
    }
    Found::Nothing
}

/// The routes of one prefix: a higher type of service before a lower, then the smaller metric, then the order in which
/// they were added.
fn leaf<'a>(fib: &Fib<'a>, routes: &[&'a Route], flow: &Flow, bound: Bound) -> Leaf<'a> {
    let mut fitting: Vec<&Route> =
        routes.iter().copied().filter(|route| route.tos == 0 || tos_fits(flow, route.tos)).collect();
    fitting.sort_by_key(|route| (Reverse(route.tos), route.metric));
    for route in &fitting {
        if let Some(found) = without_nexthop(route) {
            return Leaf::Found(found);
        }
        let will_do = |nexthop: &&Nexthop| {
            is_alive(fib, route, nexthop) && bound.device.is_none_or(|device| nexthop.ifindex == Some(device))
        };
        let nexthops: Vec<&Nexthop> = route.nexthops.iter().filter(will_do).collect();
        if !nexthops.is_empty() {
            let is_free = flow.iif == LOOPBACK_INDEX && bound.device.is_none();
            let found = if is_free && has_rivals(route, &fitting) {
                Found::Unknown(Doubt::EqualDefaults)
            } else {
                Found::Route { route, nexthops }
            };
            return Leaf::Found(found);
        }
        // Where a nexthop object has nothing to offer, `fib_table_lookup` does not try the next route of the leaf.
        if route.nexthop_object.is_some() {
            return Leaf::Left;
        }
    }
    Leaf::Nothing
}

/// Among default routes by gateways the kernel chooses for the host's own packets by the state of the gateways' neighbour
/// entries (`fib_select_default`). Its loop takes in more than those of equal metric: after one with a type of service
/// also the first without.
fn has_rivals(chosen: &Route, fitting: &[&Route]) -> bool {
    if chosen.destination.prefix_len() != 0 || chosen.kind != RouteKind::Unicast || chosen.nexthops.len() > 1 {
        return false;
    }
    let (mut last_metric, mut last_tos, mut rivals) = (chosen.metric, 0, 0);
    for route in fitting {
        if route.metric > last_metric && route.tos == last_tos {
            if last_tos == 0 {
                break;
            }
            continue;
        }
        (last_metric, last_tos) = (route.metric, route.tos);
        let has_gateway = route.nexthops.first().is_some_and(|nexthop| nexthop.gateway.is_some());
        if route.scope != chosen.scope || route.kind != RouteKind::Unicast || !has_gateway {
            continue;
        }
        // Routes that differ in the type of service alone share what the kernel compares here (`struct fib_info`).
        let shared = Route { tos: chosen.tos, ..(*route).clone() };
        if rivals == 0 && shared != *chosen {
            break;
        }
        rivals += 1;
    }
    rivals > 1
}
