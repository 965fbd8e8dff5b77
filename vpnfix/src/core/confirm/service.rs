//! The rungs beyond routing: does IPsec encrypt what the tunnel is handed, and does BGP come up? They are reported, and
//! never required: what else keeps them from it is `verify`'s to judge.

use std::collections::BTreeMap;

use super::{Evidence, Rung, RungName, RungState, rung};
use crate::core::destination::Destination;
use crate::core::verify::{Bgp, BgpState, Known, NotKnown, TcpSocket, TcpState};

/// BGP's port.
const BGP: u16 = 179;

/// What SAs, sockets and BGP's daemon tell since the change.
#[derive(Clone, Debug)]
pub struct Service {
    /// Bytes that each tunnel's outbound SAs had encrypted at the change, by the tunnel's interface index; a tunnel that no
    /// policy is tied to is not in it.
    pub encrypted_before: Known<BTreeMap<u32, u64>>,
    /// The same now.
    pub encrypted_now: Known<BTreeMap<u32, u64>>,
    /// The TCP sockets of the namespace.
    pub sockets: Known<Vec<TcpSocket>>,
    /// The neighbours by the daemon's word.
    pub bgp: Known<Bgp>,
}

/// SAs that were replaced meanwhile begin to count anew: then what the new ones have encrypted is counted.
fn grown(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

pub(super) fn sa_bytes(evidence: Evidence<'_>, destination: &Destination) -> Rung {
    let rung = |state, evidence: String| rung(4, RungName::SaBytes, state, evidence);
    if destination.peer.is_none() {
        return rung(RungState::NotApplicable, "only asked of the tunnel's peer".into());
    }
    let (before, now) = match (&evidence.service.encrypted_before, &evidence.service.encrypted_now) {
        (Ok(before), Ok(now)) => (before, now),
        (Err(NotKnown(why)), _) | (_, Err(NotKnown(why))) => {
            return rung(RungState::NotSeen, format!("the SAs could not be read: {why}"));
        }
    };
    let of = |tunnel: &u32| now.get(tunnel).map(|now| grown(before.get(tunnel).copied().unwrap_or(0), *now));
    match destination.tunnels.iter().filter_map(of).reduce(u64::saturating_add) {
        None => rung(RungState::NotApplicable, "no IPsec policy is tied to the tunnel".into()),
        Some(0) => rung(RungState::NotSeen, "its outbound SA has encrypted nothing since the change".into()),
        Some(bytes) => {
            rung(RungState::Confirmed, format!("its outbound SA has encrypted {bytes} bytes since the change"))
        }
    }
}

pub(super) fn bgp_connection(evidence: Evidence<'_>, destination: &Destination) -> Rung {
    let rung = |state, evidence: String| rung(6, RungName::BgpConnection, state, evidence);
    let Some(peer) = destination.peer else {
        return rung(RungState::NotApplicable, "only asked of the tunnel's peer".into());
    };
    let sockets = match &evidence.service.sockets {
        Ok(sockets) => sockets,
        Err(NotKnown(why)) => {
            return rung(RungState::NotSeen, format!("the TCP sockets could not be read: {why}"));
        }
    };
    let of_peer = |socket: &&TcpSocket| {
        socket.peer.ip() == peer && (socket.peer.port() == BGP || socket.local.port() == BGP)
    };
    let of = |state| sockets.iter().filter(of_peer).find(|socket| socket.state == state);
    if let Some(socket) = of(TcpState::Established) {
        return rung(RungState::Confirmed, format!("established, from {}", socket.local.ip()));
    }
    if let Some(socket) = of(TcpState::SynSent) {
        let own = destination.inside_source;
        let source = socket.local.ip();
        // A request keeps the source address that the route of its time gave it.
        let told = match own {
            Some(own) if own != source => {
                format!("asked for from {source}, the address from before the repair: the daemon has to try again")
            }
            _ => format!("asked for from {source}, no answer yet"),
        };
        return rung(RungState::NotSeen, told);
    }
    if is_configured(evidence, destination) || of(TcpState::SynReceived).is_some() {
        return rung(RungState::NotSeen, "none so far: the daemon tries again in its own time".into());
    }
    rung(RungState::NotApplicable, "nothing here speaks BGP with it".into())
}

pub(super) fn bgp_established(evidence: Evidence<'_>, destination: &Destination) -> Rung {
    let rung = |state, evidence: String| rung(7, RungName::BgpEstablished, state, evidence);
    if !is_configured(evidence, destination) {
        let why = match (&evidence.service.bgp, destination.peer) {
            (Err(NotKnown(why)), Some(_)) => why.clone(),
            _ => "no session with it is configured".into(),
        };
        return rung(RungState::NotApplicable, why);
    }
    let Some((daemon, state)) = neighbour(evidence, destination) else {
        return rung(RungState::NotApplicable, "no session with it is configured".into());
    };
    let told = format!("{daemon} says {state:?}");
    rung(if state == BgpState::Established { RungState::Confirmed } else { RungState::NotSeen }, told)
}

fn neighbour<'a>(evidence: Evidence<'a>, destination: &Destination) -> Option<(&'a str, BgpState)> {
    let bgp = evidence.service.bgp.as_ref().ok()?;
    let neighbour = bgp.neighbours.iter().find(|neighbour| Some(neighbour.address) == destination.peer)?;
    Some((&bgp.daemon, neighbour.state))
}

fn is_configured(evidence: Evidence<'_>, destination: &Destination) -> bool {
    neighbour(evidence, destination).is_some_and(|(_, state)| state != BgpState::Disabled)
}
