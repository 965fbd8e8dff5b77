//! Programs with a TUN device of their own: OpenVPN, and the proxies that share sing-box's code.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::{Ports, RuleAction, TABLE_MAIN};
use crate::core::owner::seen::{is_kind, plain};

/// sing-tun's rules stand from here on, eleven at most (`DefaultIPRoute2RuleIndex`; `unsetRules`), its table is this
/// (`DefaultIPRoute2TableIndex`).
const SING_PRIORITIES: std::ops::RangeInclusive<u32> = 9000..=9010;
const SING_TABLE: u32 = 2022;
/// Clash's rules, into a table with a number that it makes up.
const CLASH_PRIORITIES: [u32; 4] = [9500, 9510, 9520, 9530];
/// Port of the DNS, which these rules let pass.
const DNS: Ports = Ports::one(53);

pub(super) fn proxy_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let sing = SING_PRIORITIES.contains(&rule.priority);
    let clash = CLASH_PRIORITIES.contains(&rule.priority);
    let table = rule.table() == Some(SING_TABLE);
    if !sing && !clash && !table {
        return None;
    }
    let number = match (sing || clash, table) {
        (true, _) => format!("priority {} is one of sing-tun's or Clash's", rule.priority),
        (false, _) => format!("table {SING_TABLE} is sing-tun's"),
    };
    let candidate = Candidate::of(Program::TunProxy).with(Kind::Number, number);
    let as_made = "the rule is one of those that send a host's traffic through a TUN proxy";
    Some(candidate.with_if(is_proxys(seen, rule), Kind::Shape, as_made))
}

/// One of the rules of sing-tun's `rules` (`tun_linux.go`): what is local passes, the DNS comes in, the rest as well.
fn is_proxys(seen: &Seen<'_>, rule: &Rule) -> bool {
    let tun = |name: &str| seen.link(|link| link.name == name && is_kind(link, "tun")).is_some();
    let into_tun = rule
        .table()
        .filter(|table| *table != TABLE_MAIN)
        .is_some_and(|table| table == SING_TABLE || seen.table_device(table, |link| is_kind(link, "tun")).is_some());
    match rule.action {
        RuleAction::Goto(target) => SING_PRIORITIES.contains(&target),
        RuleAction::Nop => rule.same_effect(&Rule { action: RuleAction::Nop, ..plain(rule, 0) }),
        RuleAction::Lookup(TABLE_MAIN) => {
            let ports = Some(DNS);
            let shape = Rule {
                invert: true,
                destination_ports: ports,
                suppress_prefix_length: Some(0),
                ..plain(rule, TABLE_MAIN)
            };
            rule.same_effect(&shape)
        }
        RuleAction::Lookup(_) => into_tun || rule.iif.as_deref().is_some_and(tun),
        RuleAction::Unreachable | RuleAction::Blackhole | RuleAction::Prohibit | RuleAction::Other(_) => false,
    }
}

pub(super) fn proxy_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route).filter(|link| is_kind(link, "tun"))?;
    let candidate = super::by_rule(seen, route, Program::TunProxy, proxy_rule)?;
    Some(candidate.with(Kind::Host, format!("{} is a TUN device", device.name)))
}

/// `redirect-gateway def1`: `0.0.0.0/1` and `128.0.0.0/1` by the tunnel (openvpn(8)). Routes that a server pushes leave
/// by the tunnel, too.
pub(super) fn openvpn_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route).filter(|link| is_kind(link, "tun") && route.table == TABLE_MAIN)?;
    let candidate = Candidate::of(Program::OpenVpn);
    if seen.is_half_of_all(route) {
        let shape = "the route is one of two halves of everything, as `redirect-gateway def1` makes them";
        let device = format!("they leave by the TUN device {}", device.name);
        return Some(candidate.with(Kind::Shape, shape).with(Kind::Host, device));
    }
    // `RTPROT_BOOT`: both `ip route` and OpenVPN's own netlink code set it.
    let by_gateway = route.protocol == 3 && route.nexthops.iter().any(|nexthop| nexthop.gateway.is_some());
    let shape = format!("the route leaves by the TUN device {} through a gateway behind it", device.name);
    by_gateway.then(|| candidate.with(Kind::Shape, shape))
}
