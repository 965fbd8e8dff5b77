//! What one table says to a flow: the longest prefix with a route that can be used. Among the routes of one prefix each
//! family chooses in its own way.

mod ipv4;
mod ipv6;

use ipnet::IpNet;

use super::fib::{Bound, Fib};
use super::{Doubt, Flow};
use crate::core::model::{Family, Nexthop, Route, RouteKind};

/// What a table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This route, by one of its usable nexthops (several share the load).
    Route {
        /// The route.
        route: &'a Route,
        /// Its nexthops that may be taken.
        nexthops: Vec<&'a Nexthop>,
    },
    /// This route refuses (unreachable, prohibit, blackhole): the walk ends.
    Refused(&'a Route),
    /// This `throw` route sends the walk on to the next rule.
    Thrown(&'a Route),
    /// No route.
    Nothing,
    /// Not to be told.
    Unknown(Doubt),
}

/// Looks a flow up in a table.
pub(super) fn lookup<'a>(fib: &Fib<'a>, table: u32, flow: &Flow, bound: Bound) -> Found<'a> {
    if !fib.is_whole(flow.family(), table) {
        return Found::Unknown(Doubt::PartialTable(table));
    }
    let prefixes = fib.covering(table, IpNet::from(flow.to));
    match flow.family() {
        Family::V4 => ipv4::lookup(fib, &prefixes, flow, bound),
        Family::V6 => ipv6::lookup(fib, &prefixes, flow, bound),
    }
}

/// What a route says that goes nowhere.
fn without_nexthop(route: &Route) -> Option<Found<'_>> {
    match route.kind {
        RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => Some(Found::Refused(route)),
        RouteKind::Throw => Some(Found::Thrown(route)),
        RouteKind::Other(number) => Some(Found::Unknown(Doubt::RouteKind(number))),
        _ => None,
    }
}

/// Is the nexthop not dead, and not by a device without carrier that is set to be passed over then
/// (`fib_lookup_good_nhc`, `find_match`)?
fn is_alive(fib: &Fib<'_>, route: &Route, nexthop: &Nexthop) -> bool {
    let settings = nexthop.ifindex.and_then(|index| fib.link(index)).map(|link| link.settings);
    let ignores = settings.is_some_and(|settings| match route.family {
        Family::V4 => settings.ignores_linkdown,
        Family::V6 => settings.ignores_linkdown_v6,
    });
    !(nexthop.dead || nexthop.linkdown && ignores)
}
