//! What works outside of tunnels only, and goes into one all the same.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cause::Cause;
use super::known::Known;
use super::question::{Asked, Subject};
use super::{About, finding};
use crate::core::control::{Outside, OutsideKind, is_of_a_cloud};
use crate::core::finding::{Expected, Finding, Note, NoteId, Reason, Variant, few};
use crate::core::model::{Answer, Reply, RouteKind, TABLE_MAIN};
use crate::core::tunnel::Tunnel;
use crate::core::walk::Flow;

/// What judging them yields.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<Note>,
}

pub(super) fn judge<'q>(known: &Known<'_>, answered: impl Iterator<Item = (&'q Asked, &'q Answer)>) -> Judged {
    let mut judged = Judged::default();
    let mut harmless: Vec<(String, IpAddr)> = Vec::new();
    for (asked, answer) in answered {
        let (Subject::Outside(outside), Reply::Arrives(arrival)) = (&asked.subject, &answer.reply) else { continue };
        let Some(tunnel) = known.tunnel(arrival.ifindex).filter(|_| !arrival.local) else { continue };
        match outside.kind {
            OutsideKind::IkePeer(own) if own != tunnel.ifindex => judged.notes.push(Note {
                id: NoteId::PeerByOtherTunnel,
                text: format!(
                    "the {} ({}) is reached by {}, another tunnel",
                    outside.name, outside.address, tunnel.name
                ),
            }),
            OutsideKind::Service if !answers_here(known, answer) => {
                harmless.push((tunnel.name.clone(), outside.address));
            }
            // Routed packets carry the gateway's hardware address, not its IP address: that this one follows everything
            // else into a tunnel is how a VPN client works.
            OutsideKind::DefaultGateway if is_by_default_route(answer) => {}
            _ => judged.findings.push(enters(known, outside, tunnel, answer)),
        }
    }
    for group in harmless.chunk_by(|a, b| a.0 == b.0) {
        let addresses: Vec<IpAddr> = group.iter().map(|(_, address)| *address).collect();
        judged.notes.extend(group.first().map(|(tunnel, _)| Note {
            id: NoteId::ServiceInTunnel,
            text: format!(
                "{} are services of clouds and go into {tunnel} with a wider route; that matters on a cloud's machine alone, \
                 and this seems to be none",
                few(&addresses, 2)
            ),
        }));
    }
    judged
}

fn is_by_default_route(answer: &Answer) -> bool {
    answer.entry.as_ref().is_some_and(|route| route.destination.prefix_len() == 0)
}

/// Is a service answered on this machine's own link, as far as can be told? On a cloud's machine it is. And a route for
/// link-local addresses is no accident of a wide prefix.
fn answers_here(known: &Known<'_>, answer: &Answer) -> bool {
    let vendor = known.case.fib.snapshot().host.vendor.as_deref();
    let link_local = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_link_local());
    let narrow = answer
        .entry
        .as_ref()
        .is_some_and(|route| link_local(route.destination.network()) && route.destination.prefix_len() >= 16);
    vendor.is_some_and(is_of_a_cloud) || narrow
}

fn enters(known: &Known<'_>, outside: &Outside, tunnel: &Tunnel, answer: &Answer) -> Finding {
    let rule = known.walk(&Flow::from(&answer.question)).rule().filter(|rule| !rule.is_kernel_default());
    let route = answer.entry.as_ref().map_or_else(|| "a route".into(), ToString::to_string);
    let device = device_outside(known, outside.address);
    let cause = match outside.kind {
        OutsideKind::IkePeer(_) => Cause::of(Reason::OuterLoop).detail(format!(
            "{route} sends {}, the far end of {} itself, into {}: its encrypted packets would be routed into it again",
            outside.address, tunnel.name, tunnel.name
        )),
        OutsideKind::Service | OutsideKind::DefaultGateway => Cause::of(Reason::ControlInTunnel)
            .detail(format!("{route} sends the {} ({}) into {}", outside.name, outside.address, tunnel.name)),
    };
    let prefix = IpNet::from(outside.address);
    let by = device.as_ref().map_or_else(|| "the physical device".into(), |device| format!("{device}, by its gateway"));
    let advice = match outside.kind {
        // A route of main would come too late.
        _ if rule.is_some() => "the rule that sends it there, or its table, has to go, or a rule before it".into(),
        OutsideKind::IkePeer(_) => format!("a route for {} alone out of {by}", outside.address),
        OutsideKind::Service | OutsideKind::DefaultGateway => {
            format!("routes for these addresses alone out of {by}, or no such route into the tunnel")
        }
    };
    let about = About {
        tunnel: tunnel.name.clone(),
        destination: outside.address,
        prefix,
        expected: Expected { device: device.unwrap_or_else(|| "no tunnel".into()), table: TABLE_MAIN },
    };
    finding(known, about, cause.by(rule).advice(advice), Some((Variant::Plain, answer)))
}

/// The device of main's longest route for an address that enters no tunnel.
fn device_outside(known: &Known<'_>, address: IpAddr) -> Option<String> {
    let routes = known.case.fib.covering(TABLE_MAIN, IpNet::from(address)).into_iter().flatten();
    routes
        .filter(|route| route.kind == RouteKind::Unicast)
        .find_map(|route| {
            route.nexthops.iter().filter_map(|hop| hop.ifindex).find(|index| known.tunnel(*index).is_none())
        })
        .map(|index| known.name(index))
}
