//! Where the tunnels' destinations go, as `diagnose` judges it; vpnfix's own rules; forwarding.

use std::collections::BTreeSet;

use super::check::{Area, Check, CheckId, State};
use super::facts::Facts;
use super::ipsec::NAMED;
use super::{counter, risen};
use crate::core::finding::few;
use crate::core::model::{Family, Link, LinkKind, Rule, TABLE_LOCAL};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::plan;
use crate::core::report::cause::Cause;

/// All checks of routing.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = destinations(facts);
    checks.extend(Family::ALL.into_iter().filter_map(|family| own_rules(facts, family)));
    checks.extend(forwarding(facts));
    checks
}

fn check(id: CheckId, state: State, found: impl Into<String>) -> Check {
    Check::new(Area::Routing, id, state, found)
}

/// One failed check for each cause.
fn destinations(facts: &Facts<'_>) -> Vec<Check> {
    if facts.destinations.is_empty() {
        let text = if facts.tunnels.is_empty() {
            "no tunnel here (no link of kind vti, vti6 or xfrm; `--tunnel DEV` names another)"
        } else {
            "nothing is routed through a tunnel here"
        };
        return vec![check(CheckId::Destinations, State::Skipped, text)];
    }
    if facts.causes.is_empty() {
        let text = match facts.destinations.len() {
            1 => "the one destination of the tunnels goes into its own".into(),
            count => format!("all {count} destinations of the tunnels go into them"),
        };
        return vec![check(CheckId::Destinations, State::Ok, text)];
    }
    facts.causes.iter().map(|cause| of_cause(facts, cause)).collect()
}

fn of_cause(facts: &Facts<'_>, cause: &Cause) -> Check {
    let findings: Vec<_> =
        facts.judgement.findings.iter().filter(|finding| cause.findings.contains(&finding.id)).collect();
    let tunnels: BTreeSet<String> = findings.iter().map(|finding| finding.tunnel.clone()).collect();
    let prefixes: BTreeSet<String> = findings.iter().map(|finding| finding.prefix.to_string()).collect();
    let prefixes: Vec<String> = prefixes.into_iter().collect();
    let rule = cause.rule.as_ref().map_or_else(String::new, |rule| format!(" (rule {}: {})", rule.priority, rule.text));
    let text = format!("{}{rule}: {}", cause.sentence, few(&prefixes, NAMED));
    let advice = match (&cause.cured_by.advice, cause.cured_by.steps.is_empty()) {
        (Some(advice), true) => advice.clone(),
        (_, false) => "`vpnfix fix` repairs it; `vpnfix diagnose` shows rule, route and owner".into(),
        (None, true) => "`vpnfix diagnose` shows rule, route and owner".into(),
    };
    check(CheckId::Destinations, State::Failed, text)
        .about(cause.reason.name(), tunnels.into_iter().collect())
        .advice(advice)
}

/// vpnfix's own rules come before what hijacks, and after table local's.
fn own_rules(facts: &Facts<'_>, family: Family) -> Option<Check> {
    let rules: Vec<&Rule> = facts.snapshot.rules_of(family).collect();
    let is_own = |rule: &Rule| rule.protocol == VPNFIX_PROTOCOL;
    let own: Vec<&Rule> = rules.iter().copied().filter(|rule| is_own(rule)).collect();
    let last = own.last()?;
    let name = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let check = |state, text: String| check(CheckId::OwnRules, state, text).about(name, Vec::new());
    let again = "`vpnfix undo`, then `vpnfix fix`, puts them where they belong";
    let hijackers = plan::hijackers(facts.snapshot, &facts.judgement.findings);
    if let Some(hijacker) = hijackers.iter().find(|rule| rule.family == family && rule.priority <= last.priority) {
        let text = format!("the rule `{hijacker}` comes before `{last}` and decides first");
        return Some(check(State::Failed, text).advice(again));
    }
    let local = rules.iter().find(|rule| rule.table() == Some(TABLE_LOCAL) && rule.is_kernel_default());
    if let (Some(first), Some(local)) = (own.first(), local)
        && first.priority < local.priority
    {
        let text = format!("`{first}` comes before the rule of table local");
        return Some(check(State::Failed, text).advice(again));
    }
    let words: Vec<String> = own.iter().map(|rule| format!("`{rule}`")).collect();
    Some(check(State::Ok, format!("in place, and in the right order: {}", few(&words, NAMED))))
}

/// A gateway forwards. A host that only has a VPN for itself need not.
fn forwarding(facts: &Facts<'_>) -> Option<Check> {
    let tunnels: Vec<&Link> = facts.tunnels.iter().filter_map(|tunnel| facts.snapshot.link(tunnel.ifindex)).collect();
    tunnels.first()?;
    let off: Vec<&str> =
        tunnels.iter().filter(|link| !link.settings.forwarding).map(|link| link.name.as_str()).collect();
    let behind = lan_devices(facts);
    let refusing: Vec<&str> =
        behind.iter().filter(|link| !link.settings.forwarding).map(|link| link.name.as_str()).collect();
    if off.is_empty() && refusing.is_empty() {
        return Some(check(CheckId::Forwarding, State::Ok, "on, between the tunnels and the other devices"));
    }
    let stopped: Vec<&str> = off.iter().chain(&refusing).copied().collect();
    let Some(sign) = gateway_sign(facts, &behind) else {
        let text =
            format!("off on {}: only this host itself uses the tunnels, as far as can be seen", few(&stopped, NAMED));
        return Some(check(CheckId::Forwarding, State::Skipped, text));
    };
    let text = format!("off on {}, and {sign}", few(&stopped, NAMED));
    Some(
        check(CheckId::Forwarding, State::Failed, text)
            .advice("`sysctl -w net.ipv4.ip_forward=1`, and in /etc/sysctl.d"),
    )
}

/// Devices with networks behind them.
fn lan_devices<'a>(facts: &Facts<'a>) -> Vec<&'a Link> {
    let is_tunnel = |link: &Link| facts.tunnels.iter().any(|tunnel| tunnel.ifindex == link.index);
    let has_address = |link: &Link| {
        let of_link = |address: &&crate::core::model::Address| address.ifindex == link.index && address.local.is_ipv4();
        facts.snapshot.addresses.iter().any(|address| of_link(&address) && address.scope == 0)
    };
    let carries = |link: &&Link| {
        link.up
            && !matches!(link.kind, LinkKind::Loopback | LinkKind::Vrf { .. })
            && !is_tunnel(link)
            && has_address(link)
    };
    facts.snapshot.links.iter().filter(carries).collect()
}

/// What shows that others are to use the tunnels through this host.
fn gateway_sign(facts: &Facts<'_>, behind: &[&Link]) -> Option<String> {
    let announced = facts.measured.bgp.as_ref().ok().and_then(|bgp| {
        let inside = |address| facts.tunnels.iter().any(|tunnel| tunnel.inside.iter().any(|i| i.peer == Some(address)));
        bgp.neighbours.iter().find(|neighbour| inside(neighbour.address) && neighbour.sent.unwrap_or(0) > 0)
    });
    if let Some(neighbour) = announced {
        return Some(format!("BGP announces {} prefixes to {}", neighbour.sent.unwrap_or(0), neighbour.address));
    }
    let refused = risen(facts, "IpInAddrErrors");
    if refused > 0 {
        return Some(format!("{refused} packets for others were dropped meanwhile"));
    }
    if let [_, _, ..] = behind {
        let names: Vec<&str> = behind.iter().map(|link| link.name.as_str()).collect();
        return Some(format!("there are networks at {}", few(&names, NAMED)));
    }
    let forwarded = counter(facts, "IpForwDatagrams").filter(|count| *count > 0)?;
    Some(format!("this host has forwarded {forwarded} packets before"))
}
