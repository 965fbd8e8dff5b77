//! The probes: echo requests to the peers, packets of falling size, a connection to BGP's port.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::commands::assess::Host;
use crate::commands::cli::VerifyArgs;
use crate::commands::known::known;
use crate::core::tunnel::Tunnel;
use crate::core::verify::{Echoes, Known, NotKnown, PathMtu, Port, Reach, TcpSocket, TcpState};
use crate::system::bgp;
use crate::system::path_mtu::{self, Search};
use crate::system::probe::{Probe, ProbeResult, ProbeTarget};
use crate::system::sockets;

/// The last echoes' answers are waited for so much longer.
const GRACE: Duration = Duration::from_millis(1000);
/// An answer to a packet of one size is waited for so long, at the least and at the most.
const PATIENCE: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(1000)];
/// The search for the path's MTU ends after this.
const SEARCH: Duration = Duration::from_secs(20);
/// A connection is waited for so long: the first request and one repetition, which TCP sends after a second.
const CONNECT: Duration = Duration::from_millis(2500);
/// Between two looks at the answers.
const TICK: Duration = Duration::from_millis(20);
/// BGP's port.
const BGP: u16 = 179;

/// A peer inside a tunnel.
#[derive(Clone)]
struct Peer {
    tunnel: u32,
    peer: IpAddr,
    local: IpAddr,
    mtu: Option<u32>,
    vrf: Option<String>,
}

/// Probes every known peer, for as long as a sample takes and somewhat more.
pub(super) async fn probe(host: &Host, args: &VerifyArgs) -> Vec<Reach> {
    let peers: Vec<Peer> = host.tunnels.iter().flat_map(|tunnel| peers(host, tunnel)).collect();
    if args.no_probe || peers.is_empty() {
        return peers.iter().map(|peer| not_asked(peer, "--no-probe was given")).collect();
    }
    let echoes = echoes(&peers, args.sample).await;
    // Read just before the connections are tried: BGP may have come up meanwhile.
    let sockets = known(sockets::tcp());
    // Each peer on a thread of its own: their times of waiting are not to add up.
    thread::scope(|scope| {
        let started: Vec<_> = peers
            .iter()
            .zip(echoes)
            .map(|(peer, echoes)| {
                let own = peer_sockets(&sockets, peer.peer);
                scope.spawn(move || of_peer(peer, echoes, own))
            })
            .collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn not_asked(peer: &Peer, why: &str) -> Reach {
    let not = || NotKnown::because(why);
    Reach {
        tunnel: peer.tunnel,
        peer: peer.peer,
        local: peer.local,
        echoes: Err(not()),
        path_mtu: Err(not()),
        bgp_port: Err(not()),
    }
}

fn peers<'a>(host: &'a Host, tunnel: &'a Tunnel) -> impl Iterator<Item = Peer> + 'a {
    let mtu = host.snapshot.link(tunnel.ifindex).and_then(|link| link.mtu);
    tunnel.inside.iter().filter_map(move |inside| {
        Some(Peer { tunnel: tunnel.ifindex, peer: inside.peer?, local: inside.local, mtu, vrf: host.vrf_of(tunnel) })
    })
}

/// One echo a second for the time of the sample, from the inside addresses, routed like any packet of this host.
async fn echoes(peers: &[Peer], sample: Duration) -> Vec<Known<Echoes>> {
    let target = |peer: &Peer| ProbeTarget { destination: peer.peer, source: Some(peer.local), vrf: peer.vrf.clone() };
    let targets: Vec<ProbeTarget> = peers.iter().map(target).collect();
    let probe = match known(Probe::start(&targets)) {
        Ok(probe) => probe,
        Err(why) => return peers.iter().map(|_| Err(why.clone())).collect(),
    };
    tokio::time::sleep(sample).await;
    let counted = probe.poll();
    let deadline = Instant::now() + GRACE;
    let mut results = probe.poll();
    let missing = |results: &[ProbeResult]| results.iter().zip(&counted).any(|(now, then)| now.answered < then.sent);
    while missing(&results) && Instant::now() < deadline {
        tokio::time::sleep(TICK).await;
        results = probe.poll();
    }
    // An echo that left during the grace has had no time to be answered, and does not count as lost.
    let told = |(now, then): (&ProbeResult, &ProbeResult)| Echoes {
        sent: then.sent.max(now.answered),
        answered: now.answered,
        round_trip: now.last_round_trip,
        error: now.last_error.clone(),
    };
    results.iter().zip(&counted).map(told).map(Ok).collect()
}

/// The states of the TCP connections with a peer's BGP.
fn peer_sockets(sockets: &Known<Vec<TcpSocket>>, peer: IpAddr) -> Known<Vec<TcpState>> {
    let all = sockets.as_ref().map_err(NotKnown::clone)?;
    let is_bgp =
        |socket: &&TcpSocket| socket.peer.ip() == peer && (socket.peer.port() == BGP || socket.local.port() == BGP);
    Ok(all.iter().filter(is_bgp).map(|socket| socket.state).collect())
}

fn of_peer(peer: &Peer, echoes: Known<Echoes>, sockets: Known<Vec<TcpState>>) -> Reach {
    let path_mtu = path_mtu(peer, &echoes);
    let bgp_port = match sockets {
        Err(why) => Err(why),
        Ok(states) if states.contains(&TcpState::Established) => Ok(Port::InUse),
        Ok(_) => Ok(bgp::connect(peer.local, peer.vrf.as_deref(), peer.peer, CONNECT)),
    };
    Reach { tunnel: peer.tunnel, peer: peer.peer, local: peer.local, echoes, path_mtu, bgp_port }
}

fn path_mtu(peer: &Peer, echoes: &Known<Echoes>) -> Known<PathMtu> {
    let because = NotKnown::because;
    let echoes = echoes.as_ref().map_err(NotKnown::clone)?;
    if echoes.answered == 0 {
        return Err(because("the peer does not answer"));
    }
    let device = peer.mtu.ok_or_else(|| because("the device's largest packet is not known"))?;
    let [least, most] = PATIENCE;
    let patience = echoes.round_trip.map_or(most, |time| (time * 4).clamp(least, most));
    let deadline = Instant::now() + SEARCH;
    let vrf = peer.vrf.clone();
    let search = Search { peer: peer.peer, from: peer.local, vrf, device, patience, deadline };
    known(path_mtu::search(&search))?.ok_or_else(|| because("packets of known size got no answer"))
}
