//! What is measured: two samples of all counters with the probes between them, and what is asked of daemons.

use std::collections::BTreeMap;
use std::time::Instant;

use super::reach;
use crate::commands::assess::{Access, Host, netlink_failure};
use crate::commands::cli::VerifyArgs;
use crate::commands::failure::Failure;
use crate::commands::known::known;
use crate::commands::persist;
use crate::core::model::{LinkKind, Question, Reply};
use crate::core::verify::{Known, Machine, Measured, NotKnown, OuterPath, Sample};
use crate::system::{bgp, clock, counters, host, managers, sockets, switches, vici, xfrm};

/// Measures.
///
/// # Errors
/// The interfaces cannot be read: then nothing can be told.
pub(super) async fn measure(access: &Access, host: &Host, args: &VerifyArgs) -> Result<Measured, Failure> {
    let bgp = known(bgp::neighbours());
    let before = sample(access).await?;
    let begun = Instant::now();
    let reach = reach::probe(host, args).await;
    tokio::time::sleep(args.sample.saturating_sub(begun.elapsed())).await;
    let after = sample(access).await?;
    let window = begun.elapsed();
    Ok(Measured {
        before,
        after,
        window,
        policies: known(xfrm::policies()),
        switches: known(switches::read(host.tunnels.iter().map(|tunnel| (tunnel.ifindex, tunnel.name.as_str())))),
        outer: outer(access, host)?,
        ike: ike(),
        bgp,
        sockets: known(sockets::tcp()),
        reach,
        machine: machine(host),
    })
}

fn machine(of: &Host) -> Machine {
    let is_hosts = managers::in_own_namespace() == Some(true);
    let compared = || {
        let links = managers::glance(&of.snapshot.links);
        persist::comparison(&of.snapshot, &links).map_err(|failure| NotKnown::because(failure.message))
    };
    Machine {
        now: host::unix_time(),
        clock_synchronised: clock::is_synchronised(),
        persistence: is_hosts.then(compared),
    }
}

async fn sample(access: &Access) -> Result<Sample, Failure> {
    let links = access.netlink.links().await.map_err(|error| netlink_failure("read the interfaces", &error))?;
    Ok(Sample {
        links: links.iter().map(|link| (link.index, link.counters)).collect(),
        associations: known(xfrm::associations()),
        xfrm: known(counters::xfrm()),
        network: known(counters::network()),
    })
}

/// By which device the encrypted packets leave: the kernel is asked about the peers' outer addresses.
fn outer(access: &Access, host: &Host) -> Result<BTreeMap<u32, OuterPath>, Failure> {
    let peers: Vec<(u32, Question)> = host
        .tunnels
        .iter()
        .filter_map(|tunnel| {
            let local = host.snapshot.link(tunnel.ifindex).and_then(|link| match link.kind {
                LinkKind::Vti { local, .. } => local.filter(|local| !local.is_unspecified()),
                _ => None,
            });
            Some((tunnel.ifindex, Question { source: local, ..Question::plain(tunnel.outer_peer?) }))
        })
        .collect();
    let questions = peers.iter().map(|(_, question)| question.clone()).collect();
    let answers =
        access.queries.ask(questions).map_err(|error| netlink_failure("ask the kernel for routes", &error))?;
    let path = |((tunnel, _), answer): (&(u32, Question), &crate::core::model::Answer)| {
        let Reply::Arrives(arrival) = &answer.reply else { return None };
        let link = host.snapshot.link(arrival.ifindex)?;
        Some((*tunnel, OuterPath { device: link.name.clone(), mtu: link.mtu }))
    };
    Ok(peers.iter().zip(&answers).filter_map(path).collect())
}

/// strongSwan's control socket of this namespace; its file's name is charon's or that which its configuration gives.
fn ike() -> Known<Vec<crate::core::verify::IkeAssociation>> {
    let listeners = known(sockets::unix_listeners())?;
    let socket = listeners.iter().find(|path| path.extension().is_some_and(|end| end == "vici"));
    let socket = socket.ok_or_else(|| NotKnown::because("no vici socket of strongSwan's in this namespace"))?;
    known(vici::associations(socket))
}
