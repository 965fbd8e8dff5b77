//! The walk, rule by rule, in words.

use crate::core::model::route::protocol_name;
use crate::core::model::rule::prefix_words;
use crate::core::model::{Nexthop, Route, Rule, RuleAction};
use crate::core::report::explain::{Did, NexthopReport, RouteReport, Selector, Suppressor, WalkStep};
use crate::core::walk::{self, End, Fib, Flow, Found, LOOPBACK_INDEX, Mismatch, Outcome, Policy, Walk};

/// Every rule with what it did; those that stand after the deciding one were not asked.
pub(in crate::core) fn steps(fib: &Fib<'_>, policy: &Policy<'_>, walk: &Walk<'_>, flow: &Flow) -> Vec<WalkStep> {
    let step =
        |rule: &Rule, decided: bool, did: Did| WalkStep { priority: rule.priority, rule: rule.words(), decided, did };
    let asked = walk.steps.iter().map(|(rule, outcome)| {
        let decided = matches!(outcome, Outcome::Decided);
        step(rule, decided, did(fib, policy, walk, flow, rule, outcome))
    });
    let rest = policy.rules().iter().skip(walk.steps.len()).map(|rule| step(rule, false, Did::NotAsked));
    asked.chain(rest).collect()
}

fn did(fib: &Fib<'_>, policy: &Policy<'_>, walk: &Walk<'_>, flow: &Flow, rule: &Rule, outcome: &Outcome<'_>) -> Did {
    match outcome {
        Outcome::JumpedOver => Did::JumpedOver,
        Outcome::NoMatch(mismatch) => {
            let (selector, why) = mismatched(fib, rule, flow, *mismatch);
            Did::NoMatch { selector, why }
        }
        Outcome::Nothing => Did::Nothing { why: nothing(policy, rule) },
        Outcome::Jumped(to) => Did::Jumped { to: *to },
        Outcome::NoRoute { table, empty } => Did::NoRoute { table: *table, empty: *empty },
        Outcome::Thrown(thrown) => Did::Thrown { route: route(fib, thrown) },
        Outcome::Suppressed(found) => Did::Suppressed { route: route(fib, found), by: suppressor(rule, found) },
        Outcome::Decided => decided(fib, walk, flow, rule),
        Outcome::Unknown(why) => Did::CannotTell { why: why.to_string() },
    }
}

/// What the deciding rule did. Where the end is a guess (on link), the rule or its table had refused.
fn decided(fib: &Fib<'_>, walk: &Walk<'_>, flow: &Flow, rule: &Rule) -> Did {
    match &walk.end {
        End::Route { route, nexthops, .. } => Did::Took { route: by_nexthops(fib, route, nexthops) },
        End::RefusedByRoute { route: refusing, .. } => Did::Refused { route: Some(route(fib, refusing)) },
        _ => {
            let found = rule.table().map(|table| walk::lookup(fib, table, flow));
            let refusing = match found {
                Some(Found::Refused(refusing)) => Some(route(fib, refusing)),
                _ => None,
            };
            Did::Refused { route: refusing }
        }
    }
}

fn nothing(policy: &Policy<'_>, rule: &Rule) -> String {
    match rule.action {
        RuleAction::Goto(target) if !policy.rules().iter().any(|other| other.priority == target) => {
            format!("there is no rule {target} to go to")
        }
        RuleAction::Goto(_) => "it would go backwards, which the kernel does not".into(),
        _ => "it does nothing by itself".into(),
    }
}

/// The prefix length is asked about first (`fib4_rule_suppress`).
fn suppressor(rule: &Rule, route: &Route) -> Suppressor {
    let by_length = rule.suppress_prefix_length.filter(|_| walk::suppressed_by_length(rule, route));
    match (by_length, rule.suppress_ifgroup) {
        (Some(length), _) => Suppressor::SuppressPrefixlength(length),
        (None, group) => Suppressor::SuppressIfgroup(group.unwrap_or(0)),
    }
}

/// A route with all its nexthops.
pub(super) fn route(fib: &Fib<'_>, route: &Route) -> RouteReport {
    by_nexthops(fib, route, &route.nexthops.iter().collect::<Vec<_>>())
}

fn by_nexthops(fib: &Fib<'_>, route: &Route, nexthops: &[&Nexthop]) -> RouteReport {
    let nexthop = |nexthop: &&Nexthop| NexthopReport {
        gateway: nexthop.gateway,
        device: nexthop.ifindex.map(|index| fib.snapshot().device_name(index)),
    };
    RouteReport {
        route: route.to_string(),
        table: route.table,
        protocol: protocol_name(route.protocol),
        nexthops: nexthops.iter().map(nexthop).collect(),
    }
}

/// Which selector does not fit, and why, with the flow's own value.
fn mismatched(fib: &Fib<'_>, rule: &Rule, flow: &Flow, mismatch: Mismatch) -> (Selector, String) {
    let hex = |value: u32| format!("{value:#x}");
    let prefix = |prefix: Option<ipnet::IpNet>| prefix.map_or_else(|| "all".into(), |prefix| prefix_words(&prefix));
    let (selector, for_what, has) = match mismatch {
        Mismatch::InputInterface | Mismatch::InputInterfaceGone => return incoming(fib, rule, flow, mismatch),
        Mismatch::OutputInterface | Mismatch::OutputInterfaceGone => return bound(fib, rule, flow, mismatch),
        Mismatch::Mark => {
            let mark = rule.mark.map_or_else(String::new, |mark| match mark.mask {
                u32::MAX => hex(mark.value),
                mask => format!("{:#x}/{mask:#x}", mark.value),
            });
            (Selector::Fwmark, format!("mark {mark}"), hex(flow.mark))
        }
        Mismatch::TunnelId => {
            (Selector::TunnelId, format!("tunnel id {}", rule.tunnel_id.unwrap_or(0)), flow.tunnel_id.to_string())
        }
        Mismatch::L3mdev => return (Selector::L3mdev, "only for packets of a VRF, this is of none".into()),
        Mismatch::User => {
            let users = rule.uid_range.map_or_else(String::new, |uids| match uids.end {
                end if end == uids.start => format!("user {end}"),
                end => format!("users {} to {end}", uids.start),
            });
            (Selector::Uid, users, flow.uid.to_string())
        }
        Mismatch::To => (Selector::To, format!("destination {}", prefix(rule.to)), flow.to.to_string()),
        Mismatch::From => {
            let source = flow.from.map_or_else(|| "none".into(), |from| from.to_string());
            (Selector::From, format!("source {}", prefix(rule.from)), source)
        }
        Mismatch::NoSource => (Selector::From, format!("source {}", prefix(rule.from)), "none yet".into()),
        Mismatch::Inverted => {
            return (Selector::Not, "it is for all but such packets, and this is one of them".into());
        }
        other => of_header(rule, flow, other),
    };
    (selector, format!("only for {for_what}, this flow has {has}"))
}

/// Selectors of the packet's header: the selector, what the rule is for, what the flow has.
fn of_header(rule: &Rule, flow: &Flow, mismatch: Mismatch) -> (Selector, String, String) {
    let ports = |ports: Option<crate::core::model::Ports>| ports.map_or_else(String::new, |ports| ports.to_string());
    match mismatch {
        Mismatch::Dscp => {
            let dscp = rule.dscp.map_or(0, |dscp| dscp.value);
            (Selector::Dscp, format!("DSCP {dscp}"), (flow.tos >> 2).to_string())
        }
        Mismatch::FlowLabel => {
            let label = rule.flow_label.map_or(0, |label| label.value);
            (Selector::FlowLabel, format!("flow label {label:#x}"), format!("{:#x}", flow.flow_label))
        }
        Mismatch::Protocol => {
            let protocol = rule.ip_protocol.unwrap_or(0);
            (Selector::Protocol, format!("IP protocol {protocol}"), flow.protocol.to_string())
        }
        Mismatch::SourcePort => {
            (Selector::SourcePort, format!("source port {}", ports(rule.source_ports)), flow.source_port.to_string())
        }
        Mismatch::DestinationPort => {
            let port = flow.destination_port.to_string();
            (Selector::DestinationPort, format!("destination port {}", ports(rule.destination_ports)), port)
        }
        _ => (Selector::Tos, format!("type of service {:#04x}", rule.tos), format!("{:#04x}", flow.tos)),
    }
}

fn incoming(fib: &Fib<'_>, rule: &Rule, flow: &Flow, mismatch: Mismatch) -> (Selector, String) {
    let name = rule.iif.as_deref().unwrap_or("?");
    let this = match flow.iif {
        LOOPBACK_INDEX => "this is the host's own".into(),
        index => format!("this one came in by {}", fib.snapshot().device_name(index)),
    };
    let why = match (mismatch, name) {
        (Mismatch::InputInterfaceGone, _) => format!("only for packets that come in by {name}, which does not exist"),
        (_, "lo") => format!("only for the host's own packets, {this}"),
        _ => format!("only for packets that come in by {name}, {this}"),
    };
    (Selector::Iif, why)
}

fn bound(fib: &Fib<'_>, rule: &Rule, flow: &Flow, mismatch: Mismatch) -> (Selector, String) {
    let name = rule.oif.as_deref().unwrap_or("?");
    let why = match (mismatch, flow.oif) {
        (Mismatch::OutputInterfaceGone, _) => format!("only for packets bound to {name}, which does not exist"),
        (_, Some(oif)) => {
            format!("only for packets bound to {name}, this one is bound to {}", fib.snapshot().device_name(oif))
        }
        (_, None) => format!("only for packets bound to {name}, this one is bound to none"),
    };
    (Selector::Oif, why)
}
