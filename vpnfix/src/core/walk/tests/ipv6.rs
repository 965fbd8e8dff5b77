use std::slice::from_ref;

use super::*;
use crate::core::fixture::via;
use crate::core::model::Preference;

fn with_routes(routes: Vec<Route>) -> Snapshot {
    host(vec![Rule::lookup(Family::V6, 5, 220)], routes)
}

fn to_prefix(device: u32) -> Route {
    route(220, "fd00::/64", device)
}

fn plain() -> Flow {
    flow("fd00::1")
}

/// Bound with a source: the device is preferred. Without: it alone will do.
fn bound(device: u32, source: Option<&str>) -> Flow {
    Flow { oif: Some(device), from: source.and_then(|source| source.parse().ok()), ..plain() }
}

fn ends(routes: &[Route], flow: &Flow) -> String {
    end_of(&with_routes(routes.to_vec()), flow)
}

const BY_2: &str = "220 fd00::/64 [2]";
const BY_3: &str = "220 fd00::/64 [3]";

#[test]
fn the_device_is_preferred_with_a_source_and_required_without() {
    let routes = [to_prefix(2), to_prefix(3)];
    assert_eq!(ends(&routes, &plain()), BY_2);
    assert_eq!(ends(&routes, &bound(3, None)), BY_3);
    assert_eq!(ends(&routes, &bound(3, Some("fd00::9"))), BY_3);
    assert_eq!(ends(&routes, &bound(4, Some("fd00::9"))), BY_2);
    assert_eq!(ends(&routes, &bound(4, None)), "none");
    assert_eq!(ends(&routes, &Flow { iif: 3, ..plain() }), BY_3);
    let link_local = Flow { to: "fe80::1".parse().expect("an address"), ..bound(4, Some("fe80::9")) };
    assert_eq!(ends(&[route(220, "fe80::/64", 2)], &link_local), "none");
}

#[test]
fn the_preference_counts_more_than_the_device() {
    let prefers = |preference, device| Route { preference, ..to_prefix(device) };
    let routes = [prefers(Preference::Low, 2), prefers(Preference::High, 3), prefers(Preference::Medium, 4)];
    assert_eq!(ends(&routes, &plain()), BY_3);
    assert_eq!(ends(&routes, &bound(2, Some("fd00::9"))), BY_3);
    assert_eq!(ends(&routes, &bound(2, None)), BY_2);
}

#[test]
fn past_the_smallest_metric_all_others_compete_at_once() {
    let metric = |metric, device, preference| Route { metric, preference, ..to_prefix(device) };
    let (medium, high) = (Preference::Medium, Preference::High);
    let routes = [metric(10, 4, medium), metric(20, 2, medium), metric(30, 3, high)];
    assert_eq!(ends(&routes, &plain()), "220 fd00::/64 [4]");
    let down = |route: &Route| {
        let nexthop = Nexthop { dead: true, ..route.nexthops[0].clone() };
        Route { nexthops: vec![nexthop], ..route.clone() }
    };
    assert_eq!(ends(&[down(&routes[0]), routes[1].clone(), routes[2].clone()], &plain()), BY_3);
}

#[test]
fn refusing_routes_count_as_by_loopback() {
    let unreachable = Route { kind: RouteKind::Unreachable, nexthops: Vec::new(), ..to_prefix(0) };
    assert_eq!(ends(&[unreachable.clone(), to_prefix(2)], &plain()), "unreachable fd00::/64");
    assert_eq!(ends(&[unreachable.clone(), to_prefix(2)], &bound(2, Some("fd00::9"))), BY_2);
    assert_eq!(ends(&[unreachable], &bound(2, None)), "none");
    let dropping = Route { kind: RouteKind::Blackhole, nexthop_object: Some(20), ..to_prefix(0) };
    assert_eq!(ends(&[to_prefix(2), dropping], &bound(2, None)), "blackhole fd00::/64");
}

#[test]
fn a_route_for_the_source_comes_first_and_may_hide_the_others() {
    let of_source = |from: &str, device| Route { source: from.parse().ok(), ..to_prefix(device) };
    let from = |source: &str| Flow { from: source.parse().ok(), ..plain() };
    let routes = [to_prefix(2), of_source("fd01::/16", 3), of_source("fd01::/32", 4)];
    assert_eq!(ends(&routes, &from("fd01:1::1")), BY_3);
    assert_eq!(ends(&routes, &from("fd01::1")), "220 fd00::/64 [4]");
    assert_eq!(ends(&routes, &from("fd02::1")), "HiddenBySource");
    let default = |route: Route| Route { destination: everything(Family::V6), ..route };
    let defaults = [default(to_prefix(2)), default(of_source("fd01::/16", 3))];
    assert_eq!(ends(&defaults, &from("fd02::1")), "220 default [2]");
    // Once a prefix has been found, shorter ones are not hidden any more.
    let wide = |route: Route| Route { destination: "fd00::/16".parse().expect("a prefix"), ..route };
    let dead = Route { nexthops: Vec::new(), ..to_prefix(4) };
    assert_eq!(ends(&[dead, wide(to_prefix(2)), wide(of_source("fd01::/16", 3))], &plain()), "220 fd00::/16 [2]");
}

#[test]
fn several_nexthops_are_choices_but_for_a_flow_that_must_leave_by_its_device() {
    let nexthop = |ifindex| Nexthop { ifindex: Some(ifindex), ..Nexthop::default() };
    let list = Route { nexthops: vec![nexthop(2), nexthop(3)], ..to_prefix(0) };
    let group = Route { nexthop_object: Some(10), ..list.clone() };
    assert_eq!(ends(from_ref(&list), &bound(2, None)), BY_2);
    assert_eq!(ends(&[list], &bound(2, Some("fd00::9"))), "220 fd00::/64 [2, 3]");
    assert_eq!(ends(from_ref(&group), &bound(2, None)), "220 fd00::/64 [2, 3]");
    // A group is taken by its first member that is better than what was found, not by its best.
    let flow = bound(3, Some("fd00::9"));
    assert_eq!(ends(&[group.clone(), to_prefix(3)], &flow), BY_3);
    assert_eq!(ends(&[to_prefix(4), group, to_prefix(3)], &flow), "220 fd00::/64 [2, 3]");
}

#[test]
fn suppression_looks_at_the_device_that_a_hash_chooses() {
    let nexthop = |ifindex| Nexthop { ifindex: Some(ifindex), ..Nexthop::default() };
    let list = Route { nexthops: vec![nexthop(2), nexthop(3)], ..to_prefix(0) };
    let mut snapshot = with_routes(vec![list]);
    snapshot.rules[0].suppress_ifgroup = Some(2);
    assert_eq!(end_of(&snapshot, &plain()), "Suppression");
    assert_eq!(end_of(&snapshot, &bound(3, None)), BY_3);
    assert_eq!(end_of(&snapshot, &bound(2, None)), "none");
}

#[test]
fn suppression_by_length_is_in_doubt_where_an_object_serves_routes_of_other_lengths() {
    let object = |destination| via(Route { nexthop_object: Some(1), ..route(220, destination, 2) }, "fd00::2");
    let mut snapshot = with_routes(vec![object("fd00::/64"), object("fd00:1::/64")]);
    snapshot.rules[0].suppress_prefix_length = Some(32);
    assert_eq!(end_of(&snapshot, &plain()), BY_2);
    snapshot.routes.push(object("::/0"));
    assert_eq!(end_of(&snapshot, &plain()), "Suppression");
}
