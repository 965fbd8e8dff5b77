//! The walk by hand-made policies. What the kernel itself makes of such is tested in `tests/engine`.

mod actions;
mod ipv4;
mod ipv6;
mod selectors;
mod vrf;

use super::*;
use crate::core::fixture::{link, route};
use crate::core::model::{DeviceSettings, Link, LinkKind, PartialTable, RouteKind, TABLE_MAIN};

/// Devices 1 (`lo`) to 4 (`d4`), the group of each its index, and these rules and routes.
fn host(rules: Vec<Rule>, routes: Vec<Route>) -> Snapshot {
    let device = |index: u32| Link { group: index, ..link(index, &format!("d{index}"), LinkKind::Plain) };
    let links = vec![link(1, "lo", LinkKind::Loopback), device(2), device(3), device(4)];
    Snapshot { links, rules, routes, ..Snapshot::default() }
}

/// The end of a flow's walk, in words.
fn end_of(snapshot: &Snapshot, flow: &Flow) -> String {
    let fib = Fib::new(snapshot);
    match walk(&fib, &fib.policy(flow.family()), flow) {
        End::Route { table, route, nexthops, .. } => {
            let devices: Vec<_> = nexthops.iter().filter_map(|nexthop| nexthop.ifindex).collect();
            format!("{table} {route} {devices:?}")
        }
        End::RefusedByRule(rule) => format!("rule {} {:?}", rule.priority, rule.action),
        End::RefusedByRoute { route, .. } => format!("{route}"),
        End::AssumedOnLink(device) => format!("on link {device}"),
        End::NoRoute => "none".into(),
        End::Undecided { doubt, .. } => format!("{doubt:?}"),
    }
}

fn hijacked() -> Snapshot {
    Snapshot {
        rules: vec![
            Rule::lookup(Family::V4, 0, 255),
            Rule::lookup(Family::V4, 220, 220),
            Rule::lookup(Family::V4, 32766, TABLE_MAIN),
        ],
        routes: vec![
            route(220, "0.0.0.0/0", 2),
            route(TABLE_MAIN, "0.0.0.0/0", 2),
            route(TABLE_MAIN, "169.254.55.52/30", 3),
        ],
        ..Snapshot::default()
    }
}

/// Where the host's ordinary packet to an address goes.
fn ends<'a>(snapshot: &'a Snapshot, to: &str) -> End<'a> {
    let fib = Fib::new(snapshot);
    walk(&fib, &fib.policy(Family::V4), &flow(to))
}

fn flow(to: &str) -> Flow {
    Flow::plain(to.parse().expect("an address"))
}

#[test]
fn rule_order_beats_prefix_length() {
    let snapshot = hijacked();
    let end = ends(&snapshot, "169.254.55.53");
    assert_eq!(end.rule().map(|rule| rule.priority), Some(220));
    assert!(end.leaves_by(2));
}

#[test]
fn suppression_lets_the_walk_go_on() {
    let snapshot = hijacked();
    let main_first = Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) };
    let extra = [main_first];
    let fib = Fib::new(&snapshot);
    let policy = fib.policy(Family::V4).with(&extra);
    assert!(walk(&fib, &policy, &flow("169.254.55.53")).leaves_by(3));
    let elsewhere = walk(&fib, &policy, &flow("8.8.8.8"));
    assert_eq!(elsewhere.rule().map(|rule| rule.priority), Some(220));
}

#[test]
fn hits_by_the_default_route_are_provisional_under_suppression() {
    let mut snapshot = hijacked();
    snapshot.rules.insert(1, Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) });
    assert!(hit_may_be_suppressed(&snapshot, Family::V4, TABLE_MAIN, 2));
    assert!(!hit_may_be_suppressed(&snapshot, Family::V4, TABLE_MAIN, 3));
    assert!(!hit_may_be_suppressed(&snapshot, Family::V4, 220, 2));
}

#[test]
fn refusing_rules_end_the_walk() {
    let mut snapshot = hijacked();
    let unreachable = Rule { action: RuleAction::Unreachable, ..Rule::lookup(Family::V4, 10, 0) };
    snapshot.rules.insert(1, unreachable.clone());
    assert_eq!(ends(&snapshot, "10.0.0.1"), End::RefusedByRule(&unreachable));
}

#[test]
fn what_is_unknown_is_said() {
    let mut snapshot = hijacked();
    snapshot.rules[1].unknown_attributes = vec![25];
    assert!(matches!(ends(&snapshot, "10.0.0.1"), End::Undecided { .. }));
}

#[test]
fn goto_skips_the_rules_between() {
    let mut snapshot = hijacked();
    snapshot.rules.insert(1, Rule { action: RuleAction::Goto(32766), ..Rule::lookup(Family::V4, 50, 0) });
    assert!(ends(&snapshot, "169.254.55.53").leaves_by(3));
}

#[test]
fn a_rule_for_a_source_does_not_match_while_none_is_chosen() {
    let snapshot = Snapshot {
        rules: vec![Rule { from: "10.0.0.0/8".parse().ok(), ..Rule::lookup(Family::V4, 5, 220) }],
        ..hijacked()
    };
    assert_eq!(ends(&snapshot, "10.0.0.1"), End::NoRoute);
}
