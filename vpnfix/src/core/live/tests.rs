use super::*;
use crate::core::fixture::route;
use crate::core::model::{Rule, TABLE_MAIN};
use crate::core::observation::FlowMarks;

fn key(table: u32, ifindex: u32, hook: Hook) -> LookupKey {
    LookupKey {
        netns: Some(1),
        watch: 0,
        table,
        ifindex: Some(ifindex),
        outcome: LookupOutcome::Hit,
        hook,
        kind: LookupKind::Output,
        marks: FlowMarks::default(),
        custom_rules: true,
        prefix_length: None,
    }
}

fn view<'a>(snapshot: &'a Snapshot, watches: &'a [Watch], knows_outcomes: bool) -> View<'a> {
    static NONE: std::sync::LazyLock<Others> = std::sync::LazyLock::new(Others::default);
    View { snapshot, watches, knows_outcomes, others: &NONE }
}

fn snapshot() -> Snapshot {
    Snapshot {
        netns: crate::core::model::Netns { name: None, inode: 1 },
        rules: vec![
            Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) },
            Rule::lookup(Family::V4, 220, 220),
        ],
        routes: vec![
            route(TABLE_MAIN, "0.0.0.0/0", 2),
            route(TABLE_MAIN, "10.20.0.0/16", 3),
            route(220, "0.0.0.0/0", 2),
        ],
        ..Snapshot::default()
    }
}

fn watches() -> Vec<Watch> {
    vec![Watch { prefix: "10.20.0.0/16".parse().expect("a prefix"), tunnels: vec![3] }]
}

#[test]
fn a_hit_is_not_the_outcome_where_a_rule_may_discard_it() {
    let (snapshot, watches) = (snapshot(), watches());
    let view = view(&snapshot, &watches, false);
    assert_eq!(view.lookup(&key(TABLE_MAIN, 2, Hook::FibTable)), Standing::Provisional);
    assert_eq!(view.lookup(&key(TABLE_MAIN, 3, Hook::FibTable)), Standing::Right);
    assert_eq!(view.lookup(&key(220, 2, Hook::FibTable)), Standing::Wrong);
}

#[test]
fn the_outcome_of_the_walk_is_the_authority_where_it_is_seen() {
    let (snapshot, watches) = (snapshot(), watches());
    let view = view(&snapshot, &watches, true);
    assert_eq!(view.lookup(&key(220, 2, Hook::FibTable)), Standing::Step);
    assert_eq!(view.lookup(&key(220, 2, Hook::FibRules)), Standing::Wrong);
    let without_rules = LookupKey { custom_rules: false, ..key(TABLE_MAIN, 3, Hook::FibTable) };
    assert_eq!(view.lookup(&without_rules), Standing::Right);
}

#[test]
fn what_proves_nothing_is_not_judged() {
    let (snapshot, watches) = (snapshot(), watches());
    let view = view(&snapshot, &watches, false);
    let wrong = key(220, 2, Hook::FibTable);
    assert_eq!(view.lookup(&LookupKey { kind: LookupKind::SourceValidation, ..wrong }), Standing::Internal);
    let bound = FlowMarks { bound: true, ..FlowMarks::default() };
    assert_eq!(view.lookup(&LookupKey { marks: bound, ..wrong }), Standing::Bound);
    assert_eq!(view.lookup(&LookupKey { watch: 9, ..wrong }), Standing::Unjudged);
    let packet = PacketKey { netns: 1, watch: 0, ifindex: 2, marks: bound };
    assert_eq!(view.packet(&packet), Standing::Bound);
}

#[test]
fn another_namespace_is_not_judged_by_this_ones_tunnels() {
    let (snapshot, watches) = (snapshot(), watches());
    let view = view(&snapshot, &watches, false);
    let foreign = LookupKey { netns: Some(2), ..key(220, 2, Hook::FibTable) };
    assert_eq!(view.lookup(&foreign), Standing::OtherNamespace);
    let packet = PacketKey { netns: 2, watch: 0, ifindex: 2, marks: FlowMarks::default() };
    assert_eq!(view.packet(&packet), Standing::OtherNamespace);
    assert_eq!(view.device(Some(2), 2), "if2");
}

fn destination(prefix: &str, tunnel: u32) -> Destination {
    Destination {
        class: crate::core::destination::Class::Routed,
        prefix: prefix.parse().expect("a prefix"),
        address: "10.20.0.1".parse().expect("an address"),
        peer: None,
        inside_source: None,
        tunnels: vec![tunnel],
        table: TABLE_MAIN,
        vrf: None,
    }
}

#[test]
fn destinations_are_narrowed_to_what_is_asked_for() {
    let all = [destination("10.20.0.0/16", 3), destination("10.20.4.0/24", 4), destination("10.30.0.0/16", 3)];
    let told = |only: &[&str]| -> Vec<(String, u32)> {
        let only: Vec<IpNet> = only.iter().map(|only| only.parse().expect("a prefix")).collect();
        narrowed(&all, &only).iter().map(|found| (found.prefix.to_string(), found.tunnels[0])).collect()
    };
    let pair = |prefix: &str, tunnel: u32| (prefix.to_string(), tunnel);
    assert_eq!(told(&[]).len(), 3);
    assert_eq!(told(&["10.20.4.9/32"]), [pair("10.20.4.9/32", 4)]);
    assert_eq!(told(&["10.20.4.0/22"]), [pair("10.20.4.0/24", 4), pair("10.20.4.0/22", 3)]);
    assert_eq!(told(&["10.0.0.0/8"]).len(), 4 - 1);
    assert!(told(&["192.0.2.0/24"]).is_empty());
}

#[test]
fn a_refused_walk_is_wrong() {
    let (snapshot, watches) = (snapshot(), watches());
    let view = view(&snapshot, &watches, true);
    let refused = LookupKey { outcome: LookupOutcome::Refused(101), ifindex: None, ..key(0, 0, Hook::FibRules) };
    assert_eq!(view.lookup(&refused), Standing::Wrong);
}

#[test]
fn watches_follow_the_host() {
    let mut watches = super::watches(&[destination("10.20.0.0/16", 3), destination("10.30.0.0/16", 3)], &[]);
    // The tunnel was made anew, one prefix was withdrawn, another learned.
    let added = rebind(&mut watches, &[destination("10.20.0.0/16", 9), destination("10.40.0.0/16", 9)]);
    let told: Vec<(String, Vec<u32>)> = watches.iter().map(|w| (w.prefix.to_string(), w.tunnels.clone())).collect();
    let expected = [("10.20.0.0/16", vec![3, 9]), ("10.30.0.0/16", vec![]), ("10.40.0.0/16", vec![9])];
    assert_eq!(added, 1);
    assert_eq!(told, expected.map(|(prefix, tunnels)| (prefix.to_string(), tunnels)));
}

#[test]
fn every_flip_changes_the_verdict() {
    let mut verdicts = Verdicts::new(1);
    assert_eq!(verdicts.lookup(0, Standing::Right), Some(Verdict::Right));
    assert_eq!(verdicts.lookup(0, Standing::Wrong), Some(Verdict::Suspected));
    assert_eq!(verdicts.packet(0, Standing::Wrong), Some(Verdict::Misrouted));
    assert_eq!(verdicts.lookup(0, Standing::Wrong), None);
    assert_eq!(verdicts.lookup(0, Standing::Right), Some(Verdict::Right));
    assert_eq!(verdicts.packet(0, Standing::Wrong), Some(Verdict::Misrouted));
    assert_eq!(verdicts.packet(0, Standing::Right), Some(Verdict::Right));
    assert_eq!(verdicts.worst(0), Some(Verdict::Misrouted));
}
