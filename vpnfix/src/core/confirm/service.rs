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
    let of_peer =
        |socket: &&TcpSocket| socket.peer.ip() == peer && (socket.peer.port() == BGP || socket.local.port() == BGP);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::confirm::RungState::{Confirmed, NotApplicable, NotSeen};
    use crate::core::destination::{Class, Destination};
    use crate::core::live::{Others, View};
    use crate::core::model::{Snapshot, TABLE_MAIN};
    use crate::core::observation::Totals;
    use crate::core::verify::Neighbour;

    const TUNNEL: u32 = 4;

    fn peer() -> Destination {
        Destination {
            class: Class::Inside,
            prefix: "169.254.55.52/30".parse().expect("a prefix"),
            address: "169.254.55.53".parse().expect("an address"),
            peer: "169.254.55.53".parse().ok(),
            inside_source: "169.254.55.54".parse().ok(),
            tunnels: vec![TUNNEL],
            table: TABLE_MAIN,
            vrf: None,
        }
    }

    fn service(bytes: (u64, u64), socket: Option<(&str, TcpState)>, state: Option<BgpState>) -> Service {
        let neighbour = |state| Neighbour {
            address: peer().address,
            state,
            local_as: None,
            remote_as: None,
            uptime: None,
            received: None,
            sent: None,
            hold_time: None,
            last_error: None,
        };
        let socket = socket.map(|(local, state)| TcpSocket {
            local: local.parse().expect("an end"),
            peer: "169.254.55.53:179".parse().expect("an end"),
            state,
        });
        Service {
            encrypted_before: Ok(BTreeMap::from([(TUNNEL, bytes.0)])),
            encrypted_now: Ok(BTreeMap::from([(TUNNEL, bytes.1)])),
            sockets: Ok(socket.into_iter().collect()),
            bgp: Ok(Bgp { daemon: "FRR".into(), neighbours: state.map(neighbour).into_iter().collect() }),
        }
    }

    fn states(service: &Service, destination: &Destination) -> [RungState; 3] {
        rungs(service, destination).map(|rung| rung.state)
    }

    fn rungs(service: &Service, destination: &Destination) -> [Rung; 3] {
        let (totals, snapshot) = (Totals::default(), Snapshot::default());
        let others = Others::default();
        let evidence = Evidence {
            view: View { snapshot: &snapshot, watches: &[], knows_outcomes: true, others: &others },
            at_change: &totals,
            settled: &totals,
            now: &totals,
            before: &snapshot,
            after: &snapshot,
            probes: &[],
            service,
        };
        [sa_bytes(evidence, destination), bgp_connection(evidence, destination), bgp_established(evidence, destination)]
    }

    #[test]
    fn what_comes_up_is_confirmed() {
        let up = service((0, 840), Some(("169.254.55.54:40000", TcpState::Established)), Some(BgpState::Established));
        assert_eq!(states(&up, &peer()), [Confirmed; 3]);
        assert_eq!(rungs(&up, &peer()).map(|rung| rung.required), [false; 3]);
        // An SA that replaced another counts from 0.
        let replaced = service((9_000, 84), None, None);
        let told = rungs(&replaced, &peer());
        assert!(told[0].state == Confirmed && told[0].evidence.contains(" 84 bytes"), "{told:?}");
    }

    #[test]
    fn what_is_still_to_come_is_waited_for() {
        let asked = service((7, 7), Some(("192.168.12.49:40000", TcpState::SynSent)), Some(BgpState::Connect));
        assert_eq!(states(&asked, &peer()), [NotSeen; 3]);
        let told = &rungs(&asked, &peer())[1].evidence;
        assert!(told.contains("192.168.12.49") && told.contains("before the repair"), "{told}");
    }

    #[test]
    fn what_nobody_configured_is_not_asked() {
        let mut none = service((0, 0), None, None);
        none.encrypted_now = Ok(BTreeMap::new());
        assert_eq!(states(&none, &peer()), [NotApplicable; 3]);
        let disabled = service((0, 84), None, Some(BgpState::Disabled));
        assert_eq!(states(&disabled, &peer()), [Confirmed, NotApplicable, NotApplicable]);
        let learned = Destination { peer: None, class: Class::Routed, ..peer() };
        assert_eq!(states(&service((0, 84), None, Some(BgpState::Connect)), &learned), [NotApplicable; 3]);
    }
}
