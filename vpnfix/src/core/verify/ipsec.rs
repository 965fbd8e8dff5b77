//! IPsec: policies and SAs of each tunnel, both directions, and what they count.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::binding::{Binding, ends, mark_words, serves};
use super::check::{Area, Check, CheckId, State};
use super::facts::{Facts, Known, NotKnown};
use super::traffic;
use crate::core::destination::Destination;
use crate::core::finding::few;
use crate::core::model::{Direction, Family, Link, Policy, SecurityAssociation, Snapshot, Template};
use crate::core::tunnel::Tunnel;

/// So many things are named in one sentence.
pub(super) const NAMED: usize = 3;

/// What policies and SAs a tunnel has.
#[derive(Clone, Debug)]
pub(super) struct Bound<'a> {
    pub(super) tunnel: &'a Tunnel,
    pub(super) binding: Binding,
    pub(super) out: Option<&'a Policy>,
    pub(super) inward: Option<&'a Policy>,
    pub(super) out_sa: Option<&'a SecurityAssociation>,
    pub(super) in_sa: Option<&'a SecurityAssociation>,
    /// Bytes of all outbound SAs together: while one replaces another there are two.
    pub(super) out_bytes: u64,
    /// Bytes of all inbound SAs together.
    pub(super) in_bytes: u64,
}

/// The tunnels of IPsec, with their policies and SAs.
///
/// # Errors
/// Policies or SAs could not be read.
pub(super) fn bound<'a>(facts: &Facts<'a>) -> Known<Vec<Bound<'a>>> {
    let policies = facts.measured.policies.as_ref().map_err(NotKnown::clone)?;
    let associations = facts.measured.after.associations.as_ref().map_err(NotKnown::clone)?;
    let of = |tunnel: &'a Tunnel| {
        let binding = Binding::of(facts.snapshot.link(tunnel.ifindex)?)?;
        let policy = |direction| best(policies, binding, tunnel, direction);
        let (out, inward) = (policy(Direction::Out), policy(Direction::In));
        let found = |policy: Option<&Policy>, direction| -> Vec<&'a SecurityAssociation> {
            policy.map_or_else(Vec::new, |policy| of_policy(policy, binding, associations, direction).collect())
        };
        let (outs, ins) = (found(out, Direction::Out), found(inward, Direction::In));
        let bytes = |all: &[&SecurityAssociation]| all.iter().map(|association| association.usage.bytes).sum();
        let (out_bytes, in_bytes) = (bytes(&outs), bytes(&ins));
        let (out_sa, in_sa) = (newest(outs.into_iter()), newest(ins.into_iter()));
        Some(Bound { tunnel, binding, out, inward, out_sa, in_sa, out_bytes, in_bytes })
    };
    Ok(facts.tunnels.iter().filter_map(of).collect())
}

/// Bytes that the outbound SAs of each tunnel have encrypted, by the tunnel's interface index; without the tunnels that no
/// policy is tied to.
#[must_use]
pub fn encrypted(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    policies: &[Policy],
    associations: &[SecurityAssociation],
) -> BTreeMap<u32, u64> {
    let of = |tunnel: &Tunnel| {
        let binding = Binding::of(snapshot.link(tunnel.ifindex)?)?;
        let policy = best(policies, binding, tunnel, Direction::Out)?;
        let bytes = of_policy(policy, binding, associations, Direction::Out).map(|association| association.usage.bytes);
        Some((tunnel.ifindex, bytes.fold(0, u64::saturating_add)))
    };
    tunnels.iter().filter_map(of).collect()
}

/// The SAs that a tunnel's packets find by a policy; none for a policy that asks for none. What the kernel only keeps a place
/// for, until the daemon has negotiated it, has no SPI yet.
fn of_policy<'a>(
    policy: &Policy,
    binding: Binding,
    associations: &'a [SecurityAssociation],
    direction: Direction,
) -> impl Iterator<Item = &'a SecurityAssociation> {
    let template = policy.templates.first().copied();
    associations.iter().filter(move |association| {
        association.spi != 0
            && template.is_some_and(|template| serves(association, &template))
            && binding.finds_association(association, direction)
    })
}

/// The policy that packets of a tunnel find: of those that fit, the first by priority that covers its peer.
fn best<'a>(policies: &'a [Policy], binding: Binding, tunnel: &Tunnel, direction: Direction) -> Option<&'a Policy> {
    let fitting = policies.iter().filter(|policy| policy.direction == direction && binding.finds(policy));
    fitting.min_by_key(|policy| (!covers_peer(policy, tunnel), policy.priority))
}

fn newest<'a>(associations: impl Iterator<Item = &'a SecurityAssociation>) -> Option<&'a SecurityAssociation> {
    associations.max_by_key(|association| association.usage.added)
}

/// Does the policy take what goes between the inside addresses?
fn covers_peer(policy: &Policy, tunnel: &Tunnel) -> bool {
    let inside = tunnel.inside.iter().find(|inside| Family::of(inside.local) == family(policy));
    inside.is_none_or(|inside| {
        let peer = inside.peer.unwrap_or(inside.local);
        let (from, to) = if policy.direction == Direction::Out { (inside.local, peer) } else { (peer, inside.local) };
        policy.source.contains(&from) && policy.destination.contains(&to)
    })
}

fn family(policy: &Policy) -> Family {
    Family::of(policy.destination.addr())
}

/// All checks of IPsec.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = present(facts);
    match bound(facts) {
        Ok(bound) => checks.extend(bound.iter().flat_map(|bound| of_tunnel(facts, bound))),
        Err(NotKnown(why)) => {
            let bound = facts.tunnels.iter().any(|tunnel| is_ipsec(facts, tunnel));
            if bound {
                let text = format!("SAs and policies could not be read: {why}");
                checks.push(skipped(CheckId::OutboundSa, text).advice("run it as root (`sudo vpnfix verify`)"));
            }
        }
    }
    let others: Vec<&Tunnel> = facts.tunnels.iter().filter(|tunnel| !is_ipsec(facts, tunnel)).collect();
    checks.extend(others.iter().map(|tunnel| {
        let text = format!("{} is of kind {}: IPsec, if any, is not tied to it", tunnel.name, tunnel.kind);
        skipped(CheckId::OutboundSa, text).of_tunnel(&tunnel.name)
    }));
    checks
}

fn skipped(id: CheckId, found: impl Into<String>) -> Check {
    Check::new(Area::Ipsec, id, State::Skipped, found)
}

pub(super) fn is_ipsec(facts: &Facts<'_>, tunnel: &Tunnel) -> bool {
    facts.snapshot.link(tunnel.ifindex).and_then(Binding::of).is_some()
}

/// Policies with marks or ids that no interface here has: the interface lies in another namespace, or was never made.
fn present(facts: &Facts<'_>) -> Vec<Check> {
    let Ok(policies) = &facts.measured.policies else { return Vec::new() };
    let bindings: Vec<Binding> = facts.snapshot.links.iter().filter_map(Binding::of).collect();
    let for_interface = |policy: &&Policy| {
        // Marks are also used without an interface, by the packet filter; then for some addresses alone.
        let for_all = policy.source.prefix_len() == 0 && policy.destination.prefix_len() == 0;
        let marked = policy.mark.is_some_and(|mark| mark.mask != 0) && for_all;
        policy.direction == Direction::Out && (marked || policy.if_id != 0)
    };
    let alone = |policy: &&Policy| !bindings.iter().any(|binding| binding.finds(policy));
    let endpoints = |policy: &Policy| policy.templates.first().map(|template| (template.source, template.destination));
    // An interface with the right endpoints and another key is that tunnel's fault, and told there.
    let near = |policy: &&Policy| {
        let ends = endpoints(policy);
        bindings.iter().any(|binding| match *binding {
            Binding::Keys { local, remote, .. } => {
                remote.is_some()
                    && ends.is_some_and(|(near, far)| remote == Some(far) && local.is_none_or(|local| local == near))
            }
            // Which peer an XFRM interface without a policy belongs to is not known.
            Binding::IfId(_) => !policies.iter().any(|policy| binding.finds(policy)),
        })
    };
    let lone = policies.iter().filter(for_interface).filter(alone).filter(|policy| !near(policy));
    let mut told: Vec<String> = Vec::new();
    for policy in lone {
        let what = bond_words(policy);
        let peer = endpoints(policy).map_or_else(String::new, |(_, far)| format!(" to {far}"));
        let text = format!("{what}{peer}");
        if !told.contains(&text) {
            told.push(text);
        }
    }
    if told.is_empty() {
        return Vec::new();
    }
    let text = format!("policies for a tunnel interface that is not in this namespace: {}", few(&told, NAMED));
    let check = Check::new(Area::Interface, CheckId::TunnelPresent, State::Failed, text);
    vec![check.advice(
        "make the interface with that key or if_id, or move it back (`ip -n OTHER link set DEV netns …`); if it belongs into \
         the other namespace, verify it there (`--netns OTHER`)",
    )]
}

fn of_tunnel(facts: &Facts<'_>, bound: &Bound<'_>) -> Vec<Check> {
    let mut checks = vec![ike(facts, bound)];
    checks.push(policy(facts, bound, Direction::Out));
    checks.push(policy(facts, bound, Direction::In));
    checks.extend(endpoints(bound));
    checks.extend(selectors(facts, bound));
    for direction in [Direction::Out, Direction::In] {
        checks.extend(association(facts, bound, direction));
    }
    checks.extend(traffic::lifetime(facts, bound));
    checks.extend(traffic::nat(bound));
    checks.extend(traffic::losses(facts, bound));
    checks.extend(traffic::one_way(facts, bound));
    checks.into_iter().map(|check| check.of_tunnel(&bound.tunnel.name)).collect()
}

/// The outer address of the peer: that of the policies, which the daemon made, before that of the interface.
fn outer_peer(bound: &Bound<'_>) -> Option<IpAddr> {
    let of_policy = bound.out.and_then(|policy| policy.templates.first()).map(|template| template.destination);
    of_policy.filter(|address| !address.is_unspecified()).or(bound.tunnel.outer_peer)
}

fn ike(facts: &Facts<'_>, bound: &Bound<'_>) -> Check {
    let check = |state, found: String| Check::new(Area::Ipsec, CheckId::IkeSa, state, found);
    let all = match &facts.measured.ike {
        Ok(all) => all,
        Err(NotKnown(why)) => return check(State::Skipped, format!("strongSwan was not asked: {why}")),
    };
    let Some(peer) = outer_peer(bound) else {
        return check(State::Skipped, "which peer it belongs to is not known".into());
    };
    let of_peer = || all.iter().filter(|association| association.remote == Some(peer));
    if let Some(up) = of_peer().find(|association| association.is_up()) {
        let since = up.established.map_or_else(String::new, |seconds| format!(" for {}", traffic::time(seconds)));
        let nat = if up.behind_nat { ", through NAT" } else { "" };
        return check(State::Ok, format!("IKE with {peer} ({}) is up{since}{nat}", up.name));
    }
    match (of_peer().next(), bound.out_sa.is_some()) {
        (Some(down), _) => check(State::Failed, format!("IKE with {peer} ({}) is in state {}", down.name, down.state))
            .advice("`swanctl --log` or `journalctl -u strongswan -u strongswan-starter`: proposals, key, identity"),
        // SAs made by hand or by another daemon need none of strongSwan's.
        (None, true) => {
            check(State::Skipped, format!("strongSwan has no IKE association with {peer}, but there are SAs"))
        }
        (None, false) => check(State::Failed, format!("strongSwan has no IKE association with {peer}")).advice(
            "start it (`swanctl --initiate --child NAME` or `ipsec up NAME`); if it stays down: UDP 500 and 4500 open?",
        ),
    }
}

fn policy(facts: &Facts<'_>, bound: &Bound<'_>, direction: Direction) -> Check {
    let (id, found, word) = match direction {
        Direction::Out => (CheckId::OutboundPolicy, bound.out, "outbound"),
        Direction::In | Direction::Forward => (CheckId::InboundPolicy, bound.inward, "inbound"),
    };
    let check = |state, text: String| Check::new(Area::Ipsec, id, state, text);
    let own = bound.binding.words(direction);
    let Some(policy) = found else {
        let near = nearest(facts, bound, direction);
        let beside =
            near.map_or_else(String::new, |policy| format!("; the one between these ends has {}", bond_words(policy)));
        let advice = match (near.is_some(), bound.binding) {
            (true, Binding::Keys { .. }) => "give interface and connection the same number: `key` and `mark`",
            (true, Binding::IfId(_)) => {
                "give interface and connection the same number: `if_id`, `if_id_in` and `if_id_out`"
            }
            (false, _) => "is the connection loaded and up? A child SA brings its policies with it",
        };
        return check(State::Failed, format!("no {word} policy for {own}{beside}")).advice(advice);
    };
    let selectors = format!("{} to {}", policy.source, policy.destination);
    if policy.blocks || policy.templates.is_empty() {
        let does = if policy.blocks { "drops" } else { "lets pass unencrypted" };
        return check(State::Failed, format!("the {word} policy for {own} {does} packets ({selectors})"))
            .advice("remove that policy: `ip xfrm policy` shows it");
    }
    if is_for_all(policy) && matches!(bound.binding, Binding::Keys { .. }) {
        let text = format!("the {word} policy has no mark: it takes every packet of this host ({selectors})");
        return check(State::Failed, text).advice("set `mark` of the connection to the interface's key");
    }
    let beside = if policy.if_id != 0 { own } else { format!("{own}, {}", mark_words(policy.mark)) };
    check(State::Ok, format!("{word} policy for {beside}: {selectors}"))
}

/// What ties a policy to its interface, in words.
fn bond_words(policy: &Policy) -> String {
    match policy.if_id {
        0 => mark_words(policy.mark),
        if_id => format!("if_id {if_id}"),
    }
}

/// A policy without mark and id that is for all addresses is no tunnel's.
fn is_for_all(policy: &Policy) -> bool {
    policy.mark.is_none_or(|mark| mark.mask == 0)
        && policy.if_id == 0
        && policy.source.prefix_len() == 0
        && policy.destination.prefix_len() == 0
}

/// A policy between the same ends, which has another mark or id.
fn nearest<'a>(facts: &Facts<'a>, bound: &Bound<'_>, direction: Direction) -> Option<&'a Policy> {
    let policies = facts.measured.policies.as_ref().ok()?;
    let bindings: Vec<Binding> = facts.snapshot.links.iter().filter_map(Binding::of).collect();
    let unowned = |policy: &&Policy| !bindings.iter().any(|binding| binding.finds(policy));
    let fits = |policy: &&Policy| {
        let template = policy.templates.first();
        policy.direction == direction && template.is_some_and(|template| bound.binding.fits(template, direction))
    };
    policies.iter().filter(fits).find(unowned)
}

fn endpoints(bound: &Bound<'_>) -> Option<Check> {
    let (policy, direction) = match (bound.out, bound.inward) {
        (Some(policy), _) => (policy, Direction::Out),
        (None, Some(policy)) => (policy, Direction::In),
        (None, None) => return None,
    };
    let Binding::Keys { local, remote, .. } = bound.binding else { return None };
    let template = policy.templates.first()?;
    let (near, far) = ends(template, direction);
    let own = format!("{} to {}", words(local), words(remote));
    let check = |state, text| Check::new(Area::Ipsec, CheckId::Endpoints, state, text);
    if bound.binding.fits(template, direction) {
        return Some(check(
            State::Ok,
            format!("the interface's outer addresses are those of its policy: {near} to {far}"),
        ));
    }
    let text = format!("the interface goes from {own}, its policy from {near} to {far}: nothing is sent");
    Some(check(State::Failed, text).advice(
        "make the interface with the policy's addresses; behind NAT `local` is this host's private address, not the public one",
    ))
}

fn words(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "any".into(), |address| address.to_string())
}

/// What goes through the tunnel must lie in the policy's addresses.
fn selectors(facts: &Facts<'_>, bound: &Bound<'_>) -> Option<Check> {
    let policy = bound.out?;
    let check = |state, text| Check::new(Area::Ipsec, CheckId::Selectors, state, text);
    if !covers_peer(policy, bound.tunnel) {
        let text = format!(
            "the outbound policy is for {} to {}, which leaves out the peer inside",
            policy.source, policy.destination
        );
        return Some(
            check(State::Failed, text)
                .advice("a route-based tunnel needs 0.0.0.0/0 on both sides as its traffic selectors"),
        );
    }
    let mine = |destination: &&Destination| {
        destination.tunnels.contains(&bound.tunnel.ifindex) && Family::of(destination.address) == family(policy)
    };
    let outside: Vec<_> = facts
        .destinations
        .iter()
        .filter(mine)
        .filter(|destination| !policy.destination.contains(&destination.prefix))
        .map(|destination| destination.prefix)
        .collect();
    if outside.is_empty() {
        return Some(check(
            State::Ok,
            format!("they cover all that is routed into it ({} to {})", policy.source, policy.destination),
        ));
    }
    let text =
        format!("routed into it, but not in the policy's addresses ({}): {}", policy.destination, few(&outside, NAMED));
    Some(check(State::Warning, text).advice("widen the connection's traffic selectors, or take the routes away"))
}

fn association(facts: &Facts<'_>, bound: &Bound<'_>, direction: Direction) -> Option<Check> {
    let (id, policy, found, word) = match direction {
        Direction::Out => (CheckId::OutboundSa, bound.out?, bound.out_sa, "outbound"),
        Direction::In | Direction::Forward => (CheckId::InboundSa, bound.inward?, bound.in_sa, "inbound"),
    };
    let template = policy.templates.first()?;
    let check = |state, text: String| Check::new(Area::Ipsec, id, state, text);
    if let Some(association) = found {
        return Some(check(State::Ok, traffic::figures(facts, association, word)));
    }
    let (near, far) = ends(template, direction);
    let text = match other_mark(facts, template) {
        Some(other) => format!(
            "the {word} SA ({:#x}) wants {}, and the interface has {}",
            other.spi,
            mark_words(other.mark),
            bound.binding.words(direction)
        ),
        None => format!("no {word} SA between {near} and {far}"),
    };
    let advice = match direction {
        Direction::Out => "the daemon must negotiate it: `swanctl --list-sas` or `ipsec statusall`, then its log",
        Direction::In | Direction::Forward => {
            "`mark_in_sa = no` where the SA has a mark; else the daemon must negotiate it anew: see its log"
        }
    };
    Some(check(State::Failed, text).advice(advice))
}

/// An SA that the policy's template asks for, with a mark or id that keeps the tunnel from it.
fn other_mark<'a>(facts: &Facts<'a>, template: &Template) -> Option<&'a SecurityAssociation> {
    let all = facts.measured.after.associations.as_ref().ok()?.iter();
    newest(all.filter(|association| association.spi != 0 && serves(association, template)))
}

/// The tunnel's interface, as the snapshot has it.
pub(super) fn link<'a>(facts: &Facts<'a>, tunnel: &Tunnel) -> Option<&'a Link> {
    facts.snapshot.link(tunnel.ifindex)
}
