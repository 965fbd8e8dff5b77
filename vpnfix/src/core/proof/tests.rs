//! Hosts on which main-first does harm, hosts on which it does none, and what is said where it cannot be told.

use super::*;
use crate::core::fixture::{ENS5, LAN, VTI1, gateway, route};
use crate::core::model::{Family, Mark, PartialTable, Route, RouteKind, RuleAction, Snapshot};

fn rule() -> Rule {
    Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 219, TABLE_MAIN) }
}

fn prove(host: &Snapshot) -> Proof {
    let hijackers: Vec<&Rule> = host.rules.iter().filter(|rule| rule.priority == 220).collect();
    prove_main_first(&Fib::new(host), &hijackers, &rule())
}

#[track_caller]
fn refuted(host: &Snapshot) -> CounterExample {
    match prove(host) {
        Proof::Refuted(example) => *example,
        other => panic!("{other:?}"),
    }
}

fn with_rule(rule: Rule) -> Snapshot {
    let mut host = gateway();
    host.rules.push(rule);
    host.rules.sort_by_key(|rule| rule.priority);
    host
}

#[test]
fn the_plain_incident_needs_no_walk() {
    assert_eq!(prove(&gateway()), Proof::Proven { classes: 0, lasting: true });
}

#[test]
fn rules_that_ask_main_or_nobody_are_no_obstacle() {
    // Tailscale's for its own packets, one for a device that is gone, one to a table without routes.
    let mark = Mark { value: 0x80000, mask: 0xff_0000 };
    let mut host = with_rule(Rule { mark: Some(mark), ..Rule::lookup(Family::V4, 5210, TABLE_MAIN) });
    host.rules.insert(3, Rule { iif: Some("gone0".into()), iif_detached: true, ..Rule::lookup(Family::V4, 6000, 300) });
    host.rules.insert(4, Rule::lookup(Family::V4, 7000, 52));
    host.routes.push(route(300, "0.0.0.0/0", LAN));
    assert_eq!(prove(&host), Proof::Proven { classes: 0, lasting: true });
}

#[test]
fn a_vpn_whose_prefixes_main_does_not_know_is_walked_and_passes() {
    // Tailscale as a whole: what is marked never enters the tunnel, the rest looks in table 52.
    let mark = Some(Mark { value: 0x80000, mask: 0xff_0000 });
    let mut host = with_rule(Rule::lookup(Family::V4, 5270, 52));
    host.rules.insert(2, Rule { mark, ..Rule::lookup(Family::V4, 5210, TABLE_MAIN) });
    host.rules.insert(3, Rule { mark, ..Rule::lookup(Family::V4, 5230, 253) });
    let refusing = Rule { mark, action: RuleAction::Unreachable, ..Rule::lookup(Family::V4, 5250, 0) };
    host.rules.insert(4, refusing);
    host.routes.push(route(52, "100.100.1.1/32", LAN));
    assert!(matches!(prove(&host), Proof::Proven { lasting: false, .. }), "{:?}", prove(&host));
    // A route of main that holds one of its peers takes the peer away.
    host.routes.push(route(TABLE_MAIN, "100.64.0.0/10", ENS5));
    let example = refuted(&host);
    assert_eq!(example.flow.to.to_string(), "100.100.1.1");
    assert_eq!((example.breach, example.flow.mark), (Breach::WithoutHijacker, 0));
}

#[test]
fn what_a_rule_refuses_stays_refused() {
    let to = "10.20.64.0/18".parse().ok();
    let host = with_rule(Rule { to, action: RuleAction::Prohibit, ..Rule::lookup(Family::V4, 300, 0) });
    let example = refuted(&host);
    assert_eq!(example.flow.to.to_string(), "10.20.64.0");
    assert!(example.sentence.contains("be refused (rule 300)"), "{}", example.sentence);
}

#[test]
fn a_mark_that_only_some_flows_have_is_found() {
    let mark = Some(Mark { value: 0x40, mask: 0x40 });
    let mut host = with_rule(Rule { mark, ip_protocol: Some(6), ..Rule::lookup(Family::V4, 300, 300) });
    host.routes.push(route(300, "0.0.0.0/0", LAN));
    let example = refuted(&host);
    assert_eq!((example.flow.mark & 0x40, example.flow.protocol), (0x40, 6));
}

#[test]
fn a_bypass_in_the_hijackers_table_decides_nothing() {
    let mut host = gateway();
    let mut bypass = route(220, "192.168.12.0/24", ENS5);
    (bypass.kind, bypass.nexthops) = (RouteKind::Throw, Vec::new());
    host.routes.push(bypass);
    assert_eq!(prove(&host), Proof::Proven { classes: 0, lasting: true });
}

#[test]
fn a_main_that_refuses_by_default_is_walked_too() {
    // Such a route is not suppressed: the rule would decide about everything.
    let mut host = with_rule(Rule::lookup(Family::V4, 300, 300));
    host.routes.retain(|route| route.table != TABLE_MAIN || route.destination.prefix_len() > 0);
    let mut refusing = route(TABLE_MAIN, "0.0.0.0/0", ENS5);
    (refusing.kind, refusing.nexthops) = (RouteKind::Unreachable, Vec::new());
    host.routes.push(refusing);
    host.routes.push(route(300, "172.31.0.0/16", LAN));
    assert_eq!(refuted(&host).flow.to.to_string(), "172.31.0.0");
}

#[test]
fn a_goto_over_main_is_noticed() {
    let mut host = with_rule(Rule { action: RuleAction::Goto(32767), ..Rule::lookup(Family::V4, 300, 0) });
    host.routes.push(route(253, "0.0.0.0/0", LAN));
    assert_eq!(refuted(&host).breach, Breach::WithoutHijacker);
}

#[test]
fn a_goto_to_where_our_rule_would_stand_is_noticed() {
    // Today its target does not exist, and it does nothing. With our rule there it jumps over rule 150.
    let mut host = with_rule(Rule { action: RuleAction::Goto(219), ..Rule::lookup(Family::V4, 50, 0) });
    host.rules.insert(2, Rule::lookup(Family::V4, 150, 300));
    host.routes.push(route(300, "0.0.0.0/0", LAN));
    refuted(&host);
}

#[test]
fn without_a_rule_for_main_nothing_comes_home() {
    let mut host = gateway();
    host.rules.retain(|rule| rule.priority != 32766);
    assert_eq!(refuted(&host).breach, Breach::WithoutHijacker);
}

#[test]
fn what_was_read_in_part_is_told() {
    let mut host = with_rule(Rule::lookup(Family::V4, 300, 300));
    host.routes.push(route(300, "10.20.0.0/16", LAN));
    host.partial.push(PartialTable { family: Family::V4, table: TABLE_MAIN });
    assert!(matches!(prove(&host), Proof::Undecided { why } if why.contains("main")));
    host.partial[0].table = 300;
    assert!(matches!(prove(&host), Proof::Undecided { why } if why.contains("table 300")));
}

#[test]
fn what_a_rule_of_a_newer_kernel_does_is_not_guessed() {
    let host = with_rule(Rule { unknown_attributes: vec![99], ..Rule::lookup(Family::V4, 300, 300) });
    assert!(matches!(prove(&host), Proof::Undecided { why } if why.contains("rule `300: from all lookup 300`")));
    // Before ours it does whatever it does, with our rule and without.
    let host = with_rule(Rule { unknown_attributes: vec![99], ..Rule::lookup(Family::V4, 100, 300) });
    assert!(matches!(prove(&host), Proof::Proven { lasting: true, .. }));
}

#[test]
fn too_much_work_is_told_with_the_bound() {
    // Sixteen independent bits of the mark make 65,536 classes of flows, of which none is led astray.
    let mut host = gateway();
    for bit in 0..16 {
        let mark = Some(Mark { value: 1 << bit, mask: 1 << bit });
        host.rules.insert(1, Rule { mark, ..Rule::lookup(Family::V4, 50 + bit, 300) });
    }
    host.routes.push(route(300, "203.0.113.0/24", LAN));
    let mut last = Rule::lookup(Family::V4, 400, 400);
    last.suppress_prefix_length = Some(16);
    host.rules.push(last);
    host.rules.sort_by_key(|rule| rule.priority);
    let mut same = route(400, "10.20.0.0/24", LAN);
    same.nexthops[0].dead = true;
    host.routes.push(same);
    assert!(matches!(prove(&host), Proof::Undecided { why } if why.contains("classes of flows, and there are more")));
}

#[test]
fn harm_to_flows_bound_to_one_device_alone_is_found() {
    // Ordinary traffic passes rule 300, which discards routes by group 1. What is bound to lan0 finds the second best
    // route of table 300, and main has another one.
    let mut host = with_rule(Rule { suppress_ifgroup: Some(1), ..Rule::lookup(Family::V4, 300, 300) });
    host.links.iter_mut().filter(|link| link.index == VTI1).for_each(|link| link.group = 1);
    host.routes.push(Route { metric: 10, ..route(TABLE_MAIN, "10.20.0.0/16", LAN) });
    host.routes.push(route(300, "10.20.0.0/24", VTI1));
    host.routes.push(Route { metric: 1, ..route(300, "10.20.0.0/24", LAN) });
    assert_eq!(refuted(&host).flow.oif, Some(LAN));
}
