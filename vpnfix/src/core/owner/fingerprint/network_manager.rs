//! The programs that configure interfaces: systemd-networkd and NetworkManager. They share protocol numbers with
//! others, so that they are likely only where they are seen to run.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::TABLE_LOCAL;
use crate::core::owner::seen::is_kind;

/// `RTPROT_STATIC`, `RTPROT_RA`, `RTPROT_DHCP` (`include/uapi/linux/rtnetlink.h`).
const STATIC: u8 = 4;
const ROUTER_ADVERTISEMENT: u8 = 9;
const DHCP: u8 = 16;
/// networkd's metric of routes from DHCP and router advertisements (`networkd-util.h`: `DHCP_ROUTE_METRIC`).
const NETWORKD_METRIC: u32 = 1024;

/// `[RoutingPolicyRule]`, which networkd stamps with protocol static.
pub(super) fn networkd_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let number = "the rule's protocol is static, as networkd gives to its rules";
    (rule.protocol == STATIC).then(|| Candidate::of(Program::Networkd).with(Kind::Number, number))
}

/// What `wireguard.ip4-auto-default-route` adds (`nm-device-wireguard.c`): the same two rules as wg-quick's, with a
/// mark and a table made from the profile's UUID. Rules of profiles bear no sign of their own.
pub(super) fn network_manager_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let table = Seen::marked_away(rule).or_else(|| seen.companion(rule)?.table())?;
    seen.table_device(table, |link| is_kind(link, "wireguard"))?;
    let shape = "the rule is for a WireGuard device's default route, as NetworkManager makes it, too";
    Some(Candidate::of(Program::NetworkManager).with(Kind::Shape, shape))
}

pub(super) fn networkd_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let dynamic = route.protocol != STATIC && route.metric == NETWORKD_METRIC;
    let candidate = configured(seen, route, Program::Networkd, dynamic)?;
    Some(candidate.with_if(dynamic, Kind::Number, "its metric is 1024, networkd's for such routes"))
}

/// NetworkManager gives each device a metric by its kind, counted up where two have the same
/// (`nm_device_get_route_metric_default`).
pub(super) fn network_manager_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let of_kind = matches!(route.metric, 50..=59 | 100..=119 | 600..=619 | 20_100..=20_119 | 20_600..=20_619);
    let metric = format!("its metric {} is one that NetworkManager gives by the device's kind", route.metric);
    let candidate = configured(seen, route, Program::NetworkManager, of_kind)?;
    Some(candidate.with_if(of_kind, Kind::Number, &metric))
}

/// A route of a protocol that both set. It is no sign of a program that is not there, unless its metric is that
/// program's.
fn configured(seen: &Seen<'_>, route: &Route, program: Program, own_metric: bool) -> Option<Candidate> {
    let number = match route.protocol {
        _ if route.table == TABLE_LOCAL => return None,
        STATIC => "the route's protocol is static, as of configured routes",
        ROUTER_ADVERTISEMENT => "the route came with a router advertisement",
        DHCP => "the route's protocol is dhcp",
        _ => return None,
    };
    (own_metric || seen.is_there(program)).then(|| Candidate::of(program).with(Kind::Number, number))
}
