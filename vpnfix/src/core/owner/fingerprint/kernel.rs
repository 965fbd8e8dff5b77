//! The kernel's own rules and routes, and vpnfix's.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::{LinkKind, RouteKind, TABLE_LOCAL, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;

/// `RTPROT_KERNEL` (`include/uapi/linux/rtnetlink.h`).
pub(super) const KERNEL: u8 = 2;
/// The priority of the rule that the first VRF of a namespace brings (`FIB_RULE_PREF` in `drivers/net/vrf.c`).
const VRF_PRIORITY: u32 = 1000;

pub(super) fn vpnfix_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let own = format!("the rule's protocol is {VPNFIX_PROTOCOL}");
    (rule.protocol == VPNFIX_PROTOCOL).then(|| Candidate::of(Program::Vpnfix).with(Kind::Own, own))
}

pub(super) fn vpnfix_route(_: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let own = format!("the route's protocol is {VPNFIX_PROTOCOL}");
    (route.protocol == VPNFIX_PROTOCOL).then(|| Candidate::of(Program::Vpnfix).with(Kind::Own, own))
}

/// The rules that every namespace starts with. Who deletes one and adds it again by hand adds it without a protocol.
pub(super) fn default_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let every = "every namespace starts with this rule";
    rule.is_kernel_default().then(|| match rule.protocol {
        KERNEL => Candidate::of(Program::Kernel).with(Kind::Own, every),
        _ => Candidate::of(Program::Kernel)
            .with(Kind::Shape, every)
            .with(Kind::Number, format!("priority {} is the kernel's for it", rule.priority)),
    })
}

pub(super) fn vrf_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let asks = "the rule asks the table of the VRF that a flow belongs to";
    let first = "the first VRF of a namespace brings this rule at priority 1000";
    rule.l3mdev.then(|| {
        let candidate = Candidate::of(Program::Vrf).with(Kind::Shape, asks);
        let candidate = candidate.with_if(rule.priority == VRF_PRIORITY, Kind::Number, first);
        candidate.with_if(rule.protocol == KERNEL, Kind::Own, "the rule's protocol is kernel")
    })
}

/// What the kernel adds with an address or for a VRF. Others set its protocol, too, in tables of their own: networkd
/// leaves what bears it alone.
pub(super) fn kernel_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let of_vrf = seen.link(|link| link.kind == LinkKind::Vrf { table: route.table }).is_some();
    let own_table = matches!(route.table, TABLE_LOCAL | TABLE_MAIN) || of_vrf;
    let direct = route.nexthops.iter().all(|nexthop| nexthop.gateway.is_none());
    let delivered = matches!(route.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast);
    match route.protocol {
        KERNEL if own_table && (direct || delivered) => {
            let own = "the kernel adds such a route itself, with an address or an interface";
            Some(Candidate::of(Program::Kernel).with(Kind::Own, own))
        }
        // `RTPROT_RA`. Network managers that take router advertisements over set it as well.
        9 => Some(Candidate::of(Program::Kernel).with(Kind::Number, "the route came with a router advertisement")),
        _ => None,
    }
}
