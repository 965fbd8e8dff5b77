//! Which tunnel an address belongs to, if any.

use std::net::IpAddr;

use super::Case;
use crate::core::destination::{Class, Destination};
use crate::core::model::{LinkKind, Route, RouteKind, TABLE_LOCAL};
use crate::core::report::explain::AddressKind;
use crate::core::walk::{self, Fib, Flow, Found, LOOPBACK_INDEX};

/// To whom a packet belongs.
pub(super) enum Claim<'a> {
    /// To this destination's tunnels, by their indices.
    Tunnel(&'a Destination, Vec<u32>),
    /// To no tunnel.
    Nobody,
    /// Not to be told.
    Unknown,
}

impl<'a> Claim<'a> {
    pub(super) fn tunnel(&self) -> Option<(&'a Destination, &[u32])> {
        match self {
            Self::Tunnel(destination, tunnels) => Some((destination, tunnels)),
            _ => None,
        }
    }
}

/// What kind of address it is; own and broadcast ones are those that table local knows.
pub(super) fn kind(fib: &Fib<'_>, address: IpAddr) -> AddressKind {
    let in_local = match walk::lookup(fib, TABLE_LOCAL, &Flow::plain(address)) {
        Found::Route { route, .. } => Some(route.kind),
        _ => None,
    };
    let (broadcast, link_local) = match address {
        IpAddr::V4(v4) => (v4.is_broadcast(), false),
        IpAddr::V6(v6) => (false, v6.is_unicast_link_local()),
    };
    match in_local {
        _ if address.is_loopback() => AddressKind::Loopback,
        _ if address.is_multicast() => AddressKind::Multicast,
        Some(RouteKind::Local | RouteKind::Anycast) => AddressKind::Own,
        Some(RouteKind::Broadcast) => AddressKind::Broadcast,
        _ if broadcast => AddressKind::Broadcast,
        _ if link_local => AddressKind::LinkLocal,
        _ => AddressKind::Unicast,
    }
}

/// To whom the packet belongs, with what is worth saying about that.
pub(super) fn claim<'a>(case: Case<'a>, kind: AddressKind) -> (Claim<'a>, Vec<String>) {
    let to = case.question.destination;
    let mut holding: Vec<&Destination> =
        case.destinations.iter().filter(|destination| destination.prefix.contains(&to)).collect();
    holding.sort_by_key(|destination| std::cmp::Reverse(destination.prefix.prefix_len()));
    let flows_vrf = vrf(case);
    let best = holding.iter().find(|destination| destination.vrf == flows_vrf);
    let Some(best) = best.filter(|_| kind == AddressKind::Unicast) else {
        let other = holding.first().filter(|_| kind == AddressKind::Unicast);
        return (Claim::Nobody, other.map(|other| other_vrf(case, other)).into_iter().collect());
    };
    let tunnels = tunnels(&holding, best);
    let bound = case.question.output_interface.filter(|oif| !tunnels.contains(oif) && Some(*oif) != best.vrf);
    if let Some(oif) = bound {
        let device = case.fib.snapshot().device_name(oif);
        let note = format!("its sender bound it to {device}: it is not looked for in a tunnel (ask without --oif)");
        return (Claim::Nobody, vec![note]);
    }
    if best.class == Class::Inside {
        return (Claim::Tunnel(best, tunnels), Vec::new());
    }
    match walk::lookup(case.fib, best.table, &Flow::plain(to)) {
        Found::Route { route, .. } if route.destination == best.prefix => (Claim::Tunnel(best, tunnels), Vec::new()),
        Found::Route { route, .. } | Found::Refused(route) | Found::Thrown(route) => {
            (Claim::Nobody, vec![part(best, route)])
        }
        Found::Nothing => (Claim::Nobody, Vec::new()),
        Found::Unknown(doubt) => (Claim::Unknown, vec![doubt.to_string()]),
    }
}

/// The tunnels of a destination, and of others with the same prefix: two tunnels may have the same inside prefix.
fn tunnels(holding: &[&Destination], best: &Destination) -> Vec<u32> {
    let same = holding.iter().filter(|other| other.prefix == best.prefix && other.vrf == best.vrf);
    let mut tunnels: Vec<u32> = Vec::new();
    for tunnel in same.flat_map(|destination| &destination.tunnels) {
        if !tunnels.contains(tunnel) {
            tunnels.push(*tunnel);
        }
    }
    tunnels
}

/// The VRF that the packet comes from or is bound to.
fn vrf(case: Case<'_>) -> Option<u32> {
    let incoming = case.question.input_interface.filter(|iif| *iif != LOOPBACK_INDEX);
    let index = case.question.output_interface.or(incoming)?;
    let link = case.fib.link(index)?;
    let is_vrf = |index: &u32| case.fib.link(*index).is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. }));
    Some(index).filter(is_vrf).or_else(|| link.master.filter(is_vrf))
}

fn other_vrf(case: Case<'_>, destination: &Destination) -> String {
    let names: Vec<String> = destination.tunnels.iter().map(|index| case.fib.snapshot().device_name(*index)).collect();
    let of = match destination.vrf {
        Some(vrf) => format!("packets of VRF {0} (--oif {0})", case.fib.snapshot().device_name(vrf)),
        None => "packets outside of VRFs".into(),
    };
    format!("{} belongs to {} for {of}, and this is none", destination.prefix, names.join(" and "))
}

fn part(destination: &Destination, route: &Route) -> String {
    format!(
        "it lies in {}, a tunnel's, but the same table's more specific route {route} takes this part elsewhere",
        destination.prefix
    )
}
