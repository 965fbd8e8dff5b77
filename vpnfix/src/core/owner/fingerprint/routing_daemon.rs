//! Routing daemons. They bear protocol numbers of their own.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::route::protocol_name;

/// Zebra's own number, which its rules bear (`rule_netlink.c`) and Quagga's routes.
const ZEBRA: u8 = 11;
/// From BGP to SR-TE: FRR's numbers (`zebra/rt_netlink.h`), EIGRP's among them.
const FRR: std::ops::RangeInclusive<u8> = 186..=198;
const BIRD: u8 = 12;
const KEEPALIVED: u8 = 18;
/// Babel: of FRR's babeld, and of the babeld that stands alone.
const BABEL: u8 = 42;

/// pbrd's rules, which zebra installs; it counts rules from 300 and tables from 10000 (`pbr_nht.h`).
pub(super) fn frr_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let own = "the rule's protocol is zebra";
    let pbr = (300..=1300).contains(&rule.priority) && rule.table().is_some_and(|table| table >= 10_000);
    let candidate = Candidate::of(Program::Frr);
    match (rule.protocol, pbr) {
        (ZEBRA, _) => Some(candidate.with(Kind::Own, own)),
        (_, true) => Some(candidate.with(Kind::Number, "priority and table are in the ranges of pbrd")),
        (_, false) => None,
    }
}

pub(super) fn bird_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    (rule.protocol == BIRD).then(|| Candidate::of(Program::Bird).with(Kind::Own, "the rule's protocol is bird"))
}

pub(super) fn keepalived_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let own = "the rule's protocol is keepalived";
    (rule.protocol == KEEPALIVED).then(|| Candidate::of(Program::Keepalived).with(Kind::Own, own))
}

pub(super) fn frr_route(_: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let candidate = Candidate::of(Program::Frr);
    match route.protocol {
        BABEL => Some(candidate.with(Kind::Number, "the route's protocol is babel")),
        number if number == ZEBRA || FRR.contains(&number) => {
            let own = format!("the route's protocol is {}, a number of FRR's daemons", protocol_name(number));
            Some(candidate.with(Kind::Own, own))
        }
        _ => None,
    }
}

/// BIRD and keepalived each have one number for all of their routes.
pub(super) fn daemon_route(_: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let program = match route.protocol {
        BIRD => Program::Bird,
        KEEPALIVED => Program::Keepalived,
        _ => return None,
    };
    let own = format!("the route's protocol is {}", protocol_name(route.protocol));
    Some(Candidate::of(program).with(Kind::Own, own))
}
