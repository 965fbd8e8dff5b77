//! The whole VPN as a list of checks. What was read comes in as [`Facts`]; each area makes its checks; `order` sorts
//! them by what causes what.

mod bgp;
mod binding;
mod check;
mod facts;
mod host;
mod interface;
mod ipsec;
mod order;
mod reachability;
mod routing;
mod traffic;

pub use check::{Area, Check, CheckId, State};
pub use facts::{
    Bgp, BgpState, Counters, Echoes, Facts, IkeAssociation, Known, Machine, Measured, Neighbour, NotKnown, OuterPath,
    PathMtu, Port, Reach, Sample, Switches, TcpSocket, TcpState,
};
pub use ipsec::encrypted;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::model::{Direction, SecurityAssociation};
use crate::core::tunnel::Tunnel;

/// All checks, failed ones first, and of these the cause before what follows from it.
#[must_use]
pub fn verify(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = ipsec::checks(facts);
    if facts.tunnels.iter().any(|tunnel| ipsec::is_ipsec(facts, tunnel)) {
        checks.push(traffic::errors(facts));
    }
    checks.extend(interface::checks(facts));
    checks.extend(routing::checks(facts));
    checks.extend(bgp::checks(facts));
    checks.extend(reachability::checks(facts));
    checks.extend(host::checks(facts));
    order::sorted(checks)
}

/// An SA with the tunnel that it belongs to, as reports show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AssociationReport {
    /// Name of the tunnel.
    pub tunnel: String,
    /// Out of it or into it.
    pub direction: Way,
    /// Outer source address.
    pub source: std::net::IpAddr,
    /// Outer destination address.
    pub destination: std::net::IpAddr,
    /// Security parameter index.
    pub spi: u32,
    /// Bytes so far.
    pub bytes: u64,
    /// Packets so far.
    pub packets: u64,
    /// Packets in the sample's time; `null` for an SA that was not there at its beginning.
    pub packets_in_sample: Option<u64>,
}

/// A direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From this host to the peer.
    Out,
    /// From the peer to this host.
    In,
}

/// The SAs that the tunnels use.
#[must_use]
pub fn associations(facts: &Facts<'_>) -> Vec<AssociationReport> {
    let report = |tunnel: &Tunnel, direction: Direction, association: &SecurityAssociation| AssociationReport {
        tunnel: tunnel.name.clone(),
        direction: if direction == Direction::Out { Way::Out } else { Way::In },
        source: association.source,
        destination: association.destination,
        spi: association.spi,
        bytes: association.usage.bytes,
        packets: association.usage.packets,
        packets_in_sample: traffic::earlier(facts, association)
            .map(|before| change(before.usage.packets, association.usage.packets)),
    };
    let bound = ipsec::bound(facts).unwrap_or_default();
    let of = |bound: &ipsec::Bound<'_>| {
        let out = bound.out_sa.map(|association| report(bound.tunnel, Direction::Out, association));
        let inward = bound.in_sa.map(|association| report(bound.tunnel, Direction::In, association));
        [out, inward].into_iter().flatten().collect::<Vec<_>>()
    };
    bound.iter().flat_map(of).collect()
}

/// The BGP neighbours that are peers of tunnels.
#[must_use]
pub fn neighbours(facts: &Facts<'_>) -> Vec<Neighbour> {
    let all = facts.measured.bgp.as_ref().map(|bgp| bgp.neighbours.as_slice()).unwrap_or_default();
    all.iter().filter(|neighbour| bgp::tunnel_of(facts, neighbour.address).is_some()).cloned().collect()
}

/// By how much a counter rose; one that was set back has not.
fn change(before: u64, after: u64) -> u64 {
    after.saturating_sub(before)
}

/// By how much a counter of the namespace rose between the samples; 0 where it is not known.
fn risen(facts: &Facts<'_>, name: &str) -> u64 {
    let of = |sample: &Sample| {
        let counters = if name.starts_with("Xfrm") { &sample.xfrm } else { &sample.network };
        counters.as_ref().ok().and_then(|counters| counters.get(name)).copied()
    };
    of(&facts.measured.before).zip(of(&facts.measured.after)).map_or(0, |(before, after)| change(before, after))
}

/// A counter's value at the end.
fn counter(facts: &Facts<'_>, name: &str) -> Option<u64> {
    facts.measured.after.network.as_ref().ok()?.get(name).copied()
}

/// Has a peer of the tunnel answered an echo? Not known where none was sent.
fn answered(facts: &Facts<'_>, tunnel: &Tunnel) -> Option<bool> {
    let echoes = |reach: &Reach| reach.echoes.as_ref().ok().filter(|echoes| echoes.sent > 0).map(|e| e.answered > 0);
    let of_tunnel = facts.measured.reach.iter().filter(|reach| reach.tunnel == tunnel.ifindex);
    of_tunnel.filter_map(echoes).reduce(|one, other| one || other)
}

#[cfg(test)]
pub(crate) mod tests;
