//! From the kernel's answers to findings.

use super::destination::Destination;
use super::finding::{Actual, Expected, Finding, NamedRule, Note, Reason, Severity, Variant};
use super::model::{Answer, Family, LinkKind, Question, Reply, route::protocol_name};
use super::owner::Clues;
use super::tunnel::Tunnel;
use super::walk::Fib;
use cause::Cause;
use known::Known;

mod cause;
mod known;
mod notes;
mod outside;
mod predict;
mod question;
mod second_way;
mod selected;
mod tunnels;

pub use question::{Asked, Subject, further_questions, questions};

/// What judging yields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
    /// For each destination: did every question go right?
    pub right: Vec<bool>,
    /// For each destination: who answered?
    pub judged_by: Vec<Judge>,
    /// Questions about destinations that the kernel answers otherwise than the engine: what the engine predicts for them
    /// is worth nothing.
    pub unexplained: Vec<Question>,
}

/// Who answered the questions about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judge {
    /// The kernel.
    Kernel,
    /// The engine alone, from the rules and routes: the kernel was not asked.
    Engine,
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

/// An answer about a destination, with the question's variant.
type Answered<'a> = (Variant, &'a Answer);

/// Judges the kernel's answers, given in the order of the questions. A destination that was not asked about is judged by
/// what the engine says.
#[must_use]
pub fn judge(case: Case<'_>, asked: &[Asked], answers: &[Answer]) -> Judgement {
    let known = Known::new(case);
    let mut judgement = Judgement::default();
    let mut of_destinations: Vec<Vec<Answered<'_>>> = vec![Vec::new(); case.destinations.len()];
    for (asked, answer) in asked.iter().zip(answers) {
        if let Subject::Destination { index, variant } = asked.subject
            && let Some(answered) = of_destinations.get_mut(index)
        {
            answered.push((variant, answer));
        }
    }
    for (index, destination) in case.destinations.iter().enumerate() {
        let mut answered = of_destinations.get_mut(index).map(std::mem::take).unwrap_or_default();
        let by_kernel = answered.iter().any(|(variant, _)| *variant == Variant::Plain);
        let predicted = if by_kernel { Vec::new() } else { predict::answers(&known, destination) };
        answered.extend(predicted.iter().map(|(variant, answer)| (*variant, answer)));
        let findings = judge_destination(&known, destination, &answered);
        judgement.right.push(findings.is_empty());
        judgement.judged_by.push(if by_kernel { Judge::Kernel } else { Judge::Engine });
        judgement.findings.extend(findings);
    }
    let pairs = || asked.iter().zip(answers);
    let selected = selected::judge(&known, pairs());
    for (index, finding) in selected.findings {
        if let Some(right) = judgement.right.get_mut(index) {
            *right = false;
        }
        judgement.findings.push(finding);
    }
    let outside = outside::judge(&known, pairs());
    judgement.findings.extend(outside.findings);
    judgement.findings.extend(tunnels::findings(&known, &judgement.findings));
    judgement.notes = notes::notes(&known, pairs());
    judgement.notes.extend(second_way::notes(&known, pairs()));
    judgement.notes.extend(selected.notes);
    judgement.notes.extend(outside.notes);
    judgement.notes.extend(predict::disagreements(&known, pairs()));
    judgement.unexplained = predict::unexplained(&known, pairs());
    judgement.findings.sort_by_key(|finding| (finding.severity, finding.reason));
    judgement
}

/// Wrong answers of one destination with the same cause are one finding.
fn judge_destination(known: &Known<'_>, destination: &Destination, answered: &[Answered<'_>]) -> Vec<Finding> {
    let right_when_bound = answered
        .iter()
        .any(|(variant, answer)| *variant == Variant::BoundToTunnel && known.goes_right(destination, &answer.reply));
    let mut findings: Vec<Finding> = Vec::new();
    for (variant, answer) in answered {
        let Some(cause) = cause::of(known, destination, *variant, answer) else { continue };
        let finding = finding(known, About::destination(known, destination), cause, Some((*variant, answer)));
        match findings.iter_mut().find(|other| is_same(other, &finding, *variant)) {
            Some(other) => {
                other.variants.push(*variant);
                if *variant == Variant::Reverse && other.reason.is_wrong_way() && other.detail.is_none() {
                    other.detail = cause::also_dropped(known, destination);
                }
            }
            None => findings.push(Finding { right_when_bound, ..finding }),
        }
    }
    findings
}

/// Is it the same fault as another finding about the destination? A packet that would not get out fails the source
/// validation for the same cause.
fn is_same(other: &Finding, finding: &Finding, variant: Variant) -> bool {
    let same_rule = other.rule == finding.rule || finding.reason == Reason::TunnelDown;
    let follows = variant == Variant::Reverse && !matches!(other.reason, Reason::ReversePath | Reason::WrongSource);
    (other.reason == finding.reason && same_rule) || follows
}

/// What a finding is about.
struct About {
    tunnel: String,
    destination: std::net::IpAddr,
    prefix: ipnet::IpNet,
    expected: Expected,
}

impl About {
    fn destination(known: &Known<'_>, destination: &Destination) -> Self {
        let device = destination.tunnels.first().map_or_else(String::new, |index| known.name(*index));
        Self {
            tunnel: device.clone(),
            destination: destination.address,
            prefix: destination.prefix,
            expected: Expected { device, table: destination.table },
        }
    }
}

/// A finding, from the answer that shows it if one does.
fn finding<'a>(known: &Known<'a>, about: About, cause: Cause<'a>, answered: Option<Answered<'_>>) -> Finding {
    let answer = answered.map(|(_, answer)| answer);
    let in_the_clear = answer.is_some_and(|answer| {
        matches!(&answer.reply, Reply::Arrives(arrival) if !arrival.local && known.tunnel(arrival.ifindex).is_none())
    });
    let critical = in_the_clear && cause.reason.is_wrong_way();
    let by = cause.rule.map_or_else(String::new, |rule| format!(":{}", rule.priority));
    Finding {
        id: format!("{}:{}:{}{by}", cause.reason.name(), about.tunnel, about.prefix),
        severity: if critical { Severity::Critical } else { Severity::Error },
        tunnel: about.tunnel,
        destination: about.destination,
        prefix: about.prefix,
        reason: cause.reason,
        expected: about.expected,
        actual: answer.map_or_else(Actual::default, |answer| actual(known, answer)),
        rule: cause.rule.map(|rule| NamedRule { priority: rule.priority, text: rule.words() }),
        owner: known.owner(cause.rule, answer.and_then(|answer| answer.entry.as_ref())),
        variants: answered.iter().map(|(variant, _)| *variant).collect(),
        right_when_bound: false,
        detail: cause.detail,
        advice: cause.advice,
    }
}

fn actual(known: &Known<'_>, answer: &Answer) -> Actual {
    let entry = answer.entry.as_ref();
    let route = entry.map(ToString::to_string);
    let route_protocol = entry.map(|route| protocol_name(route.protocol));
    match &answer.reply {
        Reply::Arrives(arrival) => Actual {
            device: Some(known.name(arrival.ifindex)),
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

/// Are packets that come in by it exempt from source validation? Those that an XFRM interface decrypted in its own
/// namespace carry their security path (`fib_validate_source`, `net/ipv4/fib_frontend.c`); a route query carries none.
fn is_exempt_from_validation(known: &Known<'_>, ifindex: u32) -> bool {
    known.case.fib.link(ifindex).is_some_and(|link| matches!(link.kind, LinkKind::Xfrm { .. }))
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests;
