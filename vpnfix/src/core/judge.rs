//! From the kernel's answers to findings.

use super::destination::{Class, Destination};
use super::finding::{Actual, Expected, Finding, NamedRule, Note, NoteId, Reason, Severity, Variant};
use super::model::{Answer, Question, Reply, Rule, Snapshot, route::protocol_name};
use super::owner::{self, Clues};
use super::tunnel::Tunnel;
use super::walk::{self, End, Fib, Flow, Match};

mod notes;

/// A question about a destination, and what an answer to it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Index of the destination.
    pub destination: usize,
    /// Which question.
    pub variant: Variant,
    /// The question itself.
    pub question: Question,
}

/// TCP's IP protocol number.
const TCP: u8 = 6;
/// BGP's TCP port (RFC 4271).
const BGP_PORT: u16 = 179;

/// Every question to ask about the destinations (design §4).
#[must_use]
pub fn questions(destinations: &[Destination]) -> Vec<Asked> {
    destinations.iter().enumerate().flat_map(|(index, destination)| variants(index, destination)).collect()
}

fn variants(index: usize, destination: &Destination) -> Vec<Asked> {
    let plain = Question { output_interface: destination.vrf, ..Question::plain(destination.address) };
    let mut asked = vec![(Variant::Plain, plain.clone())];
    if let Some(source) = destination.inside_source {
        let from_inside = Question { source: Some(source), ..plain.clone() };
        asked.push((Variant::FromInside, from_inside.clone()));
        if destination.class == Class::Inside {
            let tcp = Question { ip_protocol: Some(TCP), ..from_inside };
            asked.push((Variant::BgpActive, Question { destination_port: Some(BGP_PORT), ..tcp.clone() }));
            asked.push((Variant::BgpPassive, Question { source_port: Some(BGP_PORT), ..tcp }));
            asked.push((Variant::Reverse, reverse(destination, source)));
        }
    }
    if let Some(tunnel) = destination.tunnels.first() {
        asked.push((Variant::BoundToTunnel, Question { output_interface: Some(*tunnel), ..plain }));
    }
    asked.into_iter().map(|(variant, question)| Asked { destination: index, variant, question }).collect()
}

/// A packet of the peer for the inside address, coming in by the tunnel: the kernel validates its source on the way.
fn reverse(destination: &Destination, inside: std::net::IpAddr) -> Question {
    Question {
        source: Some(destination.address),
        input_interface: destination.tunnels.first().copied(),
        ..Question::plain(inside)
    }
}

/// What judging yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
    /// For each destination: did every question go right?
    pub right: Vec<bool>,
}

/// What a judgement is made from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The host.
    pub fib: &'a Fib<'a>,
    /// Its tunnels.
    pub tunnels: &'a [Tunnel],
    /// What belongs into them.
    pub destinations: &'a [Destination],
    /// Signs of other programs.
    pub clues: &'a Clues,
}

/// Judges the kernel's answers, given in the order of the questions.
#[must_use]
pub fn judge(case: Case<'_>, asked: &[Asked], answers: &[Answer]) -> Judgement {
    let mut judgement = Judgement { notes: notes::notes(case), ..Judgement::default() };
    for (index, destination) in case.destinations.iter().enumerate() {
        let answered: Vec<(Variant, &Answer)> = asked
            .iter()
            .zip(answers)
            .filter(|(asked, _)| asked.destination == index)
            .map(|(asked, answer)| (asked.variant, answer))
            .collect();
        let findings = judge_destination(case, destination, &answered);
        judgement.right.push(findings.is_empty());
        judgement.findings.extend(findings);
        judgement.notes.extend(disagreement(case, &answered));
    }
    judgement.findings.sort_by_key(|finding| (finding.severity, finding.reason));
    judgement
}

/// Wrong answers of one destination with the same cause are one finding.
fn judge_destination(case: Case<'_>, destination: &Destination, answered: &[(Variant, &Answer)]) -> Vec<Finding> {
    let right_when_bound =
        answered.iter().any(|(variant, answer)| *variant == Variant::BoundToTunnel && goes_right(destination, answer));
    let mut findings: Vec<Finding> = Vec::new();
    for (variant, answer) in answered {
        let wrong = match variant {
            Variant::Reverse => !matches!(&answer.reply, Reply::Arrives(arrival) if arrival.local),
            _ => !goes_right(destination, answer),
        };
        if !wrong {
            continue;
        }
        let finding = finding(case, destination, *variant, answer, right_when_bound);
        // A packet that would not get out fails the source validation for the same cause.
        let same = findings.iter_mut().find(|other| {
            (other.reason == finding.reason && other.rule == finding.rule)
                || (*variant == Variant::Reverse && other.reason != Reason::ReversePath)
        });
        match same {
            Some(other) => other.variants.push(*variant),
            None => findings.push(finding),
        }
    }
    findings
}

fn goes_right(destination: &Destination, answer: &Answer) -> bool {
    matches!(&answer.reply, Reply::Arrives(arrival) if !arrival.local && destination.tunnels.contains(&arrival.ifindex))
}

fn finding(
    case: Case<'_>,
    destination: &Destination,
    variant: Variant,
    answer: &Answer,
    right_when_bound: bool,
) -> Finding {
    let snapshot = case.fib.snapshot();
    let tunnel = case.tunnels.iter().find(|tunnel| Some(&tunnel.ifindex) == destination.tunnels.first());
    let device = destination.tunnels.first().map_or_else(String::new, |index| snapshot.device_name(*index));
    let (reason, rule) = cause(case.fib, destination, tunnel, variant, answer);
    let in_the_clear = matches!(&answer.reply, Reply::Arrives(arrival)
        if !arrival.local && case.tunnels.iter().all(|tunnel| tunnel.ifindex != arrival.ifindex));
    let severity = if in_the_clear && variant != Variant::Reverse { Severity::Critical } else { Severity::Error };
    let name = serde_plain(reason);
    let by = rule.map_or_else(String::new, |rule| format!(":{}", rule.priority));
    Finding {
        id: format!("{name}:{device}:{}{by}", destination.prefix),
        severity,
        tunnel: device.clone(),
        destination: destination.address,
        prefix: destination.prefix,
        reason,
        expected: Expected { device, table: destination.table },
        actual: actual(snapshot, answer),
        rule: rule.map(|rule| NamedRule { priority: rule.priority, text: rule.words() }),
        owner: owner::of_decision(snapshot, case.clues, rule, answer.entry.as_ref()),
        variants: vec![variant],
        right_when_bound,
    }
}

/// The identifier of a reason as JSON spells it.
fn serde_plain(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
}

fn actual(snapshot: &Snapshot, answer: &Answer) -> Actual {
    let entry = answer.entry.as_ref();
    let route = entry.map(ToString::to_string);
    let route_protocol = entry.map(|route| protocol_name(route.protocol));
    match &answer.reply {
        Reply::Arrives(arrival) => Actual {
            device: Some(snapshot.device_name(arrival.ifindex)),
            table: Some(arrival.table),
            gateway: arrival.gateway,
            source: arrival.source,
            route,
            route_protocol,
            error: None,
        },
        Reply::Refused(errno) => {
            Actual { route, route_protocol, error: Some(refusal(*errno).to_string()), ..Actual::default() }
        }
    }
}

/// A refused lookup in words (the errnos of `fib_rule_action` and `fib_props`).
#[must_use]
pub fn refusal(errno: i32) -> &'static str {
    match errno {
        101 => "network is unreachable",
        113 => "no route to host",
        13 => "administratively prohibited",
        22 | 18 => "invalid argument (dropped in silence, or the source is not valid here)",
        _ => "refused",
    }
}

/// Why the answer is what it is, and the rule that decided it.
fn cause<'a>(
    fib: &Fib<'a>,
    destination: &Destination,
    tunnel: Option<&Tunnel>,
    variant: Variant,
    answer: &Answer,
) -> (Reason, Option<&'a Rule>) {
    let flow = Flow::from(&answer.question);
    let end = walk::walk(fib, &fib.policy(flow.family()), &flow);
    match &answer.reply {
        _ if variant == Variant::Reverse => (Reason::ReversePath, None),
        Reply::Refused(_) => match end {
            End::RefusedByRule(rule) => (Reason::UnreachableRule, Some(rule)),
            End::RefusedByRoute { rule, .. } => (Reason::UnreachableRoute, Some(rule)),
            End::NoRoute if tunnel.is_some_and(|tunnel| !tunnel.up) => (Reason::TunnelDown, None),
            End::NoRoute => (Reason::NoRoute, None),
            End::Route { .. } | End::Undecided { .. } | End::AssumedOnLink(_) => (Reason::Unexplained, None),
        },
        Reply::Arrives(arrival) => {
            let rule = rule_to_table(fib, &end, &flow, arrival.table);
            let reason = if tunnel.is_some_and(|tunnel| !tunnel.up) {
                Reason::TunnelDown
            } else if arrival.table == destination.table {
                Reason::ShadowedByRoute
            } else {
                Reason::HijackedByRule
            };
            (reason, rule)
        }
    }
}

/// The rule that led to the table which the kernel says it used: the engine's where both agree, else the first that
/// looks the table up and may match.
fn rule_to_table<'a>(fib: &Fib<'a>, end: &End<'a>, flow: &Flow, table: u32) -> Option<&'a Rule> {
    if let End::Route { rule, .. } = end
        && rule.table() == Some(table)
    {
        return Some(rule);
    }
    fib.snapshot()
        .rules_of(flow.family())
        .find(|rule| rule.table() == Some(table) && !matches!(walk::matches(fib, rule, flow), Match::No(_)))
}

/// The engine and the kernel should agree on the plain question; where they do not, it is said.
fn disagreement(case: Case<'_>, answered: &[(Variant, &Answer)]) -> Option<Note> {
    let (_, answer) = answered.iter().find(|(variant, _)| *variant == Variant::Plain)?;
    let flow = Flow::from(&answer.question);
    let end = walk::walk(case.fib, &case.fib.policy(flow.family()), &flow);
    let agree = match (&end, &answer.reply) {
        (End::Undecided { .. }, _) => true,
        (End::Route { table, .. }, Reply::Arrives(arrival)) => {
            *table == arrival.table && (arrival.local || end.leaves_by(arrival.ifindex))
        }
        (End::AssumedOnLink(device), Reply::Arrives(arrival)) => arrival.ifindex == *device,
        (End::Route { .. } | End::AssumedOnLink(_), Reply::Refused(_)) => false,
        (End::RefusedByRule(_) | End::RefusedByRoute { .. } | End::NoRoute, reply) => {
            matches!(reply, Reply::Refused(_))
        }
    };
    (!agree).then(|| Note {
        id: NoteId::EngineDisagrees,
        text: format!(
            "for {} the kernel's answer differs from what the rules and routes say by vpnfix's reading; the kernel's holds",
            flow.to
        ),
    })
}

#[cfg(test)]
mod tests;
