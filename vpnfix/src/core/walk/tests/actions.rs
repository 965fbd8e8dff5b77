use super::*;

fn does(priority: u32, action: RuleAction) -> Rule {
    Rule { action, ..Rule::lookup(Family::V4, priority, 0) }
}

fn looks_up(priority: u32, table: u32) -> Rule {
    Rule::lookup(Family::V4, priority, table)
}

fn with_rules(rules: Vec<Rule>) -> Snapshot {
    host(rules, vec![route(100, "10.0.0.0/8", 2), route(220, "10.0.0.0/8", 3), route(220, "0.0.0.0/0", 4)])
}

#[test]
fn rules_that_refuse_end_the_walk_and_nop_does_nothing() {
    for action in [RuleAction::Unreachable, RuleAction::Prohibit, RuleAction::Blackhole] {
        let snapshot = with_rules(vec![does(1, RuleAction::Nop), does(5, action), looks_up(10, 100)]);
        assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), format!("rule 5 {action:?}"));
    }
    let snapshot = with_rules(vec![does(1, RuleAction::Other(9)), looks_up(10, 100)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "Action(9)");
    assert_eq!(end_of(&with_rules(Vec::new()), &flow("10.0.0.1")), "none");
}

#[test]
fn a_goto_goes_on_at_the_first_rule_of_its_target() {
    let jump = does(1, RuleAction::Goto(50));
    let snapshot = with_rules(vec![jump, looks_up(10, 100), does(50, RuleAction::Nop), looks_up(50, 220)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [3]");
    let fib = Fib::new(&snapshot);
    let told = retrace(&fib, &fib.policy(Family::V4), &flow("10.0.0.1"));
    let outcomes: Vec<_> = told.steps.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Outcome::Jumped(50), Outcome::JumpedOver, Outcome::Nothing, Outcome::Decided]);
}

#[test]
fn a_goto_without_a_target_does_nothing() {
    let snapshot = with_rules(vec![does(1, RuleAction::Goto(51)), looks_up(10, 100), looks_up(50, 220)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "100 10.0.0.0/8 [2]");
    // A jump into the place of a rule that does not match goes on behind it.
    let elsewhere = Rule { to: "11.0.0.0/8".parse().ok(), ..looks_up(50, 100) };
    let snapshot = with_rules(vec![does(1, RuleAction::Goto(50)), elsewhere, looks_up(60, 220)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [3]");
}

#[test]
fn rules_of_one_priority_are_asked_in_the_order_in_which_they_were_added() {
    let snapshot = with_rules(vec![looks_up(5, 220), looks_up(5, 100)]);
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "220 10.0.0.0/8 [3]");
    let first = [looks_up(4, 100)];
    let fib = Fib::new(&snapshot);
    let policy = fib.policy(Family::V4).with(&first);
    assert!(walk(&fib, &policy, &flow("10.0.0.1")).leaves_by(2));
    assert!(walk(&fib, &policy.without(|rule| rule.priority == 4), &flow("10.0.0.1")).leaves_by(3));
}

#[test]
fn throw_and_suppression_send_the_walk_on_and_refusing_routes_are_not_suppressed() {
    let kind = |kind| Route { kind, nexthops: Vec::new(), ..route(100, "10.0.0.0/8", 0) };
    let rules = vec![Rule { suppress_prefix_length: Some(32), ..looks_up(5, 100) }, looks_up(10, 220)];
    let ends = |of: Route| end_of(&host(rules.clone(), vec![of, route(220, "0.0.0.0/0", 4)]), &flow("10.0.0.1"));
    assert_eq!(ends(kind(RouteKind::Throw)), "220 default [4]");
    assert_eq!(ends(route(100, "10.0.0.0/8", 2)), "220 default [4]");
    for refusing in [RouteKind::Unreachable, RouteKind::Prohibit, RouteKind::Blackhole] {
        assert_eq!(ends(kind(refusing)), format!("{} 10.0.0.0/8", refusing.name()));
    }
    assert_eq!(ends(kind(RouteKind::Other(12))), "RouteKind(12)");
}

#[test]
fn suppression_goes_by_the_group_of_the_device() {
    let rules = |group| vec![Rule { suppress_ifgroup: Some(group), ..looks_up(5, 100) }, looks_up(10, 220)];
    let routes = vec![route(100, "10.0.0.0/8", 2), route(220, "10.0.0.0/8", 3)];
    assert_eq!(end_of(&host(rules(2), routes.clone()), &flow("10.0.0.1")), "220 10.0.0.0/8 [3]");
    assert_eq!(end_of(&host(rules(3), routes), &flow("10.0.0.1")), "100 10.0.0.0/8 [2]");
}

#[test]
fn of_a_table_that_was_not_read_whole_nothing_is_claimed() {
    let partial = vec![PartialTable { family: Family::V4, table: 100 }];
    let snapshot = Snapshot { partial, ..with_rules(vec![looks_up(5, 100), looks_up(10, 220)]) };
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "PartialTable(100)");
    assert_eq!(lookup(&Fib::new(&snapshot), 7000, &flow("10.0.0.1")), Found::Nothing);
}
