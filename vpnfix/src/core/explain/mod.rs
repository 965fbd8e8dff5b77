//! One packet explained: its walk through the rules, the kernel's answer beside it, and, where a tunnel should have had
//! it, what stands in the way and what would change that.

mod belonging;
mod kernel;
mod question;
mod remedy;
pub(super) mod steps;
mod unlearned;

use super::destination::{Class, Destination};
use super::finding::{Finding, NamedRule, Reason};
use super::model::{Answer, Family, Question, Reply, Route, RouteKind, Rule, TABLE_MAIN};
use super::owner::{self, Clues};
use super::plan::{self, Plan};
use super::report::explain::{
    AddressKind, AgreementState, Belonging, Effect, ExplainReport, Obstacle, Packet, PacketVerdict, Remedy, RemedyName,
    SCHEMA, Way, WayEnd,
};
use super::report::{Outcome, VERSION, diagnose::PlanReport};
use super::tunnel::Tunnel;
use super::walk::{self, End, Fib, Flow, LOOPBACK_INDEX, Match};
use belonging::Claim;

pub use question::{Unaskable, check, kernel_takes};

/// What an explanation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The host.
    pub fib: &'a Fib<'a>,
    /// Its tunnels.
    pub tunnels: &'a [Tunnel],
    /// All that belongs into them.
    pub destinations: &'a [Destination],
    /// Signs of other programs.
    pub clues: &'a Clues,
    /// The packet.
    pub question: &'a Question,
    /// The kernel's answer, where it can be asked.
    pub answer: Option<&'a Answer>,
}

impl Case<'_> {
    fn flow(&self) -> Flow {
        Flow::from(self.question)
    }
}

/// Explains the packet. Where the verdict is [`PacketVerdict::Wrong`], [`add_plan`] completes it.
#[must_use]
pub fn explain(case: Case<'_>) -> ExplainReport {
    let flow = case.flow();
    let policy = case.fib.policy(flow.family());
    let walk = walk::retrace(case.fib, &policy, &flow);
    let address = belonging::kind(case.fib, flow.to);
    let (claim, mut notes) = belonging::claim(case, address);
    let agreement = kernel::agreement(case, &walk.end);
    let verdict = match agreement.state {
        // Where no packet is taken at all, none is led astray.
        AgreementState::NotAccepted if claim.tunnel().is_some() => PacketVerdict::Unknown,
        _ => verdict(case, &claim),
    };
    let hijacker = deciding_rule(case, &walk.end);
    let claimed = claim.tunnel().filter(|_| verdict == PacketVerdict::Wrong);
    if verdict == PacketVerdict::NoTunnel && address == AddressKind::Unicast && notes.is_empty() {
        notes.extend(hijacker.map(|rule| unlearned::notes(case, rule)).unwrap_or_default());
    }
    notes.extend(bound_hides(case, verdict, &claim));
    notes.extend(claimed.and(hijacker).and_then(|rule| meant(rule, flow.to)));
    ExplainReport {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        outcome: match verdict {
            PacketVerdict::Right | PacketVerdict::NoTunnel => Outcome::Ok,
            PacketVerdict::Wrong => Outcome::FaultFound,
            PacketVerdict::Unknown => Outcome::Unable,
        },
        host: case.fib.snapshot().host.clone(),
        netns: case.fib.snapshot().netns.clone(),
        flow: packet(case.fib, &flow),
        address,
        steps: steps::steps(case.fib, &policy, &walk, &flow),
        reading: way(case.fib, &walk.end),
        kernel: case.answer.map(|answer| kernel::answer(case.fib, answer)),
        agreement,
        verdict,
        belongs: claim.tunnel().map(|(destination, tunnels)| belonging(case.fib, destination, tunnels)),
        obstacle: claimed.map(|(destination, tunnels)| obstacle(case, destination, tunnels, &walk.end, hijacker)),
        remedies: match (claimed, hijacker) {
            (Some((destination, tunnels)), Some(rule)) => remedy::remedies(case, destination, tunnels, rule),
            _ => Vec::new(),
        },
        plan: None,
        cure: Vec::new(),
        notes,
    }
}

/// Adds what `fix` would do, made from the findings about the whole host.
pub fn add_plan(case: Case<'_>, report: &mut ExplainReport, findings: &[Finding], plan: &Plan) {
    let flow = case.flow();
    let (Claim::Tunnel(destination, tunnels), _) = belonging::claim(case, report.address) else { return };
    let about: Vec<Finding> =
        findings.iter().filter(|finding| plan::is_of(case.fib.snapshot(), finding, destination)).cloned().collect();
    report.cure = owner::cures(case.fib.snapshot(), case.clues, &about);
    let bears = |rule: &Rule| rule.family == flow.family() && rule.to.is_none_or(|to| to.contains(&flow.to));
    let mut steps = plan.steps.clone();
    steps.retain(|step| bears(&step.rule));
    let mut left_out = plan.left_out.clone();
    left_out.retain(|left| left.prefix == destination.prefix);
    let satisfied: Vec<Rule> = plan.satisfied.iter().filter(|rule| bears(rule)).cloned().collect();
    if !plan.steps.is_empty() {
        let rules: Vec<Rule> = plan.steps.iter().map(|step| step.rule.clone()).collect();
        let shown = steps.iter().map(|step| step.rule.add_command()).collect();
        let (effect, way) = remedy::tried(case, &tunnels, &rules);
        let standing = satisfied.iter().map(ToString::to_string).collect();
        let remedy = Remedy { remedy: RemedyName::Plan, rules: shown, standing, effect, way };
        // Before the cure at the root, which closes the list.
        let place = report.remedies.iter().position(|remedy| remedy.remedy == RemedyName::Root);
        report.remedies.insert(place.unwrap_or(report.remedies.len()), remedy);
    }
    let part = Plan { steps, satisfied, left_out, ..plan.clone() };
    report.plan = Some(PlanReport::from(&part));
}

/// Does the packet go where it should? The kernel's answer decides.
fn verdict(case: Case<'_>, claim: &Claim<'_>) -> PacketVerdict {
    let tunnels = match claim {
        Claim::Tunnel(_, tunnels) => tunnels,
        Claim::Nobody => return PacketVerdict::NoTunnel,
        Claim::Unknown => return PacketVerdict::Unknown,
    };
    match case.answer.map(|answer| &answer.reply) {
        Some(Reply::Arrives(arrival)) if !arrival.local && tunnels.contains(&arrival.ifindex) => PacketVerdict::Right,
        Some(_) => PacketVerdict::Wrong,
        None => PacketVerdict::Unknown,
    }
}

/// The rule behind the kernel's answer: that of the walk where both agree on the table, else the first that looks the
/// kernel's table up and may match.
fn deciding_rule<'a>(case: Case<'a>, end: &End<'a>) -> Option<&'a Rule> {
    let Some(Reply::Arrives(arrival)) = case.answer.map(|answer| &answer.reply) else { return end.rule() };
    if let End::Route { rule, table, .. } = end
        && *table == arrival.table
    {
        return Some(rule);
    }
    let flow = case.flow();
    let may_match = |rule: &&Rule| !matches!(walk::matches(case.fib, rule, &flow), Match::No(_));
    case.fib.snapshot().rules_of(flow.family()).filter(|rule| rule.table() == Some(arrival.table)).find(may_match)
}

fn obstacle(
    case: Case<'_>,
    destination: &Destination,
    tunnels: &[u32],
    end: &End<'_>,
    hijacker: Option<&Rule>,
) -> Obstacle {
    let is_up = |index: &u32| case.fib.link(*index).is_some_and(|link| link.up);
    let down = !tunnels.iter().any(is_up);
    let entry = case.answer.and_then(|answer| answer.entry.as_ref());
    let reason = match (case.answer.map(|answer| &answer.reply), end) {
        (Some(Reply::Arrives(_)), _) if down => Reason::TunnelDown,
        (Some(Reply::Arrives(arrival)), _) if arrival.table == destination.table => Reason::ShadowedByRoute,
        (Some(Reply::Arrives(_)), _) => Reason::HijackedByRule,
        (_, End::RefusedByRule(_)) => Reason::UnreachableRule,
        (_, End::RefusedByRoute { .. }) => Reason::UnreachableRoute,
        (_, End::NoRoute) if down => Reason::TunnelDown,
        (_, End::NoRoute) => Reason::NoRoute,
        _ => Reason::Unexplained,
    };
    let route = match end {
        End::Route { route, .. } | End::RefusedByRoute { route, .. } => entry.or(Some(*route)),
        _ => entry,
    };
    Obstacle {
        reason,
        rule: hijacker.map(|rule| NamedRule { priority: rule.priority, text: rule.words() }),
        route: route.map(|route| steps::route(case.fib, route)),
        owner: owner::owner(case.fib.snapshot(), case.clues, hijacker),
    }
}

fn belonging(fib: &Fib<'_>, destination: &Destination, tunnels: &[u32]) -> Belonging {
    Belonging {
        prefix: destination.prefix,
        class: destination.class.into(),
        tunnels: tunnels.iter().map(|index| fib.snapshot().device_name(*index)).collect(),
        table: destination.table,
    }
}

fn packet(fib: &Fib<'_>, flow: &Flow) -> Packet {
    let name = |index: u32| fib.snapshot().device_name(index);
    Packet {
        to: flow.to,
        from: flow.from,
        iif: Some(flow.iif).filter(|iif| *iif != LOOPBACK_INDEX).map(name),
        oif: flow.oif.map(name),
        mark: flow.mark,
        uid: flow.uid,
        protocol: flow.protocol,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        tos: flow.tos,
    }
}

/// The end of a walk as the report has it.
fn way(fib: &Fib<'_>, end: &End<'_>) -> Way {
    let (kind, table, doubt) = match end {
        End::Route { table, route, .. } if is_local(route) => (WayEnd::DeliveredHere, Some(*table), None),
        End::Route { table, .. } => (WayEnd::Leaves, Some(*table), None),
        End::RefusedByRule(_) => (WayEnd::Refused, None, None),
        End::RefusedByRoute { route, .. } => (WayEnd::Refused, Some(route.table), None),
        End::AssumedOnLink(_) => (WayEnd::AssumedOnLink, None, None),
        End::NoRoute => (WayEnd::NoRoute, None, None),
        End::Undecided { doubt, .. } => (WayEnd::CannotTell, None, Some(doubt.to_string())),
    };
    Way {
        end: kind,
        devices: end.devices().into_iter().map(|index| fib.snapshot().device_name(index)).collect(),
        table,
        priority: end.rule().map(|rule| rule.priority),
        doubt,
    }
}

fn is_local(route: &Route) -> bool {
    route.kind == RouteKind::Local
}

/// Bound to the tunnel's device a packet goes right where others do not: `ping -I` hides the fault in this way.
fn bound_hides(case: Case<'_>, verdict: PacketVerdict, claim: &Claim<'_>) -> Option<String> {
    let (_, tunnels) = claim.tunnel()?;
    let bound = case.question.output_interface.filter(|oif| tunnels.contains(oif))?;
    let plain = Flow { oif: None, ..case.flow() };
    let end = walk::walk(case.fib, &case.fib.policy(plain.family()), &plain);
    let elsewhere = !end.is_undecided() && !end.devices().iter().any(|device| tunnels.contains(device));
    let name = case.fib.snapshot().device_name(bound);
    (verdict == PacketVerdict::Right && elsewhere)
        .then(|| format!("it goes right because it is bound to {name}; without that it would not (ask without --oif)"))
}

/// A rule that names this traffic was most likely made for it.
fn meant(rule: &Rule, to: std::net::IpAddr) -> Option<String> {
    let selective = rule.from.is_some() || rule.iif.is_some() || rule.mark.is_some() || rule.uid_range.is_some();
    let names = selective || rule.ip_protocol.is_some() || rule.to.is_some_and(|prefix| prefix.contains(&to));
    (names && !rule.invert).then(|| {
        format!("rule {} is for some traffic only, this packet's among it: somebody may have meant it", rule.priority)
    })
}

/// The inside prefixes of a family whose routes stand in main.
fn inside<'a>(case: Case<'a>, family: Family) -> impl Iterator<Item = &'a Destination> {
    case.destinations.iter().filter(move |destination| {
        destination.class == Class::Inside
            && destination.table == TABLE_MAIN
            && Family::of(destination.address) == family
    })
}

/// What an end of the walk means for a packet that belongs into these tunnels.
fn effect(end: &End<'_>, tunnels: &[u32]) -> Effect {
    let devices = end.devices();
    match end {
        End::Undecided { .. } => Effect::CannotTell,
        End::Route { route, .. } if is_local(route) => Effect::DoesNotCure,
        _ if !devices.is_empty() && devices.iter().all(|device| tunnels.contains(device)) => Effect::Cures,
        _ => Effect::DoesNotCure,
    }
}

#[cfg(test)]
pub(crate) mod incident;
#[cfg(test)]
mod tests;
