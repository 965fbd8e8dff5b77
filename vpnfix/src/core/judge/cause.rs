//! Why an answer is what it is: the reason, the rule that decided, and what is known besides.

use std::net::IpAddr;

use super::known::Known;
use super::{is_exempt_from_validation, refusal};
use crate::core::destination::{Class, Destination, halves};
use crate::core::finding::{Reason, Variant};
use crate::core::model::rule::table_word;
use crate::core::model::{Answer, Arrival, Family, Reply, Route, Rule};
use crate::core::owner::{self, is_closing};
use crate::core::tunnel::Tunnel;
use crate::core::walk::{self, End, Flow, Match};

/// Why something is wrong.
#[derive(Debug)]
pub(super) struct Cause<'a> {
    pub(super) reason: Reason,
    pub(super) rule: Option<&'a Rule>,
    pub(super) detail: Option<String>,
    pub(super) advice: Option<String>,
}

impl<'a> Cause<'a> {
    pub(super) fn of(reason: Reason) -> Self {
        Self { reason, rule: None, detail: None, advice: None }
    }

    pub(super) fn by(self, rule: Option<&'a Rule>) -> Self {
        Self { rule, ..self }
    }

    pub(super) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub(super) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What is wrong with an answer, if anything is.
pub(super) fn of<'a>(
    known: &Known<'a>,
    destination: &Destination,
    variant: Variant,
    answer: &Answer,
) -> Option<Cause<'a>> {
    match variant {
        Variant::Reverse => incoming(known, destination, answer),
        _ if known.goes_right(destination, &answer.reply) => {
            (variant == Variant::Plain).then(|| wrong_source(known, destination, answer))?
        }
        _ => Some(wrong_way(known, destination, answer)),
    }
}

/// The cause of an answer that leads elsewhere or nowhere.
pub(super) fn wrong_way<'a>(known: &Known<'a>, destination: &Destination, answer: &Answer) -> Cause<'a> {
    let tunnel = known.tunnel_of(destination);
    let flow = Flow::from(&answer.question);
    let end = known.walk(&flow);
    let cause = match &answer.reply {
        Reply::Refused(_) => match end {
            End::RefusedByRule(rule) => Cause::of(Reason::UnreachableRule).by(Some(rule)),
            End::RefusedByRoute { rule, .. } => Cause::of(Reason::UnreachableRoute).by(Some(rule)),
            End::NoRoute => Cause::of(Reason::NoRoute),
            End::Route { .. } | End::Undecided { .. } | End::AssumedOnLink(_) => Cause::of(Reason::Unexplained),
        },
        Reply::Arrives(arrival) => {
            let rule = rule_to_table(known, &end, &flow, arrival.table);
            if arrival.local {
                delivered_here(known, answer).by(rule)
            } else if arrival.table == destination.table {
                same_table(known, destination, arrival, answer.entry.as_ref()).by(rule)
            } else if destination.vrf.is_some() {
                out_of_vrf(known, destination).by(rule)
            } else {
                hijacked(known, flow.family(), rule)
            }
        }
    };
    let down = tunnel.filter(|tunnel| !tunnel.up);
    match (down, cause.reason) {
        (Some(tunnel), Reason::PeerIsOwn | Reason::DuplicateInside) => cause.detail(format!("{} is down", tunnel.name)),
        (Some(tunnel), reason) if reason != Reason::UnreachableRule && reason != Reason::UnreachableRoute => {
            Cause::of(Reason::TunnelDown).by(cause.rule).advice(format!("`ip link set {} up`", tunnel.name))
        }
        (Some(tunnel), _) if cause.rule.is_some_and(is_closing) => Cause::of(Reason::TunnelDown)
            .by(cause.rule)
            .detail("vpnfix's own rule keeps it from leaving in the clear")
            .advice(format!("`ip link set {} up`", tunnel.name)),
        (None, _) if cause.rule.is_some_and(is_closing) => Cause::of(Reason::NoRoute)
            .by(cause.rule)
            .detail("main has no route for it now, and vpnfix's own rule keeps it from leaving in the clear"),
        _ => cause,
    }
}

/// A rule sends it into another table. If it stands in front of our own, that is why they do not help.
fn hijacked<'a>(known: &Known<'a>, family: Family, rule: Option<&'a Rule>) -> Cause<'a> {
    let cause = Cause::of(Reason::HijackedByRule).by(rule);
    let in_front = owner::in_front_of_ours(known.rules(family));
    match rule.filter(|rule| in_front.contains(rule)) {
        Some(_) => cause.detail(
            "that rule stands in front of vpnfix's own, where a rule lands that is added without a priority: give it one \
             behind them where it is made, or run `vpnfix fix` again",
        ),
        None => cause,
    }
}

/// The right table, the wrong route.
fn same_table<'a>(known: &Known<'a>, destination: &Destination, arrival: &Arrival, entry: Option<&Route>) -> Cause<'a> {
    let other = known.tunnel(arrival.ifindex).filter(|other| overlaps(other, destination));
    if let Some(other) = other.filter(|_| destination.class == Class::Inside) {
        return duplicate(destination, &other.name);
    }
    let device = known.name(arrival.ifindex);
    let table = table_word(destination.table);
    let Some(entry) = entry else { return Cause::of(Reason::ShadowedByRoute) };
    let (is, should) = (entry.destination.prefix_len(), destination.prefix.prefix_len());
    let tunnel = destination.tunnels.first().map_or_else(String::new, |index| known.name(*index));
    if is < should {
        return Cause::of(Reason::MissingRoute)
            .detail(format!("table {table} has no usable route for {}; {entry} takes it", destination.prefix))
            .advice(format!("a route for it: `ip route add {} dev {tunnel} table {table}`", destination.prefix));
    }
    match halves(known.case.fib, destination.table, destination.prefix) {
        Some([lower, upper]) if is == should + 1 => Cause::of(Reason::ShadowedByHalves)
            .detail(format!(
                "{} and {} by {device} together cover {}: OpenVPN's `redirect-gateway def1` makes such a pair, and \
                 strongSwan with `routing_table = 0`",
                lower.destination, upper.destination, destination.prefix
            ))
            .advice(
                "take the pair away where it is made: `pull-filter ignore redirect-gateway` (OpenVPN), \
                 `install_routes = no` (strongSwan)",
            ),
        _ => Cause::of(Reason::ShadowedByRoute)
            .detail(format!(
                "table {table} has {entry} by {device}, which is {} than the tunnel's route",
                if is > should { "more specific" } else { "better (its metric is smaller, or it came first)" }
            ))
            .advice(format!(
                "take that route away where it is made: `ip route del {entry} dev {device} table {table}`"
            )),
    }
}

fn overlaps(tunnel: &Tunnel, destination: &Destination) -> bool {
    tunnel.table == destination.table
        && !destination.tunnels.contains(&tunnel.ifindex)
        && tunnel.inside.iter().any(|inside| inside.prefix.contains(&destination.address))
}

/// Two tunnels with the same inside prefix.
pub(super) fn duplicate<'a>(destination: &Destination, other: &str) -> Cause<'a> {
    Cause::of(Reason::DuplicateInside)
        .detail(format!(
            "{other} has {} inside too, and the kernel can route it to one tunnel only",
            destination.prefix
        ))
        .advice("give one of the tunnels another inside prefix, at both ends; or put one of them into a VRF")
}

fn delivered_here<'a>(known: &Known<'a>, answer: &Answer) -> Cause<'a> {
    let address = answer.question.destination;
    let device = known.device_with(address).unwrap_or_else(|| "this host".into());
    Cause::of(Reason::PeerIsOwn)
        .detail(format!("{address} is an address of {device} itself, so nothing for it ever leaves"))
        .advice("look whether the inside addresses of the two ends are swapped")
}

fn out_of_vrf<'a>(known: &Known<'a>, destination: &Destination) -> Cause<'a> {
    let rules = known.rules(Family::of(destination.address));
    let vrf = destination.vrf.map_or_else(String::new, |index| known.name(index));
    let detail = match rules.iter().find(|rule| rule.l3mdev) {
        Some(rule) => format!("flows of VRF {vrf} find its table by rule `{rule}`, which comes too late"),
        None => format!("no l3mdev rule sends flows of VRF {vrf} into its table"),
    };
    Cause::of(Reason::HijackedFromVrf).detail(detail)
}

/// The rule that led to the table which the kernel says it used: the engine's where both agree, else the first that
/// looks the table up and may match.
fn rule_to_table<'a>(known: &Known<'a>, end: &End<'a>, flow: &Flow, table: u32) -> Option<&'a Rule> {
    if let End::Route { rule, table: found, .. } = end
        && *found == table
    {
        return Some(rule);
    }
    let may_match = |rule: &&&Rule| {
        rule.table() == Some(table) && !matches!(walk::matches(known.case.fib, rule, flow), Match::No(_))
    };
    known.rules(flow.family()).iter().find(may_match).copied()
}

/// The way is right, but the peer inside knows only the tunnel's own address.
fn wrong_source<'a>(known: &Known<'a>, destination: &Destination, answer: &Answer) -> Option<Cause<'a>> {
    let (Reply::Arrives(arrival), Class::Inside) = (&answer.reply, destination.class) else { return None };
    let (source, tunnel) = (arrival.source?, known.tunnel(arrival.ifindex)?);
    let right = destination.inside_source?;
    if tunnel.inside.iter().any(|inside| inside.local == source) {
        return None;
    }
    let preferred = answer.entry.as_ref().and_then(|route| route.preferred_source) == Some(source);
    let why = if preferred { "the route says so (`src`)" } else { "the kernel chooses it" };
    let change = if preferred { "replace" } else { "change" };
    let advice = format!("`ip route {change} {} dev {} src {right}`", destination.prefix, tunnel.name);
    Some(
        Cause::of(Reason::WrongSource)
            .detail(format!(
                "the source is {source}, {}, where the peer expects {right}: {why}",
                owner_of(known, source)
            ))
            .advice(advice),
    )
}

/// Whose address it is, in words.
pub(super) fn owner_of(known: &Known<'_>, address: IpAddr) -> String {
    let device = known.device_with(address);
    device.map_or_else(|| "no address of this host".into(), |device| format!("an address of {device}"))
}

/// Packets of the other side that come in by the tunnel.
fn incoming<'a>(known: &Known<'a>, destination: &Destination, answer: &Answer) -> Option<Cause<'a>> {
    let device = *destination.tunnels.first()?;
    match &answer.reply {
        Reply::Arrives(arrival) if arrival.local => None,
        Reply::Arrives(arrival) => {
            let end = known.walk(&Flow::from(&answer.question));
            let to = known.name(arrival.ifindex);
            let detail =
                format!("a packet for {} is not delivered here, it would leave by {to}", answer.question.destination);
            Some(Cause::of(Reason::ReversePath).by(named(end.rule())).detail(detail))
        }
        Reply::Refused(22 | 18) if is_exempt_from_validation(known, device) => None,
        Reply::Refused(errno) => Some(invalid_source(known, destination, device, *errno)),
    }
}

/// Why the source validation fails (`__fib_validate_source`, `net/ipv4/fib_frontend.c`): it looks up the way back by the
/// same rules.
fn invalid_source<'a>(known: &Known<'a>, destination: &Destination, device: u32, errno: i32) -> Cause<'a> {
    let name = known.name(device);
    let cause = Cause::of(Reason::ReversePath);
    if Family::of(destination.address) == Family::V6 {
        return cause.detail(format!("the kernel says: {}", refusal(errno)));
    }
    let end = known.walk(&Flow { from: destination.inside_source, ..Flow::plain(destination.address) });
    let value = filter_value(known, device);
    let detail = match end.devices().first() {
        Some(back) if !destination.tunnels.contains(back) => {
            format!("the way back to {} is by {}, so {value} drops it", destination.address, known.name(*back))
        }
        Some(_) => format!("{value} drops it, although the way back to {} is by {name}", destination.address),
        None => format!("there is no way back to {}, so {value} drops it", destination.address),
    };
    cause.by(named(end.rule())).detail(detail).advice(loosen(known, device))
}

/// The effective setting in words, with its value where it is known to be on.
pub(super) fn filter_value(known: &Known<'_>, device: u32) -> String {
    match known.case.fib.link(device).map_or(0, |link| link.settings.rp_filter) {
        0 => "source validation (rp_filter)".into(),
        1 => "rp_filter 1 (strict)".into(),
        value => format!("rp_filter {value} (loose)"),
    }
}

/// What lets packets in by a device. The loose setting does not where the device has no address (`no_addr` in
/// `__fib_validate_source`).
pub(super) fn loosen(known: &Known<'_>, device: u32) -> String {
    let name = known.name(device);
    if has_address(known, device) {
        return format!(
            "set net.ipv4.conf.{name}.rp_filter to 2 (the larger of it and of net.ipv4.conf.all.rp_filter counts)"
        );
    }
    format!(
        "give {name} an IPv4 address and set its rp_filter to 2; or set net.ipv4.conf.{name}.rp_filter and \
         net.ipv4.conf.all.rp_filter to 0 (the larger counts, and 2 does not help without an address)"
    )
}

fn has_address(known: &Known<'_>, device: u32) -> bool {
    let tunnel = known.tunnel(device);
    tunnel.is_some_and(|tunnel| tunnel.inside.iter().any(|inside| Family::of(inside.local) == Family::V4))
}

/// Packets that come in fail for the same cause for which others do not get out.
pub(super) fn also_dropped(known: &Known<'_>, destination: &Destination) -> Option<String> {
    let device = *destination.tunnels.first()?;
    let bare = if has_address(known, device) { "" } else { ", which has no IPv4 address" };
    Some(format!(
        "what comes in by {}{bare} is dropped as well by {}, since the way back is wrong; that ends with this fault",
        known.name(device),
        filter_value(known, device)
    ))
}

/// A rule worth naming: the kernel's own three are on every host.
fn named(rule: Option<&Rule>) -> Option<&Rule> {
    rule.filter(|rule| !rule.is_kernel_default())
}
