//! Judging the incident's gateway, and what resembles it.

mod reasons;

use super::*;
use crate::core::destination::destinations;
use crate::core::finding::NoteId;
use crate::core::fixture::{ENS5, answer, gateway, healthy_rules, route};
use crate::core::model::{Rule, RuleAction, Snapshot, TABLE_MAIN};
use crate::core::tunnel::tunnels;

fn judged(snapshot: &Snapshot) -> Judgement {
    judged_with(snapshot, |_, answer| answer)
}

/// Judges by the engine's own answers, as `change` leaves them.
fn judged_with(snapshot: &Snapshot, change: impl Fn(Variant, Answer) -> Answer) -> Judgement {
    let tunnels = tunnels(snapshot, &[]).expect("no device is named");
    let fib = Fib::new(snapshot);
    let destinations = destinations(&fib, &tunnels);
    let clues = Clues::default();
    let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &clues };
    let mut asked = questions(&destinations, &vec![true; destinations.len()]);
    asked.extend(further_questions(case));
    let answers: Vec<Answer> = asked
        .iter()
        .map(|asked| {
            let answer = answer(snapshot, &asked.question);
            match asked.subject {
                Subject::Destination { variant, .. } => change(variant, answer),
                _ => answer,
            }
        })
        .collect();
    judge(case, &asked, &answers)
}

#[test]
fn the_incident_is_one_finding_a_destination_with_rule_route_and_owner() {
    let judgement = judged(&gateway());
    assert_eq!(judgement.findings.len(), 2);
    let inside = judgement.findings.iter().find(|f| f.prefix.to_string() == "169.254.55.52/30").expect("it is found");
    assert_eq!(inside.reason, Reason::HijackedByRule);
    assert_eq!(inside.id, "hijacked-by-rule:vti1:169.254.55.52/30:220");
    assert_eq!(inside.rule, Some(NamedRule { priority: 220, text: "from all lookup 220".into() }));
    assert_eq!(inside.actual.device.as_deref(), Some("ens5"));
    assert_eq!(inside.actual.table, Some(220));
    assert_eq!(inside.actual.route.as_deref(), Some("default"));
    assert_eq!(inside.actual.route_protocol.as_deref(), Some("static"));
    assert_eq!(inside.owner.name, "strongSwan");
    assert_eq!(inside.expected, Expected { device: "vti1".into(), table: TABLE_MAIN });
    assert!(inside.right_when_bound || inside.variants.contains(&Variant::BoundToTunnel));
    assert_eq!(judgement.right, [false, false]);
}

#[test]
fn without_the_rule_the_host_is_healthy() {
    let mut host = gateway();
    host.rules = healthy_rules();
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert_eq!(judgement.right, [true, true]);
}

#[test]
fn a_better_route_of_main_itself_shadows() {
    let mut host = gateway();
    host.rules = healthy_rules();
    host.routes.push(route(TABLE_MAIN, "169.254.55.53/32", ENS5));
    let judgement = judged(&host);
    assert_eq!(judgement.findings[0].reason, Reason::ShadowedByRoute);
}

#[test]
fn a_refusing_rule_is_named() {
    let mut host = gateway();
    host.rules[1].action = RuleAction::Prohibit;
    let judgement = judged(&host);
    assert_eq!(judgement.findings[0].reason, Reason::UnreachableRule);
    assert_eq!(judgement.findings[0].severity, Severity::Error);
    assert_eq!(judgement.findings[0].rule.as_ref().map(|rule| rule.priority), Some(220));
}

#[test]
fn only_the_answers_to_a_connecting_peer_may_be_hijacked() {
    // The usual half-cure: a rule for destination port 179 alone.
    let mut host = gateway();
    let active = Rule {
        ip_protocol: Some(6),
        destination_ports: Some(crate::core::model::Ports::one(179)),
        ..Rule::lookup(Family::V4, 100, TABLE_MAIN)
    };
    host.rules.insert(1, active);
    let judgement = judged(&host);
    let inside = judgement.findings.iter().find(|f| f.prefix.prefix_len() == 30).expect("it is found");
    assert!(inside.variants.contains(&Variant::BgpPassive), "{inside:?}");
    assert!(!inside.variants.contains(&Variant::BgpActive), "{inside:?}");
}

#[test]
fn a_failed_source_validation_is_a_finding_of_its_own_only_where_nothing_else_is_wrong() {
    let refuse = |variant, answer: Answer| match variant {
        Variant::Reverse => Answer { reply: Reply::Refused(22), ..answer },
        _ => answer,
    };
    let mut host = gateway();
    assert!(judged_with(&host, refuse).findings.iter().all(|finding| finding.reason == Reason::HijackedByRule));
    host.rules = healthy_rules();
    let reasons: Vec<Reason> = judged_with(&host, refuse).findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::ReversePath; 2]);
}

#[test]
fn a_rule_to_a_table_without_routes_is_noted_not_found_faulty() {
    let mut host = gateway();
    host.rules = healthy_rules();
    host.rules.insert(1, Rule::lookup(Family::V4, 220, 220));
    host.routes.retain(|route| route.table != 220);
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert_eq!(judgement.notes.len(), 1);
    assert_eq!(judgement.notes[0].id, NoteId::RuleToEmptyTable);
    assert!(judgement.notes[0].text.contains("220"));
}

#[test]
fn a_disagreement_with_the_kernel_is_said_and_the_kernel_holds() {
    let mut host = gateway();
    host.rules = healthy_rules();
    let elsewhere = |variant, answer: Answer| match (variant, &answer.reply) {
        (Variant::Plain, Reply::Arrives(arrival)) => {
            let reply = Reply::Arrives(crate::core::model::Arrival { ifindex: ENS5, table: 7, ..arrival.clone() });
            Answer { reply, ..answer }
        }
        _ => answer,
    };
    let judgement = judged_with(&host, elsewhere);
    assert!(judgement.notes.iter().any(|note| note.id == NoteId::EngineDisagrees));
    assert!(judgement.findings.iter().all(|finding| finding.actual.table == Some(7)));
}

fn note_ids(judgement: &Judgement) -> Vec<NoteId> {
    judgement.notes.iter().map(|note| note.id).collect()
}

#[test]
fn a_part_that_others_route_elsewhere_is_told() {
    let mut host = gateway();
    host.routes.retain(|route| route.table != 220);
    host.routes.push(route(220, "10.20.5.0/24", ENS5));
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert_eq!(note_ids(&judgement), [NoteId::PartElsewhere]);
    assert!(judgement.notes[0].text.contains("10.20.5.0/24"), "{:?}", judgement.notes);
}

#[test]
fn a_rule_for_some_traffic_is_told_not_judged() {
    let mut host = gateway();
    host.rules = healthy_rules();
    host.rules.insert(1, Rule { iif: Some("lan0".into()), ..Rule::lookup(Family::V4, 150, 150) });
    host.routes.push(route(150, "0.0.0.0/0", ENS5));
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert_eq!(note_ids(&judgement), [NoteId::SomeTrafficElsewhere]);
}

#[test]
fn the_hosts_own_addresses_stand_for_no_prefix() {
    let mut host = gateway();
    host.rules = healthy_rules();
    host.addresses.retain(|address| address.ifindex != crate::core::fixture::VTI1);
    for own in ["10.99.0.1", "10.99.0.5"] {
        host.addresses.push(crate::core::fixture::address(crate::core::fixture::VTI1, own, 24));
        host.routes.push(route(crate::core::model::TABLE_LOCAL, &format!("{own}/32"), crate::core::fixture::VTI1));
    }
    host.routes.push(route(TABLE_MAIN, "10.99.0.0/24", crate::core::fixture::VTI1));
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert!(judgement.right.iter().all(|right| *right));
}

#[test]
fn a_multipath_route_beside_the_tunnel_is_right_and_told() {
    let mut host = gateway();
    host.rules = healthy_rules();
    let mut mixed = route(TABLE_MAIN, "10.30.0.0/16", ENS5);
    mixed.nexthops.push(crate::core::model::Nexthop {
        ifindex: Some(crate::core::fixture::VTI1),
        ..crate::core::model::Nexthop::default()
    });
    host.routes.push(mixed);
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert_eq!(note_ids(&judgement), [NoteId::MixedMultipath]);
}

#[test]
fn incoming_packets_must_be_delivered_here() {
    let forwarded = |variant, answer: Answer| match (variant, &answer.reply) {
        (Variant::Reverse, Reply::Arrives(arrival)) => {
            let reply = Reply::Arrives(crate::core::model::Arrival { local: false, ..arrival.clone() });
            Answer { reply, ..answer }
        }
        _ => answer,
    };
    let mut host = gateway();
    host.rules = healthy_rules();
    let reasons: Vec<Reason> = judged_with(&host, forwarded).findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::ReversePath; 2]);
}

#[test]
fn rules_that_already_help_are_told_with_their_maker() {
    let mut host = gateway();
    let by_hand = Rule { to: "169.254.55.52/30".parse().ok(), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) };
    let ours = Rule {
        suppress_prefix_length: Some(0),
        protocol: crate::core::owner::VPNFIX_PROTOCOL,
        ..Rule::lookup(Family::V4, 219, TABLE_MAIN)
    };
    host.rules.splice(1..1, [by_hand, ours]);
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    let told: Vec<bool> = judgement.notes.iter().map(|note| note.text.contains("made by others")).collect();
    assert_eq!(note_ids(&judgement), [NoteId::AlreadyThere, NoteId::AlreadyThere]);
    assert_eq!(told, [true, false]);
}
