//! What the peers inside the tunnels answer.

use super::bgp;
use super::change;
use super::check::{Area, Check, CheckId, State};
use super::facts::{BgpState, Echoes, Facts, NotKnown, PathMtu, Port, Reach, TcpState};

/// All checks of reachability.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for reach in &facts.measured.reach {
        let name = facts.snapshot.device_name(reach.tunnel);
        let found = [
            Some(answers(facts, reach)),
            egress(facts, reach, &name),
            Some(path_mtu(reach, &name)),
            Some(port(facts, reach)),
        ];
        let about = found.into_iter().flatten().map(|check| check.about(reach.peer.to_string(), vec![name.clone()]));
        checks.extend(about);
    }
    checks
}

fn check(id: CheckId, state: State, found: impl Into<String>) -> Check {
    Check::new(Area::Reachability, id, state, found)
}

fn answers(facts: &Facts<'_>, reach: &Reach) -> Check {
    let check = |state, found: String| check(CheckId::PeerAnswers, state, found);
    let echoes = match &reach.echoes {
        Ok(echoes) => echoes,
        Err(NotKnown(why)) => return check(State::Skipped, format!("it was not pinged: {why}")),
    };
    let from = reach.local;
    match echoes {
        Echoes { sent: 0, error: Some(error), .. } => {
            check(State::Failed, format!("no echo could be sent from {from}: {error}"))
                .advice("see the failed checks above: a tunnel that can send nothing refuses what is sent into it")
        }
        Echoes { sent: 0, .. } => check(State::Skipped, "no echo was sent".into()),
        Echoes { sent, answered: 0, .. } if bgp_is_up(facts, reach) => {
            check(State::Warning, format!("none of {sent} echoes from {from} was answered, but BGP with it is up"))
                .advice("the peer, or a filter, does not let ICMP through: path MTU discovery may suffer")
        }
        Echoes { sent, answered: 0, error, .. } => {
            let why = error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
            check(State::Failed, format!("none of {sent} echoes from {from} was answered{why}"))
                .advice("is the far end up, with the inside address as its own, and ESP or UDP 4500 open both ways?")
        }
        Echoes { sent, answered, round_trip, .. } => {
            let time = round_trip.map_or_else(String::new, |time| format!(", {:.2} ms", time.as_secs_f64() * 1000.0));
            let text = format!("{answered} of {sent} echoes from {from} answered{time}");
            if answered < sent {
                check(State::Warning, text).advice("packets are lost on the way, or the far end limits ICMP")
            } else {
                check(State::Ok, text)
            }
        }
    }
}

fn bgp_is_up(facts: &Facts<'_>, reach: &Reach) -> bool {
    let by_daemon =
        facts.measured.bgp.as_ref().is_ok_and(|bgp| {
            bgp.neighbours.iter().any(|n| n.address == reach.peer && n.state == BgpState::Established)
        });
    by_daemon
        || reach.bgp_port == Ok(Port::InUse)
        || facts
            .measured
            .sockets
            .as_ref()
            .is_ok_and(|sockets| sockets.iter().any(|s| s.state == TcpState::Established && s.peer.ip() == reach.peer))
}

/// What was sent to the peer was handed to the tunnel's device, by the device's own count.
fn egress(facts: &Facts<'_>, reach: &Reach, name: &str) -> Option<Check> {
    let sent = reach.echoes.as_ref().ok().map(|echoes| echoes.sent).filter(|sent| *sent > 0)?;
    let (before, after) =
        facts.measured.before.links.get(&reach.tunnel).zip(facts.measured.after.links.get(&reach.tunnel))?;
    let taken = change(before.tx_packets, after.tx_packets) + change(before.tx_errors, after.tx_errors);
    let check = |state, text: String| check(CheckId::Egress, state, text);
    Some(if taken >= sent {
        check(State::Ok, format!("{name} took {taken} packets while {sent} echoes were sent"))
    } else {
        check(State::Failed, format!("{name} took {taken} packets while {sent} echoes were sent: they left elsewhere"))
            .advice("`vpnfix trace` shows by which device they leave, and who decides it")
    })
}

fn path_mtu(reach: &Reach, name: &str) -> Check {
    let check = |state, text: String| check(CheckId::PathMtu, state, text);
    match &reach.path_mtu {
        Err(NotKnown(why)) => check(State::Skipped, format!("not tried: {why}")),
        Ok(PathMtu { device, largest, .. }) if largest >= device => {
            check(State::Ok, format!("packets of {device} bytes, the largest of {name}, get through"))
        }
        Ok(PathMtu { device, largest, silent: false }) => check(
            State::Ok,
            format!("packets of {largest} bytes get through; larger ones, up to {device}, are refused with word of it"),
        ),
        Ok(PathMtu { device, largest, silent: true }) => {
            let text =
                format!("a black hole: packets above {largest} bytes vanish without a word, and {name} takes {device}");
            check(State::Failed, text).advice(format!(
                "`ip link set {name} mtu {largest}`, and clamp TCP's MSS (`-j TCPMSS --clamp-mss-to-pmtu`)"
            ))
        }
    }
}

/// A port that is shut is a fault only where a session is to be: a VPN with static routes has none.
fn port(facts: &Facts<'_>, reach: &Reach) -> Check {
    let expected = bgp::is_expected(facts, reach.peer);
    let check = |state, text: &str| check(CheckId::BgpPort, state, text);
    let shut = |text| check(if expected { State::Failed } else { State::Skipped }, text);
    match &reach.bgp_port {
        Err(NotKnown(why)) => check(State::Skipped, &format!("not tried: {why}")),
        Ok(Port::InUse) => check(State::Ok, "BGP has its connection with it (a second one would disturb it)"),
        Ok(Port::Open) => check(State::Ok, "it takes connections on TCP 179"),
        Ok(Port::Refused) => shut("it refuses connections on TCP 179: nothing listens there, or not for this host")
            .advice("is BGP configured on the far end for this tunnel, with this host's inside address as neighbour?"),
        Ok(Port::Silent) => shut("no answer on TCP 179: a filter on the way, or another BGP password there").advice(
            "look for what drops TCP 179: nft or iptables here, network ACL and security group there; then `password`",
        ),
        Ok(Port::Failed(why)) => shut(&format!("TCP 179 could not be asked: {why}")),
    }
}
