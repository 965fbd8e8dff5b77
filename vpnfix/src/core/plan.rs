//! The plan: which rules to add, where, and why.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::control::{self, Control};
use super::destination::{Class, Destination, may_steer};
use super::finding::{Finding, Reason};
use super::model::{Family, Rule, Snapshot, TABLE_MAIN};
use super::owner::VPNFIX_PROTOCOL;
use super::tunnel::Tunnel;
use super::walk::{self, Fib, Flow};
use places::Places;

mod main_first;
mod places;

pub use main_first::{MainFirst, needs_whole_main};

/// The priority of `inside` rules, as operators know them from the usual advice.
pub const INSIDE_PRIORITY: u32 = 100;

/// How to repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// `inside`, and beside it `main-first` where that is harmless, else `prefixes`.
    #[default]
    Auto,
    /// One rule for each tunnel's inside prefix. Cures BGP, not what BGP learns.
    Inside,
    /// One rule for each prefix that main sends through a tunnel.
    Prefixes,
    /// One rule: main before the hijacker, but for its default route.
    MainFirst,
}

/// What to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The strategy asked for.
    pub strategy: Strategy,
    /// Rules to add.
    pub steps: Vec<Step>,
    /// Rules that are there already, whoever made them, and do what a step would.
    pub satisfied: Vec<Rule>,
    /// Indices of the destinations that it promises to repair.
    pub repairs: Vec<usize>,
    /// What the plan does not cure, and why not.
    pub left_out: Vec<LeftOut>,
    /// What was found about `main-first`, for each family where the strategy asked for it.
    pub main_first: Vec<MainFirst>,
}

/// One rule to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: Rule,
    /// Why, in words.
    pub why: String,
}

/// A destination that the plan does not cure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Why not.
    pub why: String,
}

/// A plan that cannot be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The priority asked for has a foreign rule of another effect.
    #[error("priority {asked} is taken by `{by}`")]
    Taken {
        /// The priority.
        asked: u32,
        /// The rule there.
        by: String,
        /// A free priority that would do.
        free: Option<u32>,
    },
    /// The priority asked for comes after the rule that is to be preceded.
    #[error("priority {asked} comes after `{hijacker}`, so a rule there would change nothing")]
    TooLate {
        /// The priority.
        asked: u32,
        /// The rule.
        hijacker: String,
        /// A free priority that would do.
        free: Option<u32>,
    },
    /// The priority asked for comes before table local's rule: the host's own addresses would not be delivered any more.
    #[error("priority {asked} comes before the rule of table local (priority {local})")]
    TooEarly {
        /// The priority.
        asked: u32,
        /// That of the rule of table local.
        local: u32,
        /// A free priority that would do.
        free: Option<u32>,
    },
    /// There is no free priority before the hijacker.
    #[error("no free priority between the table local's rule and `{hijacker}`")]
    NoRoom {
        /// The rule.
        hijacker: String,
    },
}

impl PlanError {
    /// A free priority to name to the user.
    #[must_use]
    pub fn free_priority(&self) -> Option<u32> {
        match self {
            Self::Taken { free, .. } | Self::TooLate { free, .. } | Self::TooEarly { free, .. } => *free,
            Self::NoRoom { .. } => None,
        }
    }
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The host.
    pub fib: &'a Fib<'a>,
    /// Its tunnels.
    pub tunnels: &'a [Tunnel],
    /// What belongs into them.
    pub destinations: &'a [Destination],
    /// What is wrong.
    pub findings: &'a [Finding],
    /// What must not be drawn into a tunnel.
    pub controls: &'a [Control],
}

/// The rules that findings name as hijackers of a family, in the kernel's order. The kernel's own three are none: what
/// they decide wrongly, no rule cures.
#[must_use]
pub fn hijackers(snapshot: &Snapshot, findings: &[Finding]) -> Vec<Rule> {
    let named: Vec<&Rule> = findings
        .iter()
        .filter(|finding| is_curable(snapshot, finding))
        .filter_map(|finding| rule_of(snapshot, finding))
        .collect();
    snapshot.rules.iter().filter(|rule| named.contains(rule)).cloned().collect()
}

/// The rule that a finding names.
fn rule_of<'a>(snapshot: &'a Snapshot, finding: &Finding) -> Option<&'a Rule> {
    let named = finding.rule.as_ref()?;
    snapshot
        .rules_of(Family::of(finding.destination))
        .find(|rule| rule.priority == named.priority && rule.words() == named.text)
}

/// Can a rule before another cure it, and should one? A rule that names the destination itself, or a part of it, was
/// made for it: somebody meant what it does.
fn is_curable(snapshot: &Snapshot, finding: &Finding) -> bool {
    let Some(rule) = rule_of(snapshot, finding).filter(|rule| !rule.is_kernel_default()) else { return false };
    let elsewhere = match finding.reason {
        Reason::HijackedByRule | Reason::UnreachableRule => true,
        // A refusing route of the right table itself is preceded by no rule.
        Reason::UnreachableRoute => rule.table() != Some(finding.expected.table),
        _ => false,
    };
    elsewhere && !is_meant(rule, finding)
}

fn is_meant(rule: &Rule, finding: &Finding) -> bool {
    rule.to.is_some_and(|to| finding.prefix.contains(&to))
}

/// Makes the plan that cures the findings as far as policy rules can.
///
/// # Errors
/// No priority for the rules.
pub fn plan(situation: Situation<'_>, strategy: Strategy, priority: Option<u32>) -> Result<Plan, PlanError> {
    let mut plan = Plan {
        strategy,
        steps: Vec::new(),
        satisfied: Vec::new(),
        repairs: Vec::new(),
        left_out: Vec::new(),
        main_first: Vec::new(),
    };
    let hijackers = hijackers(situation.fib.snapshot(), situation.findings);
    for family in Family::ALL {
        let of_family: Vec<&Rule> = hijackers.iter().filter(|rule| rule.family == family).collect();
        if let Some(first) = of_family.first() {
            let places = Places { snapshot: situation.fib.snapshot(), hijacker: first, asked: priority };
            plan_family(situation, strategy, &of_family, places, &mut plan)?;
        }
    }
    // A wider rule comes before the narrower ones of its priority: after them the kernel takes it for the same
    // (`rule_exists`, `net/core/fib_rules.c`).
    plan.steps.sort_by_key(|step| (step.rule.family, step.rule.priority, step.rule.to.is_some()));
    leave_out_incurable(situation, &mut plan);
    Ok(plan)
}

fn plan_family(
    situation: Situation<'_>,
    strategy: Strategy,
    hijackers: &[&Rule],
    places: Places<'_>,
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let family = places.hijacker.family;
    let wrong = wrong_destinations(situation, family);
    let inside = wrong.iter().filter(|(_, destination)| destination.class == Class::Inside);
    let routed = wrong.iter().filter(|(_, destination)| destination.class != Class::Inside);
    let alone = match strategy {
        Strategy::Inside | Strategy::Prefixes => None,
        Strategy::MainFirst => Some(places.latest_alone()?),
        Strategy::Auto => places.latest_alone().ok(),
    };
    let rule = alone.map(|priority| main_first::rule(family, priority));
    let judged =
        rule.as_ref().map(|rule| main_first::consider(situation, hijackers, rule, strategy == Strategy::MainFirst));
    let main_first = rule.filter(|_| judged.as_ref().is_some_and(|judged| judged.used));
    plan.main_first.extend(judged);
    let is_main_first = main_first.is_some();
    if let Some(rule) = main_first {
        add(situation, rule, format!("main decides before `{}`, but for its default route", places.hijacker), plan);
        plan.repairs.extend(wrong.iter().map(|(index, _)| *index));
    }
    if matches!(strategy, Strategy::Auto | Strategy::Inside) {
        let at = places.inside()?;
        for (index, destination) in inside.clone() {
            place(situation, *index, inside_rule(destination, at), "inside prefix", plan);
        }
    }
    match strategy {
        _ if is_main_first => {}
        Strategy::Inside => {
            let why = "strategy inside repairs the tunnels' inside prefixes alone";
            plan.left_out.extend(routed.map(|(_, left)| LeftOut { prefix: left.prefix, why: why.into() }));
        }
        Strategy::Auto => {
            for (index, destination) in routed {
                place(situation, *index, prefix_rule(destination, places.latest()?), "prefix", plan);
            }
        }
        Strategy::Prefixes | Strategy::MainFirst => {
            for (index, destination) in &wrong {
                place(situation, *index, prefix_rule(destination, places.latest()?), "prefix", plan);
            }
        }
    }
    Ok(())
}

/// The destinations of a family that a rule hijacks.
fn wrong_destinations<'a>(situation: Situation<'a>, family: Family) -> Vec<(usize, &'a Destination)> {
    situation
        .destinations
        .iter()
        .enumerate()
        .filter(|(_, destination)| {
            Family::of(destination.address) == family
                && destination.table == TABLE_MAIN
                && may_steer(destination)
                && situation.findings.iter().any(|finding| {
                    is_of(situation.fib.snapshot(), finding, destination)
                        && is_curable(situation.fib.snapshot(), finding)
                })
        })
        .collect()
}

/// Is this finding about this destination?
#[must_use]
pub fn is_of(snapshot: &Snapshot, finding: &Finding, destination: &Destination) -> bool {
    let first = destination.tunnels.first().map(|index| snapshot.device_name(*index));
    finding.prefix == destination.prefix
        && finding.expected.table == destination.table
        && first.as_ref() == Some(&finding.tunnel)
}

fn own_rule(family: Family, priority: u32) -> Rule {
    Rule { protocol: VPNFIX_PROTOCOL, ..Rule::lookup(family, priority, TABLE_MAIN) }
}

fn inside_rule(destination: &Destination, priority: u32) -> Rule {
    Rule { to: Some(destination.prefix), ..own_rule(Family::of(destination.address), priority) }
}

fn prefix_rule(destination: &Destination, priority: u32) -> Rule {
    Rule { suppress_prefix_length: Some(0), ..inside_rule(destination, priority) }
}

/// Adds a rule for one destination, unless it would draw a control target into a tunnel.
fn place(situation: Situation<'_>, index: usize, rule: Rule, what: &str, plan: &mut Plan) {
    let Some(destination) = situation.destinations.get(index) else { return };
    if let Some(why) = objection(situation, destination, &rule) {
        plan.left_out.push(LeftOut { prefix: destination.prefix, why });
        return;
    }
    let names: Vec<String> =
        destination.tunnels.iter().map(|index| situation.fib.snapshot().device_name(*index)).collect();
    add(situation, rule, format!("{what} {} belongs to {}", destination.prefix, names.join(" and ")), plan);
    if !plan.repairs.contains(&index) {
        plan.repairs.push(index);
    }
}

/// Why a rule for a destination would not do, or would do harm.
fn objection(situation: Situation<'_>, destination: &Destination, rule: &Rule) -> Option<String> {
    let Situation { fib, tunnels, findings, controls, .. } = situation;
    let rules = std::slice::from_ref(rule);
    let drawn = control::drawn_into_tunnel(fib, tunnels, &hijackers(fib.snapshot(), findings), controls, rules);
    if let Some(control) = drawn.first() {
        return Some(format!("it would draw {} ({}) into the tunnel", control.name, control.question.destination));
    }
    let flow = Flow::plain(destination.address);
    let end = walk::walk(fib, &fib.policy(flow.family()).with(rules), &flow);
    let arrives = destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel));
    let told = arrives || end.is_undecided();
    (!told).then(|| "table main itself leads elsewhere, so no rule into it helps".into())
}

/// Adds a step, unless a rule of the same effect stands where the step's would, or anywhere before the hijacker.
fn add(situation: Situation<'_>, rule: Rule, why: String, plan: &mut Plan) {
    let existing = situation
        .fib
        .snapshot()
        .rules_of(rule.family)
        .find(|other| other.same_effect_anywhere(&rule) && other.priority <= rule.priority);
    match existing {
        Some(existing) => plan.satisfied.push(existing.clone()),
        // Two tunnels with the same inside prefix need it once.
        None if plan.steps.iter().any(|step| step.rule == rule) => {}
        None => plan.steps.push(Step { rule, why }),
    }
}

/// Says of each destination with a finding that the plan does not repair why it does not.
fn leave_out_incurable(situation: Situation<'_>, plan: &mut Plan) {
    for (index, destination) in situation.destinations.iter().enumerate() {
        let finding = situation.findings.iter().find(|finding| is_of(situation.fib.snapshot(), finding, destination));
        let Some(finding) = finding.filter(|_| !plan.repairs.contains(&index)) else { continue };
        if plan.left_out.iter().any(|left| left.prefix == finding.prefix) {
            continue;
        }
        let why = why_not(situation.fib.snapshot(), finding, destination);
        plan.left_out.push(LeftOut { prefix: finding.prefix, why: why.into() });
    }
}

fn why_not(snapshot: &Snapshot, finding: &Finding, destination: &Destination) -> &'static str {
    if destination.class == Class::Default {
        return "a default route through the tunnel is cured by no rule, only by the cure at the root";
    }
    if destination.table != TABLE_MAIN {
        return "the tunnel belongs to a VRF, whose flows no rule into main may take";
    }
    if !may_steer(destination) {
        return "a prefix inside 169.254.0.0/16 that is no tunnel's own is shared with cloud services and never steered";
    }
    if rule_of(snapshot, finding).is_some_and(|rule| is_meant(rule, finding)) {
        return "the rule names this destination itself: somebody meant it; remove that rule if it is wrong";
    }
    match finding.reason {
        Reason::TunnelDown => "the tunnel's interface is down",
        Reason::ShadowedByRoute | Reason::ShadowedByHalves => {
            "another route of the same table is better; rules cannot change that"
        }
        Reason::ReversePath => "source validation drops the tunnel's packets: see the rp_filter of the tunnel",
        Reason::UnreachableRoute | Reason::NoRoute | Reason::MissingRoute => "the routes themselves refuse it",
        Reason::Unexplained => "vpnfix cannot explain the kernel's answer, so it changes nothing",
        _ => "no rule cures this: see what `diagnose` says of it",
    }
}

#[cfg(test)]
mod tests;
