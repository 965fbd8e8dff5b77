use super::*;
use crate::core::model::{Dscp, FlowLabel, Mark, Ports, Question, UidRange};

/// Does this rule match this flow, and if not, why?
fn verdict(rule: &Rule, flow: &Flow) -> Match {
    let snapshot = host(Vec::new(), Vec::new());
    matches(&Fib::new(&snapshot), rule, flow)
}

/// A rule that matches one flow and not another, for this reason; and the other way round with `not`.
fn tells(rule: &Rule, yes: &Flow, no: &Flow, why: Mismatch) {
    assert_eq!(verdict(rule, yes), Match::Yes, "{rule}");
    assert_eq!(verdict(rule, no), Match::No(why), "{rule}");
    let inverted = Rule { invert: true, ..rule.clone() };
    assert_eq!(verdict(&inverted, yes), Match::No(Mismatch::Inverted), "{rule}");
    assert_eq!(verdict(&inverted, no), Match::Yes, "{rule}");
}

fn v4() -> Flow {
    flow("10.0.0.1")
}

fn v6() -> Flow {
    flow("fd00::1")
}

#[test]
fn each_selector_tells_one_flow_from_another() {
    let rule = Rule::lookup(Family::V4, 5, 220);
    let from = |address: &str| Flow { from: address.parse().ok(), ..v4() };
    let prefix = |text: &str| text.parse().ok();
    let pick = |change: fn(&mut Flow)| {
        let mut flow = v4();
        change(&mut flow);
        flow
    };
    tells(&Rule { to: prefix("10.0.0.0/8"), ..rule.clone() }, &v4(), &flow("11.0.0.1"), Mismatch::To);
    tells(&Rule { from: prefix("10.1.0.0/16"), ..rule.clone() }, &from("10.1.2.3"), &from("10.2.0.1"), Mismatch::From);
    tells(&Rule { iif: Some("d2".into()), ..rule.clone() }, &pick(|f| f.iif = 2), &v4(), Mismatch::InputInterface);
    tells(&Rule { iif: Some("lo".into()), ..rule.clone() }, &v4(), &pick(|f| f.iif = 2), Mismatch::InputInterface);
    let bound = pick(|flow| flow.oif = Some(2));
    tells(&Rule { oif: Some("d2".into()), ..rule.clone() }, &bound, &v4(), Mismatch::OutputInterface);
    let mark = Some(Mark { value: 0x10, mask: 0xf0 });
    tells(&Rule { mark, ..rule.clone() }, &pick(|f| f.mark = 0x1f), &pick(|f| f.mark = 0x20), Mismatch::Mark);
    let users = Some(UidRange { start: 100, end: 200 });
    tells(&Rule { uid_range: users, ..rule.clone() }, &pick(|f| f.uid = 200), &pick(|f| f.uid = 201), Mismatch::User);
    tells(&Rule { ip_protocol: Some(6), ..rule.clone() }, &pick(|f| f.protocol = 6), &v4(), Mismatch::Protocol);
    let ports = Some(Ports::Range { start: 1, end: 179 });
    let to_port = pick(|flow| flow.destination_port = 179);
    tells(&Rule { destination_ports: ports, ..rule.clone() }, &to_port, &v4(), Mismatch::DestinationPort);
    let masked = Some(Ports::Masked { value: 0x1200, mask: 0xff00 });
    let from_port = pick(|flow| flow.source_port = 0x12ff);
    tells(&Rule { source_ports: masked, ..rule.clone() }, &from_port, &to_port, Mismatch::SourcePort);
    assert_eq!(verdict(&Rule { tunnel_id: Some(7), ..rule }, &v4()), Match::No(Mismatch::TunnelId));
}

#[test]
fn a_device_that_is_gone_matches_nothing() {
    let rule = Rule::lookup(Family::V4, 5, 220);
    let iif = Rule { iif: Some("gone".into()), ..rule.clone() };
    assert_eq!(verdict(&iif, &v4()), Match::No(Mismatch::InputInterfaceGone));
    let oif = Rule { oif: Some("d2".into()), oif_detached: true, ..rule };
    assert_eq!(verdict(&oif, &Flow { oif: Some(2), ..v4() }), Match::No(Mismatch::OutputInterfaceGone));
}

#[test]
fn ipv4_compares_three_bits_of_a_tos_and_ipv6_six() {
    let tos = |family, tos| Rule { tos, ..Rule::lookup(family, 5, 220) };
    let with = |flow: Flow, tos| Flow { tos, ..flow };
    tells(&tos(Family::V4, 0x10), &with(v4(), 0xf0), &with(v4(), 0x08), Mismatch::Tos);
    tells(&tos(Family::V6, 0x10), &with(v6(), 0x13), &with(v6(), 0xf0), Mismatch::Tos);
    let dscp = |value, mask| Rule { dscp: Some(Dscp { value, mask }), ..Rule::lookup(Family::V4, 5, 220) };
    tells(&dscp(46, 0x3f), &with(v4(), 0xb8), &with(v4(), 0x18), Mismatch::Dscp);
    tells(&dscp(40, 0x38), &with(v4(), 0xb8), &with(v4(), 0x18), Mismatch::Dscp);
}

#[test]
fn a_flow_label_is_compared_under_its_mask() {
    let flow_label = Some(FlowLabel { value: 0x12300, mask: 0xfff00 });
    let rule = Rule { flow_label, ..Rule::lookup(Family::V6, 5, 220) };
    tells(&rule, &Flow { flow_label: 0x123ab, ..v6() }, &Flow { flow_label: 0x12400, ..v6() }, Mismatch::FlowLabel);
}

#[test]
fn without_a_source_ipv4_compares_zero_and_ipv6_nothing() {
    let zero = Rule { from: "0.0.0.0/8".parse().ok(), ..Rule::lookup(Family::V4, 5, 220) };
    assert_eq!(verdict(&zero, &v4()), Match::Yes);
    let unspecified = Rule { from: "::/8".parse().ok(), ..Rule::lookup(Family::V6, 5, 220) };
    assert_eq!(verdict(&unspecified, &v6()), Match::No(Mismatch::NoSource));
    let finds = Rule { find_source: true, ..unspecified };
    assert_eq!(verdict(&finds, &v6()), Match::Unknown(Doubt::FindSource));
    let chosen = Flow { from: "fd00::9".parse().ok(), ..v6() };
    assert_eq!(verdict(&finds, &chosen), Match::No(Mismatch::From));
}

#[test]
fn what_a_question_leaves_out_is_filled_in_as_the_kernel_does() {
    let ask = |to: &str| Question::plain(to.parse().expect("an address"));
    assert_eq!((Flow::from(&ask("10.0.0.1")).protocol, Flow::from(&ask("fd00::1")).protocol), (17, 0));
    let input = |to, uid| Flow::from(&Question { input_interface: Some(2), uid, ..ask(to) }).uid;
    assert_eq!((input("10.0.0.1", Some(7)), input("fd00::1", None), input("fd00::1", Some(7))), (0, u32::MAX, 7));
    let icmp = Question { input_interface: Some(2), ip_protocol: Some(1), source_port: Some(5), ..ask("10.0.0.1") };
    assert_eq!(Flow::from(&icmp).source_port, 0);
    assert_eq!(Flow::from(&Question { input_interface: None, ..icmp }).source_port, 5);
}
