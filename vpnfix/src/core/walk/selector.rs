//! Does a rule match a flow, and if not, why (`fib_rule_match`, `net/core/fib_rules.c`; `fib4_rule_match`,
//! `net/ipv4/fib_rules.c`; `fib6_rule_match`, `net/ipv6/fib6_rules.c`)?

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::fib::{Bound, Fib, is_vrf};
use super::{Doubt, Flow};
use crate::core::model::{Family, Rule};

/// The bits of a flow's type of service that an IPv4 rule's or route's `tos` is compared with (`IPTOS_RT_MASK`,
/// `include/net/route.h`).
const IPV4_TOS_BITS: u8 = 0x1c;
/// The bits of the byte that are the DSCP (RFC 2474).
const DSCP_BITS: u8 = 0xfc;

/// Does a rule match?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Yes.
    Yes,
    /// No, because of this.
    No(Mismatch),
    /// Not to be told.
    Unknown(Doubt),
}

/// The first selector, in the kernel's order, that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mismatch {
    /// Another input interface.
    InputInterface,
    /// The rule's input interface does not exist.
    InputInterfaceGone,
    /// Bound to another output interface, or to none.
    OutputInterface,
    /// The rule's output interface does not exist.
    OutputInterfaceGone,
    /// Another firewall mark.
    Mark,
    /// Came by another tunnel.
    TunnelId,
    /// Belongs to no VRF.
    L3mdev,
    /// Another user.
    User,
    /// Another destination.
    To,
    /// Another source.
    From,
    /// No source is chosen yet.
    NoSource,
    /// Another type of service.
    Tos,
    /// Another DSCP.
    Dscp,
    /// Another flow label.
    FlowLabel,
    /// Another IP protocol.
    Protocol,
    /// Another source port.
    SourcePort,
    /// Another destination port.
    DestinationPort,
    /// All selectors fit, and the rule says `not`.
    Inverted,
}

/// Does the rule match the flow?
pub(super) fn matches(fib: &Fib<'_>, rule: &Rule, flow: &Flow, bound: Bound) -> Match {
    if let Some(doubt) = doubt(fib, rule, flow, bound) {
        return Match::Unknown(doubt);
    }
    match (mismatch(fib, rule, flow, bound), rule.invert) {
        (None, false) | (Some(_), true) => Match::Yes,
        (Some(mismatch), false) => Match::No(mismatch),
        (None, true) => Match::No(Mismatch::Inverted),
    }
}

fn doubt(fib: &Fib<'_>, rule: &Rule, flow: &Flow, bound: Bound) -> Option<Doubt> {
    if !rule.unknown_attributes.is_empty() {
        return Some(Doubt::UnknownAttributes(rule.unknown_attributes.clone()));
    }
    if rule.find_source && rule.from.is_some() && flow.from.is_none() && flow.family() == Family::V6 {
        return Some(Doubt::FindSource);
    }
    // Whether a rule for a VRF device sees the flows of its ports has changed three times since 5.10.
    let names_vrf = |name: &Option<String>| {
        let link = name.as_ref().and_then(|name| fib.link_named(name)).filter(|link| is_vrf(link));
        link.is_some_and(|link| bound.vrf == Some(link.index) || flow.iif == link.index)
    };
    (names_vrf(&rule.iif) || names_vrf(&rule.oif)).then_some(Doubt::VrfSelector)
}

fn mismatch(fib: &Fib<'_>, rule: &Rule, flow: &Flow, bound: Bound) -> Option<Mismatch> {
    let device = |name: &Option<String>, detached: bool, index: Option<u32>, other: Mismatch, gone: Mismatch| {
        let name = name.as_ref()?;
        match fib.link_named(name).filter(|_| !detached) {
            None => Some(gone),
            Some(link) => (Some(link.index) != index).then_some(other),
        }
    };
    device(&rule.iif, rule.iif_detached, bound.input, Mismatch::InputInterface, Mismatch::InputInterfaceGone)
        .or_else(|| {
            let oif = bound.device;
            device(&rule.oif, rule.oif_detached, oif, Mismatch::OutputInterface, Mismatch::OutputInterfaceGone)
        })
        .or_else(|| general_mismatch(fib, rule, flow, bound))
        .or_else(|| family_mismatch(rule, flow))
}

/// What both families compare alike.
fn general_mismatch(fib: &Fib<'_>, rule: &Rule, flow: &Flow, bound: Bound) -> Option<Mismatch> {
    let differs = |differs: bool, mismatch: Mismatch| differs.then_some(mismatch);
    let other_mark = rule.mark.is_some_and(|mark| (mark.value ^ flow.mark) & mark.mask != 0);
    let other_user = rule.uid_range.is_some_and(|uids| !(uids.start..=uids.end).contains(&flow.uid));
    let no_vrf = rule.l3mdev && bound.vrf.and_then(|vrf| fib.vrf_table(vrf)).is_none();
    differs(other_mark, Mismatch::Mark)
        .or(differs(rule.tunnel_id.is_some_and(|id| id != flow.tunnel_id), Mismatch::TunnelId))
        .or(differs(no_vrf, Mismatch::L3mdev))
        .or(differs(other_user, Mismatch::User))
}

/// What the families compare each in their way.
fn family_mismatch(rule: &Rule, flow: &Flow) -> Option<Mismatch> {
    if rule.to.is_some_and(|to| !to.contains(&flow.to)) {
        return Some(Mismatch::To);
    }
    if let Some(mismatch) = rule.from.and_then(|from| source_mismatch(from, flow)) {
        return Some(mismatch);
    }
    let dscp = (flow.tos & DSCP_BITS) >> 2;
    let checks = [
        (rule.tos != 0 && !tos_fits(flow, rule.tos), Mismatch::Tos),
        (rule.dscp.is_some_and(|selector| (selector.value ^ dscp) & selector.mask != 0), Mismatch::Dscp),
        (rule.flow_label.is_some_and(|label| (label.value ^ flow.flow_label) & label.mask != 0), Mismatch::FlowLabel),
        (rule.ip_protocol.is_some_and(|protocol| protocol != flow.protocol), Mismatch::Protocol),
        (rule.source_ports.is_some_and(|ports| !ports.contains(flow.source_port)), Mismatch::SourcePort),
        (rule.destination_ports.is_some_and(|ports| !ports.contains(flow.destination_port)), Mismatch::DestinationPort),
    ];
    checks.into_iter().find_map(|(differs, mismatch)| differs.then_some(mismatch))
}

/// IPv4 compares 0.0.0.0 while no source is chosen, IPv6 then takes no rule with a source.
fn source_mismatch(from: IpNet, flow: &Flow) -> Option<Mismatch> {
    match flow.from {
        Some(source) => (!from.contains(&source)).then_some(Mismatch::From),
        None => match from {
            IpNet::V4(v4) if v4.contains(&Ipv4Addr::UNSPECIFIED) => None,
            _ => Some(Mismatch::NoSource),
        },
    }
}

/// Does a rule's or a route's type of service fit the flow's?
pub(super) fn tos_fits(flow: &Flow, tos: u8) -> bool {
    match flow.to {
        IpAddr::V4(_) => tos == flow.tos & IPV4_TOS_BITS,
        IpAddr::V6(_) => tos & DSCP_BITS == flow.tos & DSCP_BITS,
    }
}
