//! Packets of the incident's gateway, and of hosts with rules of every shape.

use super::incident::{after_charon, captured, explained, explained_or_not, parsed, with_bgp};
use super::*;
use crate::core::fixture::{answer, route};
use crate::core::model::{LinkKind, Mark, Ports, RuleAction, Snapshot, UidRange};
use crate::core::report::explain::{AddressKind, Did, Selector, Suppressor};

/// The report about an ordinary packet, by what the engine takes for the kernel's answer.
fn asked(snapshot: &Snapshot, question: Question) -> ExplainReport {
    explained(snapshot, &answer(snapshot, &question))
}

fn plain(snapshot: &Snapshot, to: &str) -> ExplainReport {
    asked(snapshot, Question::plain(parsed(to)))
}

fn effect_of(report: &ExplainReport, name: RemedyName) -> Option<Effect> {
    report.remedies.iter().find(|remedy| remedy.remedy == name).map(|remedy| remedy.effect)
}

/// `with_bgp` and a rule of family IPv4 in its place.
fn with_rule(rule: Rule) -> Snapshot {
    let mut snapshot = with_bgp();
    snapshot.rules.push(rule);
    snapshot.rules.sort_by_key(|rule| (rule.family, rule.priority));
    snapshot
}

fn at(priority: u32) -> Rule {
    Rule::lookup(Family::V4, priority, TABLE_MAIN)
}

fn did(report: &ExplainReport, priority: u32) -> &Did {
    &report.steps.iter().find(|step| step.priority == priority).expect("the rule").did
}

fn deciding(report: &ExplainReport) -> Option<u32> {
    report.steps.iter().find(|step| step.decided).map(|step| step.priority)
}

#[test]
fn the_incidents_learned_prefix_is_taken_by_rule_220_and_inside_rules_do_not_cure_it() {
    let report = explained(&with_bgp(), &captured("10.20.0.1"));
    assert_eq!(report.outcome, Outcome::FaultFound);
    let decided: Vec<u32> = report.steps.iter().filter(|step| step.decided).map(|step| step.priority).collect();
    assert_eq!(decided, [220]);
    assert_eq!(*did(&report, 32766), Did::NotAsked);
    assert_eq!(report.agreement.state, AgreementState::Agree);
    let obstacle = report.obstacle.as_ref().expect("an obstacle");
    assert_eq!((obstacle.reason, obstacle.owner.name.as_str()), (Reason::HijackedByRule, "strongSwan"));
    assert_eq!(effect_of(&report, RemedyName::Inside), Some(Effect::DoesNotCure));
    for cure in [RemedyName::Prefix, RemedyName::MainFirst, RemedyName::Plan, RemedyName::Root] {
        assert_eq!(effect_of(&report, cure), Some(Effect::Cures), "{cure:?}");
    }
}

#[test]
fn inside_rules_cure_the_peer_and_are_known_where_they_stand() {
    let peer = explained(&with_bgp(), &captured("169.254.55.53"));
    assert_eq!(effect_of(&peer, RemedyName::Inside), Some(Effect::Cures));
    let mut snapshot = with_bgp();
    let to = |prefix: &str| Rule { to: prefix.parse().ok(), ..at(100) };
    snapshot.rules.splice(1..1, [to("169.254.55.52/30"), to("169.254.253.48/30")]);
    assert_eq!(plain(&snapshot, "169.254.55.53").verdict, PacketVerdict::Right);
    let learned = explained(&snapshot, &captured("10.20.0.1"));
    let inside = learned.remedies.iter().find(|remedy| remedy.remedy == RemedyName::Inside).expect("the remedy");
    assert_eq!((inside.rules.len(), inside.standing.len()), (0, 2));
    assert_eq!(inside.effect, Effect::DoesNotCure);
}

#[test]
fn before_bgp_learns_anything_it_is_said_that_nothing_learned_would_be_used() {
    let report = explained(&after_charon(), &captured("10.20.0.1"));
    assert_eq!((report.verdict, report.outcome), (PacketVerdict::NoTunnel, Outcome::Ok));
    let notes = report.notes.join("\n");
    assert!(notes.contains("rule 220 (owner: strongSwan) decides before table main is asked"), "{notes}");
    assert!(notes.contains("rules for the inside prefixes alone would not change that"), "{notes}");
    assert!(notes.ends_with("suppress_prefixlength 0` would"), "{notes}");
    assert!(explained(&with_bgp(), &captured("10.20.0.1")).notes.is_empty());
}

#[test]
fn a_neighbour_on_the_hosts_own_network_is_told_of_the_route_that_is_not_used() {
    let notes = explained(&with_bgp(), &captured("192.168.12.77")).notes.join("\n");
    assert!(notes.starts_with("table main's route 192.168.12.0/24 by ens5 is not used: rule 220 (owner:"), "{notes}");
    assert!(notes.ends_with("suppress_prefixlength 0` would"), "{notes}");
    assert!(!notes.contains("BGP"), "{notes}");
}

#[test]
fn addresses_that_are_no_tunnels_are_called_by_their_kind() {
    let kinds = [
        ("169.254.55.54", AddressKind::Own),
        ("169.254.55.55", AddressKind::Broadcast),
        ("255.255.255.255", AddressKind::Broadcast),
        ("127.0.0.1", AddressKind::Loopback),
        ("224.0.0.5", AddressKind::Multicast),
        ("ff02::5", AddressKind::Multicast),
        ("fe80::1", AddressKind::LinkLocal),
        ("8.8.8.8", AddressKind::Unicast),
    ];
    for (to, kind) in kinds {
        let report = plain(&with_bgp(), to);
        assert_eq!((report.address, report.verdict), (kind, PacketVerdict::NoTunnel), "{to}");
    }
}

#[test]
fn a_rule_that_does_not_match_says_why_with_the_packets_own_value() {
    let iif = |name: &str| Rule { iif: Some(name.into()), ..at(50) };
    let oif = |name: &str| Rule { oif: Some(name.into()), ..at(50) };
    let cases = [
        (
            Rule { from: "10.0.0.0/8".parse().ok(), ..at(50) },
            Selector::From,
            "only for source 10.0.0.0/8, this flow has 192.168.12.49",
        ),
        (
            Rule { to: "10.0.0.1/32".parse().ok(), ..at(50) },
            Selector::To,
            "only for destination 10.0.0.1, this flow has 10.20.0.1",
        ),
        (
            Rule { mark: Some(Mark { value: 1, mask: 0xff }), ..at(50) },
            Selector::Fwmark,
            "only for mark 0x1/0xff, this flow has 0x0",
        ),
        (
            Rule { uid_range: Some(UidRange { start: 5, end: 9 }), ..at(50) },
            Selector::Uid,
            "only for users 5 to 9, this flow has 0",
        ),
        (Rule { ip_protocol: Some(6), ..at(50) }, Selector::Protocol, "only for IP protocol 6, this flow has 17"),
        (
            Rule { destination_ports: Some(Ports::one(179)), ..at(50) },
            Selector::DestinationPort,
            "only for destination port 179, this flow has 0",
        ),
        (Rule { tos: 0x10, ..at(50) }, Selector::Tos, "only for type of service 0x10, this flow has 0x00"),
        (Rule { l3mdev: true, ..at(50) }, Selector::L3mdev, "only for packets of a VRF, this is of none"),
        (iif("vti1"), Selector::Iif, "only for packets that come in by vti1, this is the host's own"),
        (iif("gone0"), Selector::Iif, "only for packets that come in by gone0, which does not exist"),
        (oif("vti1"), Selector::Oif, "only for packets bound to vti1, this one is bound to none"),
        (Rule { invert: true, ..at(50) }, Selector::Not, "it is for all but such packets, and this is one of them"),
    ];
    for (rule, selector, why) in cases {
        let from = Question { source: parsed("192.168.12.49").into(), ..Question::plain(parsed("10.20.0.1")) };
        let report = asked(&with_rule(rule), from);
        assert_eq!(*did(&report, 50), Did::NoMatch { selector, why: why.into() });
    }
}

#[test]
fn a_source_that_is_not_chosen_yet_is_said() {
    let report = plain(&with_rule(Rule { from: "10.0.0.0/8".parse().ok(), ..at(50) }), "10.20.0.1");
    let why = "only for source 10.0.0.0/8, this flow has none yet".into();
    assert_eq!(*did(&report, 50), Did::NoMatch { selector: Selector::From, why });
}

#[test]
fn suppressed_thrown_jumped_and_empty_are_told_apart() {
    let suppressed = plain(&with_rule(Rule { suppress_prefix_length: Some(16), ..at(50) }), "10.20.0.1");
    let Did::Suppressed { route: found, by } = did(&suppressed, 50) else { panic!("{suppressed:#?}") };
    assert_eq!((found.route.as_str(), *by), ("10.20.0.0/16", Suppressor::SuppressPrefixlength(16)));
    assert_eq!(suppressed.verdict, PacketVerdict::Wrong);

    let mut thrown = with_rule(Rule::lookup(Family::V4, 50, 47));
    thrown.routes.push(Route { kind: RouteKind::Throw, nexthops: Vec::new(), ..route(47, "10.0.0.0/8", 2) });
    assert!(matches!(did(&plain(&thrown, "10.20.0.1"), 50), Did::Thrown { .. }));
    assert_eq!(*did(&plain(&thrown, "8.8.8.8"), 50), Did::NoRoute { table: 47, empty: false });
    thrown.routes.retain(|route| route.table != 47);
    assert_eq!(*did(&plain(&thrown, "8.8.8.8"), 50), Did::NoRoute { table: 47, empty: true });

    let jumped = plain(&with_rule(Rule { action: RuleAction::Goto(32766), ..at(50) }), "10.20.0.1");
    assert_eq!((did(&jumped, 50), did(&jumped, 220)), (&Did::Jumped { to: 32766 }, &Did::JumpedOver));
    assert_eq!(jumped.verdict, PacketVerdict::Right);
    let nowhere = plain(&with_rule(Rule { action: RuleAction::Goto(60), ..at(50) }), "10.20.0.1");
    assert_eq!(*did(&nowhere, 50), Did::Nothing { why: "there is no rule 60 to go to".into() });
}

#[test]
fn a_refusing_rule_is_the_obstacle_and_said_to_be_meant() {
    let rule = Rule { action: RuleAction::Prohibit, to: "10.20.0.0/16".parse().ok(), ..at(57) };
    let report = plain(&with_rule(rule), "10.20.0.1");
    assert_eq!(report.reading.end, WayEnd::Refused);
    assert_eq!(report.obstacle.as_ref().map(|obstacle| obstacle.reason), Some(Reason::UnreachableRule));
    assert!(report.notes.iter().any(|note| note.starts_with("rule 57 is for some traffic only")), "{:?}", report.notes);
    // Behind it waits rule 220.
    assert_eq!(effect_of(&report, RemedyName::Root), Some(Effect::DoesNotCure));
}

#[test]
fn what_cannot_be_told_leaves_the_kernel_alone() {
    let report = explained(&with_rule(Rule { unknown_attributes: vec![99], ..at(50) }), &captured("10.20.0.1"));
    assert_eq!(report.agreement.state, AgreementState::KernelAlone);
    assert!(matches!(did(&report, 50), Did::CannotTell { why } if why.contains("99")));
    // The kernel's answer suffices for the verdict, and names the table, whose rule is known.
    assert_eq!(report.verdict, PacketVerdict::Wrong);
    assert_eq!(effect_of(&report, RemedyName::Root), Some(Effect::CannotTell));
}

#[test]
fn a_disagreement_is_said_and_the_kernel_holds() {
    let mut healthy = with_bgp();
    healthy.rules.retain(|rule| rule.priority != 220);
    let report = explained(&healthy, &captured("10.20.0.1"));
    assert_eq!(report.agreement.state, AgreementState::Differ);
    assert_eq!(report.verdict, PacketVerdict::Wrong);
    let answer = Answer { reply: Reply::Refused(101), entry: None, ..captured("10.20.0.1") };
    assert_eq!(explained(&with_bgp(), &answer).agreement.state, AgreementState::Differ);
}

#[test]
fn a_packet_that_the_kernel_does_not_accept_is_not_judged() {
    let question = Question {
        source: parsed("198.51.100.7").into(),
        input_interface: Some(2),
        ..Question::plain(parsed("10.20.0.1"))
    };
    let refused = Answer { question: question.clone(), reply: Reply::Refused(113), entry: None };
    let report = explained(&with_bgp(), &refused);
    assert_eq!(report.agreement.state, AgreementState::NotAccepted);
    assert!(report.agreement.text.contains("ens5 does not forward"), "{}", report.agreement.text);
    assert_eq!((report.verdict, report.outcome), (PacketVerdict::Unknown, Outcome::Unable));
}

#[test]
fn without_the_kernels_answer_nothing_is_judged() {
    let question = Question { ip_protocol: Some(50), ..Question::plain(parsed("10.20.0.1")) };
    let report = explained_or_not(&with_bgp(), &question, None);
    assert_eq!(report.agreement.state, AgreementState::ReadingAlone);
    assert_eq!((report.verdict, report.reading.devices), (PacketVerdict::Unknown, vec!["ens5".to_string()]));
}

#[test]
fn bound_to_the_tunnel_it_goes_right_and_the_hidden_fault_is_said() {
    let question = |oif| Question { output_interface: Some(oif), ..Question::plain(parsed("10.20.0.1")) };
    let bound = asked(&with_bgp(), question(4));
    assert_eq!(bound.verdict, PacketVerdict::Right);
    assert!(bound.notes.iter().any(|note| note.contains("because it is bound to vti1")), "{:?}", bound.notes);
    assert_eq!(asked(&with_bgp(), question(2)).verdict, PacketVerdict::NoTunnel);
}

#[test]
fn a_more_specific_route_of_main_takes_its_part_out_of_the_tunnels() {
    let mut snapshot = with_bgp();
    snapshot.routes.push(route(TABLE_MAIN, "10.20.5.0/24", 2));
    let report = plain(&snapshot, "10.20.5.1");
    assert_eq!(report.verdict, PacketVerdict::NoTunnel);
    assert!(report.notes.iter().any(|note| note.contains("10.20.5.0/24")), "{:?}", report.notes);
}

#[test]
fn a_default_route_through_the_tunnel_is_cured_at_the_root_alone() {
    let mut snapshot = with_bgp();
    for route in snapshot.routes.iter_mut().filter(|route| route.table == TABLE_MAIN) {
        if route.destination.prefix_len() == 0 {
            route.nexthops[0].ifindex = Some(4);
            route.nexthops[0].gateway = parsed("169.254.55.53").into();
        }
    }
    let report = explained(&snapshot, &captured("203.0.113.99"));
    assert_eq!(report.verdict, PacketVerdict::Wrong);
    assert_eq!(effect_of(&report, RemedyName::MainFirst), Some(Effect::DoesNotCure));
    assert_eq!(effect_of(&report, RemedyName::Prefix), None);
    assert_eq!(effect_of(&report, RemedyName::Root), Some(Effect::Cures));
    let left_out = report.plan.map(|plan| plan.left_out).unwrap_or_default();
    assert!(left_out.iter().any(|left| left.why.contains("cured by no rule")), "{left_out:?}");
}

#[test]
fn a_vrfs_tunnel_has_the_vrfs_packets_alone() {
    let mut snapshot = with_bgp();
    snapshot.links.push(crate::core::fixture::link(7, "blue", LinkKind::Vrf { table: 10 }));
    snapshot.links[2].master = Some(7);
    for route in &mut snapshot.routes {
        if route.table == TABLE_MAIN && route.leaves_by(4) {
            route.table = 10;
        }
    }
    let l3mdev = Rule { l3mdev: true, ..Rule::lookup(Family::V4, 1000, 0) };
    snapshot.rules.insert(2, l3mdev);
    let outside = plain(&snapshot, "10.20.0.1");
    assert_eq!(outside.verdict, PacketVerdict::NoTunnel);
    assert!(outside.notes.iter().any(|note| note.contains("packets of VRF blue (--oif blue)")), "{:?}", outside.notes);
    let bound = Question { output_interface: Some(7), ..Question::plain(parsed("10.20.0.1")) };
    let report = asked(&snapshot, bound);
    assert_eq!((report.verdict, deciding(&report)), (PacketVerdict::Wrong, Some(220)));
    let effects: Vec<_> = report.remedies.iter().map(|remedy| (remedy.remedy, remedy.effect)).collect();
    // The plan has an l3mdev rule for it, beside what the other tunnel needs.
    assert_eq!(effects, [(RemedyName::Plan, Effect::Cures), (RemedyName::Root, Effect::Cures)]);
}

#[test]
fn what_the_kernel_cannot_be_asked_is_refused_beforehand() {
    let snapshot = with_bgp();
    let fib = Fib::new(&snapshot);
    let with = |source: Option<&str>, iif| Question {
        source: source.map(parsed),
        input_interface: iif,
        ..Question::plain(parsed("10.20.0.1"))
    };
    assert!(check(&fib, &with(Some("169.254.55.54"), None)).is_ok());
    assert!(check(&fib, &with(Some("198.51.100.1"), Some(2))).is_ok());
    let foreign = check(&fib, &with(Some("198.51.100.1"), None));
    assert_eq!(foreign, Err(Unaskable::ForeignSource(parsed("198.51.100.1"))));
    assert_eq!(check(&fib, &with(None, Some(2))), Err(Unaskable::NoSource));
    assert!(matches!(check(&fib, &with(Some("fd00::1"), None)), Err(Unaskable::OtherFamily { .. })));
}
