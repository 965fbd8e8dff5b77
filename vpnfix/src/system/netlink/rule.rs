//! Rules to and from the kernel's form (`include/uapi/linux/fib_rules.h`, `net/core/fib_rules.c`): decoding here, the
//! message for changes in `message`, and in `identity` which rule the kernel takes a message to mean.

mod identity;
mod masked;
mod message;

use ipnet::IpNet;
use netlink_packet_core::{NlaBuffer, NlasIterator, Parseable};
use netlink_packet_route::rule::{RuleAction as Action, RuleAttribute, RuleFlags, RuleHeader, RulePortRange};

use self::masked::Masked;
use super::attribute::{family_of, prefix};
use super::channel::{Decoded, Malformed};
use crate::core::model::{Mark, Ports, Rule, RuleAction, UidRange};

pub(super) use self::identity::{NotExact, check_deletion, collision};
pub(super) use self::message::message;

const HEADER_BYTES: usize = 12;
/// Filler, without meaning.
const FRA_PAD: u16 = 18;
/// What the kernel keeps for "not set" (-1).
const UNSET: u32 = u32::MAX;
/// `FIB_RULE_FIND_SADDR`, a flag that the crate has no name for.
const FIND_SADDR: u32 = 0x0001_0000;

/// One rule. `None` for families that vpnfix has nothing to do with.
pub(super) fn rule(payload: &[u8]) -> Decoded<Rule> {
    let header = RuleHeader::parse(payload)?;
    let Some(family) = family_of(header.family.into()) else { return Ok(None) };
    let mut rule = Rule::lookup(family, 0, header.table.into());
    rule.invert = header.flags.contains(RuleFlags::Invert);
    rule.iif_detached = header.flags.contains(RuleFlags::IifDetached);
    rule.oif_detached = header.flags.contains(RuleFlags::OifDetached);
    rule.find_source = header.flags.bits() & FIND_SADDR != 0;
    rule.tos = header.tos;
    let mut goto = 0;
    let mut table = u32::from(header.table);
    let mut masked = Masked::default();
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        match parse(&attribute) {
            Some(RuleAttribute::Table(number)) => table = number,
            Some(RuleAttribute::Goto(priority)) => goto = priority,
            Some(RuleAttribute::Source(address)) => rule.from = selector(address, header.src_len)?,
            Some(RuleAttribute::Destination(address)) => rule.to = selector(address, header.dst_len)?,
            Some(known) if set(&mut rule, &known) => {}
            _ if attribute.kind() == FRA_PAD || masked.take(&attribute) => {}
            _ => rule.unknown_attributes.push(attribute.kind()),
        }
    }
    masked.enter(&mut rule);
    rule.action = action(header.action, table, goto);
    Ok(Some(rule))
}

/// The attribute's meaning; `None` where this version cannot read it, an interface name that is not UTF-8 included.
fn parse(attribute: &NlaBuffer<&[u8]>) -> Option<RuleAttribute> {
    RuleAttribute::parse(attribute).ok()
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

#[cfg(test)]
mod tests;
