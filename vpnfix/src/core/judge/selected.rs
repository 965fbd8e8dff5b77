//! Rules for some traffic only: of an input interface, a source, a mark, a user, a protocol. Where such a rule keeps
//! traffic out of a tunnel, that is mostly meant so and worth a note; where it catches what the tunnel itself lives by,
//! it is a fault.

use std::collections::{BTreeMap, HashMap};

use super::cause;
use super::known::Known;
use super::question::{Asked, BGP_PORT, Subject, TCP};
use super::{About, family_name, finding};
use crate::core::destination::{Class, Destination};
use crate::core::finding::{Finding, Note, NoteId, Variant, few};
use crate::core::model::{Answer, Family, Ports, Question, Reply, Rule};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::walk::{Flow, LOOPBACK_INDEX};

/// The kernel is asked about so many destinations of a rule; the engine walks all.
const ASKED: usize = 4;
/// Protocols that a route query may name (`rtm_getroute_parse_ip_proto`, `net/ipv4/netlink.c`).
const ASKABLE: [u8; 2] = [TCP, 17];

/// A rule for some traffic, with the destinations that it keeps that traffic from.
struct Elsewhere<'a> {
    index: usize,
    rule: &'a Rule,
    destinations: Vec<usize>,
}

fn elsewhere<'a>(known: &Known<'a>) -> Vec<Elsewhere<'a>> {
    let rules = known.case.fib.snapshot().rules.iter().enumerate().filter(|(_, rule)| is_selective(rule));
    let of = |(index, rule): (usize, &'a Rule)| {
        let all = known.case.destinations.iter().enumerate();
        let kept = all.filter(|(_, destination)| keeps(known, rule, destination)).map(|(index, _)| index).collect();
        Elsewhere { index, rule, destinations: kept }
    };
    rules.map(of).filter(|found| !found.destinations.is_empty()).collect()
}

/// Is the rule for some traffic only, beside its destination? Packets of the host itself (`iif lo`) are what the other
/// questions are about.
fn is_selective(rule: &Rule) -> bool {
    let selective = rule.iif.as_ref().is_some_and(|iif| iif != "lo")
        || rule.from.is_some()
        || rule.mark.is_some()
        || rule.uid_range.is_some()
        || rule.ip_protocol.is_some()
        || rule.source_ports.is_some()
        || rule.destination_ports.is_some();
    selective && !rule.invert && rule.protocol != VPNFIX_PROTOCOL && rule.unknown_attributes.is_empty()
}

/// Does the rule decide about the traffic that it selects, and against the tunnel?
fn keeps(known: &Known<'_>, rule: &Rule, destination: &Destination) -> bool {
    if Family::of(destination.address) != rule.family {
        return false;
    }
    let end = known.walk(&flow_of(known, rule, destination));
    end.rule() == Some(rule) && !end.is_undecided() && !destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel))
}

/// The flow that a rule selects, to a destination.
fn flow_of(known: &Known<'_>, rule: &Rule, destination: &Destination) -> Flow {
    let plain = Flow::plain(destination.address);
    let input = input(known, rule);
    Flow {
        from: source(known, rule, destination).or_else(|| input.and_then(|index| neighbour(known, index, rule.family))),
        iif: input.unwrap_or(plain.iif),
        mark: rule.mark.map_or(0, |mark| mark.value),
        uid: rule.uid_range.map_or(plain.uid, |uids| uids.start),
        protocol: rule.ip_protocol.unwrap_or(plain.protocol),
        source_port: rule.source_ports.map_or(0, Ports::first),
        destination_port: rule.destination_ports.map_or(0, Ports::first),
        tos: rule.dscp.map_or(rule.tos, |dscp| dscp.value << 2),
        flow_label: rule.flow_label.map_or(0, |label| label.value),
        oif: destination.vrf,
        ..plain
    }
}

fn input(known: &Known<'_>, rule: &Rule) -> Option<u32> {
    rule.iif.as_ref().and_then(|name| known.case.fib.link_named(name)).map(|link| link.index)
}

/// An address of the rule's source prefix: the tunnel's inside one if it lies there, else one of the host's own, else any.
fn source(known: &Known<'_>, rule: &Rule, destination: &Destination) -> Option<std::net::IpAddr> {
    let from = rule.from?;
    let own = || known.case.fib.snapshot().addresses.iter().map(|own| own.local).find(|own| from.contains(own));
    destination.inside_source.filter(|inside| from.contains(inside)).or_else(own).or_else(|| from.hosts().next())
}

/// An address on a device's link that is not the host's: what comes in by it may have that source.
fn neighbour(known: &Known<'_>, ifindex: u32, family: Family) -> Option<std::net::IpAddr> {
    let addresses = known.case.fib.snapshot().addresses.iter();
    let prefixes = addresses.filter(|own| own.ifindex == ifindex && Family::of(own.local) == family);
    prefixes.filter_map(|own| own.prefix()).find_map(|prefix| crate::core::destination::sample(known.case.fib, prefix))
}

/// The questions about the traffic that rules select, as far as the kernel takes such a question.
pub(super) fn questions(known: &Known<'_>) -> Vec<Asked> {
    let of = |found: Elsewhere<'_>| {
        let some: Vec<Asked> = found
            .destinations
            .iter()
            .filter_map(|index| {
                let destination = known.case.destinations.get(*index)?;
                let question = question(known, found.rule, destination)?;
                Some(Asked { subject: Subject::Selected { rule: found.index, destination: *index }, question })
            })
            .take(ASKED)
            .collect();
        some
    };
    elsewhere(known).into_iter().flat_map(of).collect()
}

fn question(known: &Known<'_>, rule: &Rule, destination: &Destination) -> Option<Question> {
    let flow = flow_of(known, rule, destination);
    let comes_in = flow.iif != LOOPBACK_INDEX;
    let has_ports = rule.source_ports.is_some() || rule.destination_ports.is_some();
    let protocol = rule.ip_protocol.or(has_ports.then_some(TCP));
    // A packet of this host has a source of this host; one that comes in has any.
    let source_fits = match flow.from {
        Some(source) => comes_in || known.case.fib.is_own(source),
        None => !comes_in,
    };
    let askable = source_fits && protocol.is_none_or(|protocol| ASKABLE.contains(&protocol)) && flow.tos == 0;
    let forwarded = !comes_in || known.case.fib.link(flow.iif).is_some_and(|link| link.settings.forwarding);
    (askable && forwarded && flow.flow_label == 0).then(|| Question {
        source: flow.from,
        input_interface: comes_in.then_some(flow.iif),
        output_interface: if comes_in { None } else { destination.vrf },
        mark: flow.mark,
        uid: rule.uid_range.filter(|_| !comes_in).map(|uids| uids.start),
        ip_protocol: protocol,
        source_port: rule.source_ports.map(Ports::first).filter(|port| *port != 0),
        destination_port: rule.destination_ports.map(Ports::first).filter(|port| *port != 0),
        ..Question::plain(destination.address)
    })
}

/// What judging the rules for some traffic yields.
#[derive(Default)]
pub(super) struct Selected {
    /// Findings, each with the index of its destination.
    pub(super) findings: Vec<(usize, Finding)>,
    pub(super) notes: Vec<Note>,
}

pub(super) fn judge<'q>(known: &Known<'_>, answered: impl Iterator<Item = (&'q Asked, &'q Answer)>) -> Selected {
    let answers: HashMap<(usize, usize), &Answer> = answered
        .filter_map(|(asked, answer)| match asked.subject {
            Subject::Selected { rule, destination } => Some(((rule, destination), answer)),
            _ => None,
        })
        .collect();
    let mut judged = Selected::default();
    let mut others = Others::default();
    for found in elsewhere(known) {
        let mut kept = Vec::new();
        for index in &found.destinations {
            let Some(destination) = known.case.destinations.get(*index) else { continue };
            let answer = answers.get(&(found.index, *index)).copied();
            if answer.is_some_and(|answer| known.goes_right(destination, &answer.reply)) {
                // The kernel's answer holds against the engine's.
                continue;
            }
            match answer.filter(|_| is_the_tunnels_own(found.rule, destination)) {
                Some(answer) => {
                    let cause = cause::wrong_way(known, destination, answer);
                    let about = About::destination(known, destination);
                    judged.findings.push((*index, finding(known, about, cause, Some((Variant::Selected, answer)))));
                }
                None => kept.push((*index, answer)),
            }
        }
        others.add(known, found.rule, &kept);
    }
    judged.notes = others.notes();
    judged
}

/// Does the rule single out what the tunnel lives by: traffic from its inside address, or BGP's? What such rules do to the
/// traffic of the host's root user is asked elsewhere; here it is that of a mark or of another user.
fn is_the_tunnels_own(rule: &Rule, destination: &Destination) -> bool {
    let is_bgp = |ports: Option<Ports>| ports.is_some_and(|ports| ports == Ports::one(BGP_PORT));
    let from_inside = rule
        .from
        .zip(destination.inside_source)
        .is_some_and(|(from, inside)| from.contains(&inside) && from.prefix_len() >= destination.prefix.prefix_len());
    let marked = rule.mark.is_some_and(|mark| mark.value & mark.mask != 0);
    destination.class == Class::Inside
        && rule.iif.as_ref().is_none_or(|iif| iif == "lo")
        && (marked || rule.uid_range.is_some())
        && (from_inside || is_bgp(rule.source_ports) || is_bgp(rule.destination_ports))
}

/// Rules of others that do what they say, told together where they are alike: a node has one for each of its pods.
#[derive(Default)]
struct Others<'a>(BTreeMap<(Family, bool, String), Vec<&'a Rule>>);

impl<'a> Others<'a> {
    fn add(&mut self, known: &Known<'_>, rule: &'a Rule, kept: &[(usize, Option<&Answer>)]) {
        let destinations: Vec<String> = kept
            .iter()
            .filter_map(|(index, _)| known.case.destinations.get(*index))
            .map(|destination| destination.prefix.to_string())
            .collect();
        let confirmed = kept.iter().any(|(_, answer)| answer.is_some_and(|answer| is_elsewhere(&answer.reply)));
        if !destinations.is_empty() {
            self.0.entry((rule.family, confirmed, few(&destinations, 3))).or_default().push(rule);
        }
    }

    fn notes(self) -> Vec<Note> {
        let note = |((family, confirmed, destinations), rules): ((Family, bool, String), Vec<&Rule>)| {
            let quoted: Vec<String> = rules.iter().map(|rule| format!("`{rule}`")).collect();
            let (noun, are, give) = if rules.len() == 1 { ("rule", "is", "gives") } else { ("rules", "are", "give") };
            let by = if confirmed { "the kernel confirms" } else { "by vpnfix's reading of the rules" };
            Note {
                id: NoteId::SomeTrafficElsewhere,
                text: format!(
                    "{} {noun} {} {are} for some traffic only and {give} it a way of its own, to {destinations} as well \
                     ({by}); other traffic is not concerned",
                    family_name(family),
                    few(&quoted, 3)
                ),
            }
        };
        self.0.into_iter().map(note).collect()
    }
}

fn is_elsewhere(reply: &Reply) -> bool {
    matches!(reply, Reply::Arrives(arrival) if !arrival.local)
}
