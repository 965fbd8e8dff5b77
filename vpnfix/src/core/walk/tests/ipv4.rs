use super::*;
use crate::core::fixture::via;

/// Only table 220 is looked up.
fn with_routes(routes: Vec<Route>) -> Snapshot {
    host(vec![Rule::lookup(Family::V4, 5, 220)], routes)
}

fn to_prefix(device: u32) -> Route {
    route(220, "10.0.0.0/8", device)
}

fn bound(device: u32) -> Flow {
    Flow { oif: Some(device), ..flow("10.0.0.1") }
}

#[test]
fn the_longest_prefix_then_the_tos_then_the_metric_decides() {
    let metric = |metric, device| Route { metric, ..to_prefix(device) };
    let tos = |device| Route { tos: 0x10, metric: 50, ..to_prefix(device) };
    let snapshot = with_routes(vec![route(220, "0.0.0.0/0", 1), tos(4), metric(20, 3), metric(10, 2)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [2]");
    assert_eq!(end_of(&snapshot, &Flow { tos: 0x10, ..flow("10.0.0.1") }), "220 10.0.0.0/8 [4]");
    assert_eq!(end_of(&snapshot, &flow("11.0.0.1")), "220 default [1]");
}

#[test]
fn a_bound_flow_takes_routes_by_its_device_alone_and_else_is_assumed_on_link() {
    let snapshot = with_routes(vec![to_prefix(2), route(220, "0.0.0.0/0", 3)]);
    assert_eq!(end_of(&snapshot, &bound(3)), "220 default [3]");
    assert_eq!(end_of(&snapshot, &bound(4)), "on link 4");
    let mut refusing = with_routes(vec![to_prefix(2)]);
    refusing.rules = vec![Rule { action: RuleAction::Prohibit, ..Rule::lookup(Family::V4, 1, 0) }];
    assert_eq!(end_of(&refusing, &bound(4)), "on link 4");
    assert_eq!(end_of(&refusing, &flow("10.0.0.1")), "rule 1 Prohibit");
}

#[test]
fn a_flow_bound_to_a_device_that_is_down_goes_nowhere() {
    let mut snapshot = with_routes(vec![to_prefix(2)]);
    snapshot.links[1].up = false;
    assert_eq!(end_of(&snapshot, &bound(2)), "none");
}

#[test]
fn dead_nexthops_are_passed_over_and_those_without_carrier_where_that_is_set() {
    let nexthop = |ifindex, dead, linkdown| Nexthop { ifindex: Some(ifindex), dead, linkdown, ..Nexthop::default() };
    let several = vec![nexthop(2, true, true), nexthop(3, false, true), nexthop(4, false, false)];
    let mut snapshot = with_routes(vec![Route { nexthops: several, ..to_prefix(2) }]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [3, 4]");
    snapshot.links[2].settings = DeviceSettings { ignores_linkdown: true, ..DeviceSettings::default() };
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [4]");
}

#[test]
fn a_nexthop_object_that_offers_nothing_ends_the_search_in_its_leaf() {
    let object = Route { nexthop_object: Some(1), ..route(220, "10.0.0.0/24", 2) };
    let same_address = to_prefix(3);
    let other_address = route(220, "0.0.0.0/0", 4);
    let snapshot = with_routes(vec![object, same_address, other_address]);
    assert_eq!(end_of(&snapshot, &bound(2)), "220 10.0.0.0/24 [2]");
    assert_eq!(end_of(&snapshot, &bound(3)), "on link 3");
    assert_eq!(end_of(&snapshot, &bound(4)), "220 default [4]");
}

#[test]
fn equal_defaults_by_gateways_cannot_be_told_apart_but_for_bound_and_incoming_flows() {
    let default = |device, gateway| via(route(220, "0.0.0.0/0", device), gateway);
    let two = with_routes(vec![default(2, "192.0.2.1"), default(3, "192.0.2.2")]);
    assert_eq!(end_of(&two, &flow("10.0.0.1")), "EqualDefaults");
    assert_eq!(end_of(&two, &bound(3)), "220 default [3]");
    assert_eq!(end_of(&two, &Flow { iif: 4, ..flow("10.0.0.1") }), "220 default [2]");
    let worse = Route { metric: 10, ..default(3, "192.0.2.2") };
    assert_eq!(end_of(&with_routes(vec![default(2, "192.0.2.1"), worse]), &flow("10.0.0.1")), "220 default [2]");
    let on_link = with_routes(vec![route(220, "0.0.0.0/0", 2), default(3, "192.0.2.2")]);
    assert_eq!(end_of(&on_link, &flow("10.0.0.1")), "220 default [2]");
    // The default for a type of service competes with the first one without.
    let served = Route { tos: 0x10, ..default(2, "192.0.2.1") };
    let mixed = with_routes(vec![served, Route { metric: 10, ..default(3, "192.0.2.2") }]);
    assert_eq!(end_of(&mixed, &Flow { tos: 0x10, ..flow("10.0.0.1") }), "EqualDefaults");
    assert_eq!(end_of(&mixed, &flow("10.0.0.1")), "220 default [3]");
}
