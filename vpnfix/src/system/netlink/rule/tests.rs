use netlink_packet_core::Emitable;

use super::*;
use crate::core::model::{Dscp, Family, FlowLabel};

fn body(rule: &Rule) -> Vec<u8> {
    let message = message(rule);
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn full() -> Rule {
    let mut rule = Rule::lookup(Family::V4, 150, 5000);
    rule.invert = true;
    rule.from = Some("192.0.2.0/24".parse().unwrap());
    rule.to = Some("169.254.55.52/30".parse().unwrap());
    rule.iif = Some("lan0".into());
    rule.oif = Some("Tunnel1".into());
    rule.mark = Some(Mark { value: 0x10, mask: 0xff });
    rule.tos = 0x10;
    rule.uid_range = Some(UidRange { start: 100, end: 200 });
    rule.ip_protocol = Some(6);
    rule.source_ports = Some(Ports::Range { start: 1, end: 9 });
    rule.destination_ports = Some(Ports::one(179));
    rule.tunnel_id = Some(77);
    rule.suppress_prefix_length = Some(0);
    rule.suppress_ifgroup = Some(5);
    rule.protocol = 118;
    rule
}

#[test]
fn what_is_sent_decodes_to_the_same_rule() {
    let mut others = vec![full(), Rule::lookup(Family::V6, 220, 220)];
    for action in [RuleAction::Goto(500), RuleAction::Nop, RuleAction::Blackhole, RuleAction::Unreachable] {
        others.push(Rule { action, ..Rule::lookup(Family::V4, 10, 0) });
    }
    others.push(Rule { l3mdev: true, ..Rule::lookup(Family::V4, 1000, 0) });
    for original in others {
        assert_eq!(rule(&body(&original)), Ok(Some(original)));
    }
}

#[test]
fn what_newer_kernels_select_by_is_sent_and_decoded() {
    let dscp = |value, mask| Some(Dscp { value, mask });
    let label = Some(FlowLabel { value: 0x12340, mask: 0xffff0 });
    let masked = Some(Ports::Masked { value: 0x1200, mask: 0xff00 });
    let plain = Rule::lookup(Family::V6, 5, 254);
    for original in [
        Rule { dscp: dscp(46, 0x3f), ..plain.clone() },
        Rule { dscp: dscp(40, 0x38), flow_label: label, ..plain.clone() },
        Rule { source_ports: masked, destination_ports: Some(Ports::one(53)), ..plain.clone() },
        Rule { destination_ports: masked, find_source: true, ..plain.clone() },
    ] {
        assert_eq!(rule(&body(&original)), Ok(Some(original)));
    }
    // The kernel's own words for a flow label: network byte order.
    let label = [8, 0, 26, 0, 0, 1, 0x23, 0x40, 8, 0, 27, 0, 0, 0x0f, 0xff, 0xff];
    let bytes = [body(&plain), label.to_vec()].concat();
    let expected = Some(FlowLabel { value: 0x12340, mask: 0xfffff });
    assert_eq!(rule(&bytes).unwrap().unwrap().flow_label, expected);
}

#[test]
fn unset_suppression_is_absent_and_unknown_attributes_are_told() {
    let mut bytes = body(&Rule::lookup(Family::V4, 32766, 254));
    bytes.extend_from_slice(&[8, 0, 14, 0, 0xff, 0xff, 0xff, 0xff]); // FRA_SUPPRESS_PREFIXLEN -1
    bytes.extend_from_slice(&[6, 0, 28, 0, 0xff, 0xff, 0, 0]); // FRA_SPORT_MASK, full
    bytes.extend_from_slice(&[6, 0, 29, 0, 0xff, 0xf0, 0, 0]); // FRA_DPORT_MASK without a port
    bytes.extend_from_slice(&[5, 0, 30, 0, 8, 0, 0, 0]); // FRA_DSCP_MASK without a DSCP
    bytes.extend_from_slice(&[6, 0, 25, 0, 46, 0, 0, 0]); // FRA_DSCP, too long
    bytes.extend_from_slice(&[8, 0, 31, 0, 1, 0, 0, 0]); // a later kernel's
    let rule = rule(&bytes).unwrap().unwrap();
    assert_eq!(rule.suppress_prefix_length, None);
    assert_eq!(rule.unknown_attributes, [25, 31, 30, 29]);
}

#[test]
fn a_mask_alone_is_a_mark_of_zero() {
    let mut bytes = body(&Rule::lookup(Family::V4, 5, 254));
    bytes.extend_from_slice(&[8, 0, 16, 0, 0xff, 0, 0, 0]);
    assert_eq!(rule(&bytes).unwrap().unwrap().mark, Some(Mark { value: 0, mask: 0xff }));
}

#[test]
fn deletion_is_refused_where_a_wider_request_would_take_another() {
    let plain = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
    let narrow = Rule { to: Some("10.0.0.0/8".parse().unwrap()), ..plain.clone() };
    assert_eq!(check_deletion(&[plain.clone(), narrow.clone()], &plain), Ok(()));
    assert_eq!(check_deletion(&[plain.clone(), narrow.clone()], &narrow), Ok(()));
    let another = check_deletion(&[narrow.clone(), plain.clone()], &plain);
    assert_eq!(another, Err(NotExact::Another(Box::new(narrow.clone()))));
    assert_eq!(check_deletion(&[narrow], &plain), Err(NotExact::Missing));
    let inverted = Rule { invert: true, ..plain.clone() };
    assert_eq!(check_deletion(&[inverted.clone(), plain.clone()], &plain), Err(NotExact::Another(Box::new(inverted))));
}

#[test]
fn a_rule_of_unspecified_protocol_does_not_take_ours() {
    let ours = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
    let theirs = Rule { protocol: 0, ..ours.clone() };
    assert_eq!(check_deletion(&[theirs.clone(), ours.clone()], &ours), Ok(()));
    assert_eq!(check_deletion(&[ours.clone(), theirs.clone()], &theirs), Err(NotExact::Another(Box::new(ours))));
}

#[test]
fn a_request_for_a_whole_dscp_would_take_a_masked_one() {
    let plain = Rule::lookup(Family::V4, 100, 254);
    let whole = Rule { dscp: Some(Dscp { value: 8, mask: 0x3f }), ..plain.clone() };
    let masked = Rule { dscp: Some(Dscp { value: 8, mask: 0x38 }), ..plain.clone() };
    let taken = check_deletion(&[masked.clone(), whole.clone()], &whole);
    assert_eq!(taken, Err(NotExact::Another(Box::new(masked.clone()))));
    assert_eq!(check_deletion(&[whole.clone(), masked.clone()], &masked), Ok(()));
    assert_eq!(check_deletion(&[plain, whole.clone()], &whole), Ok(()));
}

#[test]
fn cut_messages_do_not_panic() {
    let mut rule_of_all = full();
    rule_of_all.dscp = Some(Dscp { value: 8, mask: 0x38 });
    rule_of_all.flow_label = Some(FlowLabel { value: 1, mask: 0xff });
    rule_of_all.destination_ports = Some(Ports::Masked { value: 0x10, mask: 0xf0 });
    let bytes = body(&rule_of_all);
    for length in 0..bytes.len() {
        let _either = rule(&bytes[..length]);
    }
}
