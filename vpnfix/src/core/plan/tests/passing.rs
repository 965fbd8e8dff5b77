//! Traffic that others gave a way of its own keeps it, with strongSwan's rule and without.

use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, prop_assume, proptest};

use super::*;
use crate::core::model::{Mark, Route, RouteKind, UidRange};
use crate::core::proof::properties::{Dice, host};
use crate::core::walk::{self, End, Flow, Match, Outcome, Policy};

/// A host with a rule of others in front of main's, and a table 300 with a default route.
fn beside(rule: Rule) -> Snapshot {
    let mut host = gateway();
    host.rules.push(rule);
    host.rules.sort_by_key(|rule| rule.priority);
    host.routes.push(via(route(300, "0.0.0.0/0", LAN), "192.168.12.1"));
    host
}

fn marked(priority: u32) -> Rule {
    Rule { mark: Some(Mark { value: 1, mask: 0xff }), ..Rule::lookup(Family::V4, priority, 300) }
}

#[test]
fn a_table_without_a_route_for_the_destination_takes_nothing() {
    let mut host = beside(marked(5000));
    host.routes.retain(|route| route.table != 300);
    host.routes.push(route(300, "172.31.0.0/16", LAN));
    host.routes.push(Route { kind: RouteKind::Throw, ..route(300, "10.20.0.0/16", LAN) });
    assert_eq!(steps(&host, Strategy::Prefixes).len(), 2);
}

#[test]
fn a_refusing_default_route_is_kept_where_others_are_suppressed() {
    let suppressing = |priority| Rule { suppress_prefix_length: Some(0), ..marked(priority) };
    let mut host = beside(suppressing(5000));
    assert_eq!(steps(&host, Strategy::Prefixes).len(), 2);
    for kind in [RouteKind::Unreachable, RouteKind::Prohibit, RouteKind::Blackhole] {
        host.routes.retain(|route| route.table != 300);
        host.routes.push(Route { kind, nexthops: Vec::new(), ..route(300, "0.0.0.0/0", LAN) });
        assert_eq!(steps(&host, Strategy::Prefixes).len(), 4, "{kind:?}");
    }
}

#[test]
fn a_rule_that_cannot_be_repeated_sends_on_all_traffic_to_the_destination() {
    // Not for root, but for all others.
    let root = UidRange { start: 0, end: 0 };
    let mut host = beside(Rule { invert: true, uid_range: Some(root), ..Rule::lookup(Family::V4, 5000, 300) });
    host.rules.push(marked(6000));
    host.rules.sort_by_key(|rule| rule.priority);
    let found = steps(&host, Strategy::Prefixes);
    assert_eq!(found[2], "ip rule add priority 219 from all to 10.20.0.0/16 goto 5000 protocol 118");
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_second_run_finds_them_and_adds_none_behind_the_rules_they_are_for() {
    let mut host = beside(marked(5000));
    let plan = planned(&host, Strategy::Prefixes, None).expect("a plan");
    let rules: Vec<Rule> = plan.steps.iter().map(|step| step.rule.clone()).collect();
    assert_eq!(rules.len(), 4);
    host.rules.splice(1..1, rules);
    assert_eq!(steps(&host, Strategy::Prefixes), Vec::<String>::new());
    host.rules.retain(|rule| rule.mark.is_none() || rule.protocol != 118);
    assert_eq!(steps(&host, Strategy::Prefixes), Vec::<String>::new());
}

#[test]
fn where_nothing_is_left_open_they_stand_before_both_rules() {
    let host = beside(marked(5000));
    let wanted = Wanted { strategy: Strategy::Prefixes, priority: None, fail_closed: true };
    let found = commands(&planned_as(&host, &Neighbours::default(), wanted).expect("a plan"));
    let does: Vec<&str> = found
        .iter()
        .map(|command| ["goto", "lookup", "unreachable"].into_iter().find(|word| command.contains(word)).unwrap_or(""))
        .collect();
    assert_eq!(does, ["goto", "lookup", "goto", "lookup", "unreachable", "unreachable"], "{found:?}");
}

/// The host of the property, hijacked as strongSwan does it, with a tunnel that has destinations, and others' table with a
/// way for everything.
fn hijacked(mut host: Snapshot) -> Snapshot {
    const TUN0: u32 = 3;
    for link in host.links.iter_mut().filter(|link| link.index == TUN0) {
        link.kind = LinkKind::Vti { v6: false, local: None, remote: None, input_key: 1, output_key: 1 };
    }
    host.addresses.push(crate::core::fixture::address(TUN0, "10.0.0.13", 30));
    for rule in host.rules.iter_mut().filter(|rule| rule.priority == 220 && rule.protocol == 0) {
        *rule = Rule::lookup(Family::V4, 220, 220);
    }
    host.rules.dedup();
    host.routes.extend([
        route(220, "0.0.0.0/0", ENS5),
        route(300, "0.0.0.0/0", LAN),
        route(TABLE_MAIN, "10.0.0.12/30", TUN0),
        route(TABLE_MAIN, "10.0.0.4/30", TUN0),
    ]);
    host
}

/// Which rule decided, and how.
fn end(fib: &Fib<'_>, policy: &Policy<'_>, flow: &Flow) -> Option<(Option<Rule>, String)> {
    let walk = walk::retrace(fib, policy, flow);
    let last = walk.steps.last().filter(|(_, outcome)| *outcome == Outcome::Decided).map(|(rule, _)| (*rule).clone());
    let how = match walk.end {
        End::Undecided { .. } => return None,
        End::Route { route, nexthops, .. } => format!("{route:?} {nexthops:?}"),
        End::RefusedByRoute { route, .. } => format!("{route:?}"),
        End::RefusedByRule(rule) => format!("{:?}", rule.action),
        End::AssumedOnLink(device) => format!("on link {device}"),
        End::NoRoute => "no route".into(),
    };
    Some((last, how))
}

/// A rule of others that takes ordinary traffic to a destination hijacks it as well, which shows only when the first
/// hijacker is gone: that is another finding.
fn hijacks_too(fib: &Fib<'_>, rule: &Rule, flow: &Flow) -> bool {
    walk::matches(fib, rule, &Flow::plain(flow.to)) == Match::Yes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_decision_differs_from_the_healthy_hosts_once_the_hijacker_is_gone(
        host in host(Family::V4),
        strategy in prop::sample::select(vec![Strategy::Prefixes, Strategy::Inside, Strategy::Auto]),
        fail_closed in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let host = hijacked(host);
        let main = Rule::lookup(Family::V4, 32766, TABLE_MAIN);
        prop_assume!(host.rules.contains(&main));
        // `not to` is for all but a destination: which flows it is for hangs on the address, and it hijacks some of them.
        prop_assume!(!host.rules.iter().any(|rule| rule.invert && rule.to.is_some()));
        let wanted = Wanted { strategy, priority: None, fail_closed };
        let Ok((plan, hijackers)) = planned_against(&host, &Neighbours::default(), wanted) else { return Ok(()) };
        let rules: Vec<Rule> = plan.steps.iter().map(|step| step.rule.clone()).collect();
        let fib = Fib::new(&host);
        let home = fib.policy(Family::V4).without(|rule| hijackers.contains(rule));
        let with_ours = home.with(&rules);
        let mut dice = Dice(seed);
        for flow in (0..300).map(|_| dice.flow(Family::V4)) {
            let (Some((by, was)), Some((decides, is))) = (end(&fib, &home, &flow), end(&fib, &with_ours, &flow)) else {
                continue;
            };
            let closed = decides.is_some_and(|rule| rule.protocol == 118 && rule.action == RuleAction::Unreachable);
            if was != is && !closed && !by.as_ref().is_some_and(|rule| hijacks_too(&fib, rule, &flow)) {
                let words = |rules: &[Rule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
                prop_assert_eq!(was, is, "{:?} {:#?} {:#?}", flow, words(&rules), words(&host.rules));
            }
        }
    }
}
