//! BGP with the peers inside the tunnels: what a daemon says, else what the TCP sockets show.

use std::net::IpAddr;

use super::check::{Area, Check, CheckId, State};
use super::facts::{BgpState, Facts, Neighbour, NotKnown, Port, Reach, TcpSocket, TcpState};
use super::{answered, counter, risen, traffic};
use crate::core::tunnel::Tunnel;

/// BGP's port.
const BGP: u16 = 179;
/// Where to look on when all here is right.
const USUAL: &str = "the rest of the usual list: security group and network ACL (TCP 179), the ASN on both sides, \
                     `journalctl -u frr -u bird`";

/// The kernel's counters of TCP's MD5 signatures (RFC 2385), and what their rise says.
const SIGNATURES: [(&str, &str); 3] = [
    ("TcpExtTCPMD5NotFound", "the peer sends without a password, and one is set here"),
    ("TcpExtTCPMD5Unexpected", "the peer sends with a password, and none is set here"),
    ("TcpExtTCPMD5Failure", "the peer's password is another one than the one set here"),
];

/// All checks of BGP.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let peers = peers(facts);
    if peers.is_empty() {
        return Vec::new();
    }
    let mut checks = vec![daemon(facts)];
    let mut down = false;
    for (tunnel, peer) in peers {
        let of_peer = match neighbour(facts, peer) {
            Some(neighbour) => {
                down |= neighbour.state != BgpState::Established;
                of_neighbour(facts, tunnel, neighbour)
            }
            None if facts.measured.bgp.is_ok() => vec![unconfigured(facts, peer)],
            None => {
                let check = by_sockets(facts, tunnel, peer);
                down |= check.state == State::Failed;
                vec![check]
            }
        };
        let named = vec![tunnel.name.clone()];
        checks.extend(of_peer.into_iter().map(|check| check.about(peer.to_string(), named.clone())));
    }
    if down {
        checks.extend(password(facts));
    }
    checks
}

fn check(id: CheckId, state: State, found: impl Into<String>) -> Check {
    Check::new(Area::Bgp, id, state, found)
}

fn peers<'a>(facts: &Facts<'a>) -> Vec<(&'a Tunnel, IpAddr)> {
    let of = |tunnel: &'a Tunnel| tunnel.inside.iter().filter_map(move |inside| Some((tunnel, inside.peer?)));
    facts.tunnels.iter().flat_map(of).collect()
}

/// The tunnel whose peer has this address.
pub(super) fn tunnel_of<'a>(facts: &Facts<'a>, peer: IpAddr) -> Option<&'a Tunnel> {
    peers(facts).into_iter().find(|(_, address)| *address == peer).map(|(tunnel, _)| tunnel)
}

fn neighbour<'a>(facts: &Facts<'a>, peer: IpAddr) -> Option<&'a Neighbour> {
    facts.measured.bgp.as_ref().ok()?.neighbours.iter().find(|neighbour| neighbour.address == peer)
}

fn daemon(facts: &Facts<'_>) -> Check {
    match &facts.measured.bgp {
        Ok(bgp) => {
            let text = format!("{} answers, with {} neighbours in all", bgp.daemon, bgp.neighbours.len());
            check(CheckId::BgpDaemon, State::Ok, text)
        }
        Err(NotKnown(why)) => check(CheckId::BgpDaemon, State::Skipped, format!("no daemon was asked: {why}")),
    }
}

/// A VPN with static routes has no BGP, and one with BGP has it on each tunnel.
fn unconfigured(facts: &Facts<'_>, peer: IpAddr) -> Check {
    let others = peers(facts).into_iter().any(|(_, other)| neighbour(facts, other).is_some());
    if others {
        check(
            CheckId::BgpNeighbour,
            State::Warning,
            format!("no session with {peer} is configured, while other tunnels have one"),
        )
        .advice("configure the neighbour, or this tunnel carries nothing when the others fail")
    } else {
        check(CheckId::BgpNeighbour, State::Skipped, format!("no session with {peer} is configured: static routes"))
    }
}

fn of_neighbour(facts: &Facts<'_>, tunnel: &Tunnel, neighbour: &Neighbour) -> Vec<Check> {
    match neighbour.state {
        BgpState::Established => vec![established(neighbour), prefixes(neighbour)],
        BgpState::Disabled => vec![
            check(
                CheckId::BgpSession,
                State::Warning,
                format!("switched off by its configuration{}", systems(neighbour)),
            )
            .advice("`no neighbor … shutdown` (FRR) or `birdc enable NAME` switches it on"),
        ],
        _ => {
            let mut checks = vec![down(facts, tunnel, neighbour)];
            checks.extend(other_system(neighbour));
            checks
        }
    }
}

fn systems(neighbour: &Neighbour) -> String {
    match (neighbour.local_as, neighbour.remote_as) {
        (Some(local), Some(remote)) => format!(", AS {local} to AS {remote}"),
        _ => String::new(),
    }
}

fn established(neighbour: &Neighbour) -> Check {
    let up = neighbour.uptime.map_or_else(String::new, |seconds| format!(" for {}", traffic::time(seconds)));
    let hold = neighbour.hold_time.map_or_else(String::new, |seconds| format!(", hold time {seconds} s"));
    check(CheckId::BgpSession, State::Ok, format!("Established{up}{}{hold}", systems(neighbour)))
}

fn prefixes(neighbour: &Neighbour) -> Check {
    let word = |count: Option<u64>| count.map_or_else(|| "an unknown number".into(), |count| count.to_string());
    let text = format!("{} prefixes received, {} sent", word(neighbour.received), word(neighbour.sent));
    let (state, advice) = match (neighbour.received, neighbour.sent) {
        (Some(0), _) => (
            State::Warning,
            Some("does the other side announce anything? A filter here? (`show bgp neighbors … received-routes`)"),
        ),
        (_, Some(0)) => (
            State::Warning,
            Some(
                "announce this side's network (`network …`), or nothing finds its way back; FRR sends nothing without a policy unless `no bgp ebgp-requires-policy`",
            ),
        ),
        _ => (State::Ok, None),
    };
    let check = check(CheckId::BgpPrefixes, state, text);
    match advice {
        Some(advice) => check.advice(advice),
        None => check,
    }
}

/// The reasons of a session that does not come up, the likeliest first: routing is told by the checks before this one.
fn down(facts: &Facts<'_>, tunnel: &Tunnel, neighbour: &Neighbour) -> Check {
    let error = neighbour.last_error.as_ref().map_or_else(String::new, |error| format!("; last error: {error}"));
    let pings = match answered(facts, tunnel) {
        Some(true) => "; the peer answers ping",
        Some(false) => "; the peer does not answer ping either",
        None => "",
    };
    let source = strange_source(facts, tunnel, neighbour.address);
    let text = format!("{:?}{}{pings}{source}{error}", neighbour.state, systems(neighbour));
    check(CheckId::BgpSession, State::Failed, text).advice(USUAL)
}

/// A connection that was begun while the route was wrong keeps the source address of then until it is given up.
fn strange_source(facts: &Facts<'_>, tunnel: &Tunnel, peer: IpAddr) -> String {
    let Ok(sockets) = &facts.measured.sockets else { return String::new() };
    let begun = sockets
        .iter()
        .find(|socket| socket.state == TcpState::SynSent && socket.peer.ip() == peer && socket.peer.port() == BGP);
    let strange = begun.filter(|socket| !tunnel.inside.iter().any(|inside| inside.local == socket.local.ip()));
    strange.map_or_else(String::new, |socket| {
        format!("; it asks from {}, which is no address of the tunnel", socket.local.ip())
    })
}

/// The OPEN of one side names another autonomous system than the other side has configured (RFC 4271, section 6.2: Bad Peer
/// AS).
fn other_system(neighbour: &Neighbour) -> Option<Check> {
    let error = neighbour.last_error.as_ref()?;
    if !error.to_ascii_lowercase().contains("bad peer as") && !error.to_ascii_lowercase().contains("bad as") {
        return None;
    }
    let text = format!("the two ends do not agree on their autonomous systems{}: {error}", systems(neighbour));
    Some(check(CheckId::BgpAsn, State::Failed, text).advice(
        "compare `remote-as` here with the Amazon side's ASN (64512 by default), and this side's with the customer gateway's",
    ))
}

/// Signatures that were refused meanwhile; or that ever were, where a peer that answers ping keeps silent on BGP's port just
/// now: one that asks for a connection does so at long intervals.
fn password(facts: &Facts<'_>) -> Option<Check> {
    let advice = "set the same `password` for the neighbour on both sides, or none: AWS has none";
    let failed = |text| check(CheckId::BgpPassword, State::Failed, text).advice(advice);
    if let Some((name, meaning)) = SIGNATURES.into_iter().find(|(name, _)| risen(facts, name) > 0) {
        return Some(failed(format!("{meaning} ({name} +{})", risen(facts, name))));
    }
    let mute = |reach: &&Reach| {
        reach.bgp_port == Ok(Port::Silent) && reach.echoes.as_ref().is_ok_and(|echoes| echoes.answered > 0)
    };
    facts.measured.reach.iter().find(mute)?;
    let (name, meaning) = SIGNATURES.into_iter().find(|(name, _)| counter(facts, name).unwrap_or(0) > 0)?;
    let count = counter(facts, name).unwrap_or(0);
    Some(failed(format!(
        "most likely {meaning} ({name} stands at {count}, and TCP 179 is silent while ping is answered)"
    )))
}

/// Is there to be a session with this peer, by the daemon's configuration or by a connection under way?
pub(super) fn is_expected(facts: &Facts<'_>, peer: IpAddr) -> bool {
    let configured = neighbour(facts, peer).is_some_and(|neighbour| neighbour.state != BgpState::Disabled);
    configured || facts.measured.sockets.as_ref().is_ok_and(|sockets| sockets.iter().any(|socket| is_bgp(socket, peer)))
}

fn is_bgp(socket: &TcpSocket, peer: IpAddr) -> bool {
    socket.peer.ip() == peer && (socket.peer.port() == BGP || socket.local.port() == BGP)
}

/// Without a daemon's word, the sockets show as much as that there is a connection.
fn by_sockets(facts: &Facts<'_>, tunnel: &Tunnel, peer: IpAddr) -> Check {
    let session = |state, found: String| check(CheckId::BgpSession, state, found);
    let sockets = match &facts.measured.sockets {
        Ok(sockets) => sockets,
        Err(NotKnown(why)) => return session(State::Skipped, format!("the TCP sockets could not be read: {why}")),
    };
    let states: Vec<&TcpSocket> = sockets.iter().filter(|socket| is_bgp(socket, peer)).collect();
    let of = |state| states.iter().find(|socket| socket.state == state);
    if let Some(socket) = of(TcpState::Established) {
        let text = format!("a TCP connection with {peer} is established, from {}", socket.local.ip());
        return session(State::Ok, text);
    }
    if let Some(socket) = of(TcpState::SynSent) {
        let source = strange_source(facts, tunnel, peer);
        let text = format!("asks {peer} for a TCP connection, and has no answer (from {}){source}", socket.local.ip());
        return session(State::Failed, text).advice(USUAL);
    }
    if of(TcpState::SynReceived).is_some() {
        let text = format!("{peer} asks for a TCP connection, and what is answered does not get there");
        return session(State::Failed, text).advice(USUAL);
    }
    let listens = sockets.iter().any(|socket| socket.state == TcpState::Listen && socket.local.port() == BGP);
    let text = if listens {
        format!("something listens on TCP 179, and has no connection with {peer} just now")
    } else {
        "nothing here speaks BGP".to_string()
    };
    session(State::Skipped, text)
}
