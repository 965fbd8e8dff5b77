//! The message that adds or deletes a rule.

use netlink_packet_route::{
    AddressFamily, IpProtocol,
    route::RouteProtocol,
    rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleHeader, RuleMessage, RulePortRange, RuleUidRange},
};

use super::FIND_SADDR;
use super::masked;
use crate::core::model::{Family, Ports, Rule, RuleAction};

/// Stands in the header for a table number that does not fit (`RT_TABLE_COMPAT`).
const TABLE_COMPAT: u8 = 252;

/// The rule as the message of `RTM_NEWRULE` and `RTM_DELRULE`, with all that it says and nothing left to the kernel.
pub(in super::super) fn message(rule: &Rule) -> RuleMessage {
    let table = if rule.l3mdev { 0 } else { rule.table().unwrap_or(0) };
    let mut flags = RuleFlags::empty();
    flags.set(RuleFlags::Invert, rule.invert);
    flags.set(RuleFlags::from_bits_retain(FIND_SADDR), rule.find_source);
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

pub(super) fn kernel_action(action: RuleAction) -> Action {
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
    list.extend(masked::attributes(rule));
    if rule.l3mdev {
        list.push(RuleAttribute::L3MDev(true));
    }
    if let RuleAction::Goto(priority) = rule.action {
        list.push(RuleAttribute::Goto(priority));
    }
    list
}
