//! Routes and the nexthop objects that they use.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use proptest::prelude::*;
use proptest::sample::select;
use vpnfix::core::model::Family;

use super::pool::Pool;
use super::words::{always, maybe, optional, words};
use crate::kernel::Kernel;
use crate::scene::Step;

/// Tables that routes stand in.
const ROUTE_TABLES: &[&str] = &["220", "220", "main", "main", "main", "100", "100", "default"];
/// Nexthop objects: single ones, one that drops, groups.
const OBJECTS: [&str; 7] = [
    "nexthop add id 1 via GATEWAY0 dev d0",
    "nexthop add id 2 via GATEWAY1 dev d1",
    "nexthop add id 3 dev d2",
    "nexthop add id 20 blackhole",
    "nexthop add id 10 group 1/2",
    "nexthop add id 11 group 2,3/3",
    "nexthop add id 21 group 20",
];

/// The objects, where a route uses any.
pub(super) fn objects(pool: Pool, routes: &[String]) -> Vec<Step> {
    let is_used = routes.iter().any(|route| route.contains("nhid"));
    let line = |line: &&str| line.replace("GATEWAY0", pool.gateways[0]).replace("GATEWAY1", pool.gateways[1]);
    OBJECTS.iter().filter(|_| is_used).map(line).map(Step::Ip).collect()
}

/// A route and what it would be merged by.
#[derive(Clone, Debug)]
pub(super) struct RouteLine {
    /// Prefix, source, table and metric.
    place: String,
    /// By gateways that it names itself.
    by_gateway: bool,
    line: String,
}

/// IPv6 makes one route of those by gateways of one place, and its lists then leave out what stands between them. Such
/// a policy could not be read back: a second route by a gateway is not added behind another.
pub(super) fn readable(routes: Vec<RouteLine>) -> Vec<String> {
    let mut last_by_gateway = HashMap::new();
    let mut lines = Vec::new();
    for route in routes {
        let hides = match last_by_gateway.entry(route.place) {
            Entry::Vacant(vacant) => {
                vacant.insert((route.by_gateway, false));
                false
            }
            Entry::Occupied(mut seen) => {
                let (has_gateway, is_parted) = *seen.get();
                seen.insert((has_gateway || route.by_gateway, is_parted || (has_gateway && !route.by_gateway)));
                is_parted && route.by_gateway
            }
        };
        lines.extend(Some(route.line).filter(|_| !hides));
    }
    lines
}

/// `append`, so that several of equal prefix and metric can stand beside each other.
pub(super) fn route(pool: Pool, kernel: Kernel) -> impl Strategy<Value = RouteLine> {
    let v6 = pool.family == Family::V6;
    let source = if v6 && kernel.source_routes { 0.08 } else { 0.0 };
    (
        (select(pool.prefixes.to_vec()), select(pool.without_gateways.to_vec())),
        optional(source, select(vec!["fd00::/64", "fd00::/16", "fd00::1/128"])),
        way(pool),
        words(vec![
            always(ROUTE_TABLES, |table| format!("table {table}")),
            maybe(if v6 { 0.0 } else { 0.15 }, &["0x10", "0x08", "0x18", "0x20"], |tos| format!("tos {tos}")),
        ]),
        select(vec!["", "metric 10", "metric 10", "metric 20", "metric 30"]),
    )
        .prop_map(move |((any, without_gateway), source, (kind, way, preference), rest, metric)| {
            // IPv4 ignores a gateway that was delivered here when its route was added, and does not tell.
            let prefix = if matches!(kind, "local " | "broadcast ") { without_gateway } else { any };
            let source = source.map_or(String::new(), |source| format!(" from {source}"));
            // The kernel makes one of IPv6 routes by gateways of one metric, and then tells only the first one's preference.
            let metric = if preference.is_empty() || !way.contains("via") {
                metric.to_string()
            } else {
                format!("metric {}", if preference.contains("high") { 40 } else { 50 })
            };
            RouteLine {
                place: format!("{prefix}{source} {rest} {metric}"),
                by_gateway: way.contains("via"),
                line: format!("route append {kind}{prefix}{source} {rest} {metric} {preference} {way}"),
            }
        })
}

/// Kind, where to, preference.
fn way(pool: Pool) -> BoxedStrategy<(&'static str, String, &'static str)> {
    let v6 = pool.family == Family::V6;
    let preference = move || {
        let some: &[&str] = if v6 { &["", "", "", "pref high", "pref low"] } else { &[""] };
        select(some.to_vec())
    };
    let device = 0..4_usize;
    let single = (device.clone(), prop::bool::weighted(0.5)).prop_map(move |(device, by_gateway)| {
        let gateway = if by_gateway { format!("via {} ", pool.gateways[device]) } else { String::new() };
        format!("{gateway}dev d{device}")
    });
    let foreign =
        device.clone().prop_map(move |device| format!("via {} dev d{device} onlink", pool.gateways[(device + 1) % 4]));
    let several = prop::collection::vec((device, 1..4_u8), 2..4).prop_map(move |hops| {
        let hop = |(device, weight): &(usize, u8)| {
            format!("nexthop via {} dev d{device} weight {weight}", pool.gateways[*device])
        };
        hops.iter().map(hop).collect::<Vec<_>>().join(" ")
    });
    let object = select(vec![1, 2, 3, 10, 11, 20, 21]).prop_map(|id| format!("nhid {id}"));
    let refusing = select(vec!["unreachable ", "prohibit ", "blackhole ", "throw ", "throw "]);
    // What is delivered here by somebody's order (transparent proxies), or goes to all on a link.
    let here: &[&str] = if v6 { &["local "] } else { &["local ", "local ", "broadcast "] };
    let here = (select(here.to_vec()), select(vec!["dev lo", "dev lo", "dev d0", "dev d1"]));
    let scoped = (select(vec!["link", "site", "global"]), 0..4_usize);
    let scoped = scoped.prop_map(|(scope, device)| format!("dev d{device} scope {scope}"));
    prop_oneof![
        8 => (single, preference()).prop_map(|(way, preference)| ("", way, preference)),
        2 => foreign.prop_map(|way| ("", way, "")),
        3 => several.prop_map(|way| ("", way, "")),
        2 => (object, preference()).prop_map(|(way, preference)| ("", way, preference)),
        3 => (refusing, preference()).prop_map(|(kind, preference)| (kind, String::new(), preference)),
        1 => here.prop_map(|(kind, way)| (kind, way.to_string(), "")),
        if v6 { 0 } else { 1 } => scoped.prop_map(|way| ("", way, "")),
    ]
    .boxed()
}
