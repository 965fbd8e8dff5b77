//! Rules to and from the kernel's form (`include/uapi/linux/fib_rules.h`, `net/core/fib_rules.c`).

use ipnet::IpNet;
use netlink_packet_core::{NlaBuffer, NlasIterator, Parseable};
use netlink_packet_route::{
    AddressFamily, IpProtocol,
    route::RouteProtocol,
    rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleHeader, RuleMessage, RulePortRange, RuleUidRange},
};

use super::attribute::{family_of, prefix};
use super::channel::{Decoded, Malformed};
use crate::core::model::{Family, Mark, Ports, Rule, RuleAction, UidRange};

const HEADER_BYTES: usize = 12;
/// Filler, without meaning.
const FRA_PAD: u16 = 18;
/// Masks of the ports, since Linux 6.15.
const FRA_SPORT_MASK: u16 = 28;
const FRA_DPORT_MASK: u16 = 29;
/// What the kernel keeps for "not set" (-1).
const UNSET: u32 = u32::MAX;
/// Stands in the header for a table number that does not fit (`RT_TABLE_COMPAT`).
const TABLE_COMPAT: u8 = 252;

/// One rule. `None` for families that vpnfix has nothing to do with.
pub(super) fn rule(payload: &[u8]) -> Decoded<Rule> {
    let header = RuleHeader::parse(payload)?;
    let Some(family) = family_of(header.family.into()) else { return Ok(None) };
    let mut rule = Rule::lookup(family, 0, header.table.into());
    rule.invert = header.flags.contains(RuleFlags::Invert);
    rule.iif_detached = header.flags.contains(RuleFlags::IifDetached);
    rule.oif_detached = header.flags.contains(RuleFlags::OifDetached);
    rule.tos = header.tos;
    let mut goto = 0;
    let mut table = u32::from(header.table);
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        match parse(&attribute) {
            Some(RuleAttribute::Table(number)) => table = number,
            Some(RuleAttribute::Goto(priority)) => goto = priority,
            Some(RuleAttribute::Source(address)) => rule.from = selector(address, header.src_len)?,
            Some(RuleAttribute::Destination(address)) => rule.to = selector(address, header.dst_len)?,
            Some(known) if set(&mut rule, &known) => {}
            _ if is_neutral(&attribute) => {}
            _ => rule.unknown_attributes.push(attribute.kind()),
        }
    }
    rule.action = action(header.action, table, goto);
    Ok(Some(rule))
}

/// The attribute's meaning; `None` where this version cannot read it, an interface name that is not UTF-8 included.
fn parse(attribute: &NlaBuffer<&[u8]>) -> Option<RuleAttribute> {
    RuleAttribute::parse(attribute).ok()
}

/// Has it no bearing on what the rule matches or does? An exact port has a full mask since Linux 6.15.
fn is_neutral(attribute: &NlaBuffer<&[u8]>) -> bool {
    match attribute.kind() {
        FRA_PAD => true,
        FRA_SPORT_MASK | FRA_DPORT_MASK => attribute.value() == [0xff, 0xff],
        _ => false,
    }
}

fn selector(address: std::net::IpAddr, length: u8) -> Result<Option<IpNet>, Malformed> {
    if length == 0 { Ok(None) } else { prefix(address, length, "rule selector").map(Some) }
}

/// Enters an attribute that has a field of its own. Says whether it knew it.
fn set(rule: &mut Rule, attribute: &RuleAttribute) -> bool {
    let present = |value: u32| Some(value).filter(|value| *value != UNSET);
    match attribute {
        RuleAttribute::Priority(priority) => rule.priority = *priority,
        RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
        RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
        RuleAttribute::FwMark(value) => rule.mark.get_or_insert(Mark { value: 0, mask: u32::MAX }).value = *value,
        RuleAttribute::FwMask(mask) => rule.mark.get_or_insert(Mark { value: 0, mask: u32::MAX }).mask = *mask,
        RuleAttribute::UidRange(range) => rule.uid_range = Some(UidRange { start: range.start, end: range.end }),
        RuleAttribute::IpProtocol(protocol) => {
            rule.ip_protocol = Some(u8::from(*protocol)).filter(|number| *number != 0)
        }
        RuleAttribute::SourcePortRange(range) => rule.source_ports = Some(ports(*range)),
        RuleAttribute::DestinationPortRange(range) => rule.destination_ports = Some(ports(*range)),
        RuleAttribute::L3MDev(on) => rule.l3mdev = *on,
        RuleAttribute::TunId(id) => rule.tunnel_id = Some(*id).filter(|id| *id != 0),
        RuleAttribute::SuppressPrefixLen(length) => rule.suppress_prefix_length = present(*length),
        RuleAttribute::SuppressIfGroup(group) => rule.suppress_ifgroup = present(*group),
        RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(*protocol),
        // Realms are counted by, never routed by.
        RuleAttribute::Realm(_) => {}
        _ => return false,
    }
    true
}

fn ports(range: RulePortRange) -> Ports {
    Ports::Range { start: range.start, end: range.end }
}

fn action(action: Action, table: u32, goto: u32) -> RuleAction {
    match action {
        Action::ToTable => RuleAction::Lookup(table),
        Action::Goto => RuleAction::Goto(goto),
        Action::Nop => RuleAction::Nop,
        Action::Blackhole => RuleAction::Blackhole,
        Action::Unreachable => RuleAction::Unreachable,
        Action::Prohibit => RuleAction::Prohibit,
        other => RuleAction::Other(other.into()),
    }
}

/// The rule as the message of `RTM_NEWRULE` and `RTM_DELRULE`, with all that it says and nothing left to the kernel.
pub(super) fn message(rule: &Rule) -> RuleMessage {
    let table = if rule.l3mdev { 0 } else { rule.table().unwrap_or(0) };
    let mut flags = RuleFlags::empty();
    flags.set(RuleFlags::Invert, rule.invert);
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: match rule.family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        },
        dst_len: rule.to.map_or(0, |prefix| prefix.prefix_len()),
        src_len: rule.from.map_or(0, |prefix| prefix.prefix_len()),
        tos: rule.tos,
        table: u8::try_from(table).unwrap_or(TABLE_COMPAT),
        action: kernel_action(rule.action),
        flags,
    };
    message.attributes = attributes(rule, table);
    message
}

fn kernel_action(action: RuleAction) -> Action {
    match action {
        RuleAction::Lookup(_) => Action::ToTable,
        RuleAction::Goto(_) => Action::Goto,
        RuleAction::Nop => Action::Nop,
        RuleAction::Blackhole => Action::Blackhole,
        RuleAction::Unreachable => Action::Unreachable,
        RuleAction::Prohibit => Action::Prohibit,
        RuleAction::Other(number) => number.into(),
    }
}

fn attributes(rule: &Rule, table: u32) -> Vec<RuleAttribute> {
    let range = |ports: Ports| match ports {
        Ports::Range { start, end } => RulePortRange { start, end },
        Ports::Masked { value, .. } => RulePortRange { start: value, end: value },
    };
    let mut list = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)),
        RuleAttribute::Table(table),
    ];
    list.extend(rule.to.filter(|to| to.prefix_len() > 0).map(|to| RuleAttribute::Destination(to.addr())));
    list.extend(rule.from.filter(|from| from.prefix_len() > 0).map(|from| RuleAttribute::Source(from.addr())));
    list.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    list.extend(rule.oif.clone().map(RuleAttribute::Oifname));
    if let Some(mark) = rule.mark {
        list.extend([RuleAttribute::FwMark(mark.value), RuleAttribute::FwMask(mark.mask)]);
    }
    list.extend(rule.uid_range.map(|uids| RuleAttribute::UidRange(RuleUidRange { start: uids.start, end: uids.end })));
    list.extend(rule.ip_protocol.map(|number| RuleAttribute::IpProtocol(IpProtocol::from(i32::from(number)))));
    list.extend(rule.source_ports.map(|ports| RuleAttribute::SourcePortRange(range(ports))));
    list.extend(rule.destination_ports.map(|ports| RuleAttribute::DestinationPortRange(range(ports))));
    list.extend(rule.tunnel_id.map(RuleAttribute::TunId));
    list.extend(rule.suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
    list.extend(rule.suppress_ifgroup.map(RuleAttribute::SuppressIfGroup));
    if rule.l3mdev {
        list.push(RuleAttribute::L3MDev(true));
    }
    if let RuleAction::Goto(priority) = rule.action {
        list.push(RuleAttribute::Goto(priority));
    }
    list
}

/// Why the kernel would not delete exactly this rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotExact {
    /// It is not there.
    Missing,
    /// This one stands before it and would go in its stead.
    Another(Box<Rule>),
}

/// Checks that a delete request made of `rule` would take that rule and no other: the kernel deletes the first rule that
/// equals the request in the fields that the request has (`rule_find`), and a missing selector cannot be asked for.
pub(super) fn check_deletion(rules: &[Rule], rule: &Rule) -> Result<(), NotExact> {
    let same = |other: &Rule| attached(other) == attached(rule);
    if !rules.iter().any(same) {
        return Err(NotExact::Missing);
    }
    match rules.iter().find(|candidate| kernel_would_delete(rule, candidate)) {
        Some(first) if same(first) => Ok(()),
        Some(first) => Err(NotExact::Another(Box::new(first.clone()))),
        None => Err(NotExact::Missing),
    }
}

/// The rule that the kernel takes for the same as `rule` when that is to be added, although it is another; `None` if
/// exactly this rule is there.
pub(super) fn collision<'a>(rules: &'a [Rule], rule: &Rule) -> Option<&'a Rule> {
    if rules.iter().any(|other| attached(other) == attached(rule)) {
        return None;
    }
    rules.iter().find(|candidate| kernel_would_delete(rule, candidate))
}

/// Whether its interfaces exist just now is no part of what a rule is.
fn attached(rule: &Rule) -> Rule {
    Rule { iif_detached: false, oif_detached: false, ..rule.clone() }
}

/// `rule_find` of `net/core/fib_rules.c` and the families' `compare`: what the request leaves out, or gives as 0, matches
/// anything; inversion and the target of a goto are not looked at.
fn kernel_would_delete(request: &Rule, candidate: &Rule) -> bool {
    fn asked<T: PartialEq>(request: &Option<T>, candidate: &Option<T>) -> bool {
        request.is_none() || request == candidate
    }
    let number = |request: u32, candidate: u32| request == 0 || request == candidate;
    let mark = |rule: &Rule| rule.mark.map_or((0, 0), |mark| (mark.value, mark.mask));
    request.family == candidate.family
        && kernel_action(request.action) == kernel_action(candidate.action)
        && number(request.table().unwrap_or(0), candidate.table().unwrap_or(0))
        && request.priority == candidate.priority
        && asked(&request.iif, &candidate.iif)
        && asked(&request.oif, &candidate.oif)
        && number(mark(request).0, mark(candidate).0)
        && number(mark(request).1, mark(candidate).1)
        && asked(&request.suppress_ifgroup, &candidate.suppress_ifgroup)
        && asked(&request.suppress_prefix_length, &candidate.suppress_prefix_length)
        && asked(&request.tunnel_id, &candidate.tunnel_id)
        && (!request.l3mdev || candidate.l3mdev)
        && asked(&request.uid_range, &candidate.uid_range)
        && asked(&request.ip_protocol, &candidate.ip_protocol)
        && number(request.protocol.into(), candidate.protocol.into())
        && asked(&request.source_ports, &candidate.source_ports)
        && asked(&request.destination_ports, &candidate.destination_ports)
        && asked(&request.from, &candidate.from)
        && asked(&request.to, &candidate.to)
        && number(request.tos.into(), candidate.tos.into())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

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
    fn unset_suppression_is_absent_and_unknown_attributes_are_told() {
        let mut bytes = body(&Rule::lookup(Family::V4, 32766, 254));
        bytes.extend_from_slice(&[8, 0, 14, 0, 0xff, 0xff, 0xff, 0xff]); // FRA_SUPPRESS_PREFIXLEN -1
        bytes.extend_from_slice(&[6, 0, 28, 0, 0xff, 0xff, 0, 0]); // FRA_SPORT_MASK, full
        bytes.extend_from_slice(&[6, 0, 29, 0, 0xff, 0xf0, 0, 0]); // FRA_DPORT_MASK, not full
        bytes.extend_from_slice(&[5, 0, 25, 0, 46, 0, 0, 0]); // FRA_DSCP
        let rule = rule(&bytes).unwrap().unwrap();
        assert_eq!(rule.suppress_prefix_length, None);
        assert_eq!(rule.unknown_attributes, [29, 25]);
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
        assert_eq!(
            check_deletion(&[inverted.clone(), plain.clone()], &plain),
            Err(NotExact::Another(Box::new(inverted)))
        );
    }

    #[test]
    fn a_rule_of_unspecified_protocol_does_not_take_ours() {
        let ours = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
        let theirs = Rule { protocol: 0, ..ours.clone() };
        assert_eq!(check_deletion(&[theirs.clone(), ours.clone()], &ours), Ok(()));
        assert_eq!(check_deletion(&[ours.clone(), theirs.clone()], &theirs), Err(NotExact::Another(Box::new(ours))));
    }

    #[test]
    fn cut_messages_do_not_panic() {
        let bytes = body(&full());
        for length in 0..bytes.len() {
            let _either = rule(&bytes[..length]);
        }
    }
}
