//! The plan: which rules to add, where, and why.

use std::collections::HashSet;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::control::Control;
use super::destination::{Class, Destination, may_steer};
use super::finding::{Finding, Reason};
use super::model::{Family, Rule, Snapshot, TABLE_MAIN};
use super::owner::{VPNFIX_PROTOCOL, is_closing};
use super::tunnel::Tunnel;
use super::walk::Fib;
use planner::Planner;

mod closing;
mod main_first;
mod passing;
mod places;
mod planner;
mod vrf;

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
    /// An l3mdev rule before the hijacker: for tunnels that are enslaved to a VRF, and for them alone.
    Vrf,
}

/// What a plan is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How to repair.
    pub strategy: Strategy,
    /// The priority of the rules, where one was named.
    pub priority: Option<u32>,
    /// Refuse what belongs into a tunnel while the tunnel has no route for it.
    pub fail_closed: bool,
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
    let named: HashSet<&Rule> = findings
        .iter()
        .filter(|finding| is_curable(snapshot, finding))
        .filter_map(|finding| rule_of(snapshot, finding))
        .collect();
    snapshot.rules.iter().filter(|rule| named.contains(rule)).cloned().collect()
}

/// Whose flows a hijacker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Realm {
    /// Those that main is asked for.
    Main,
    /// Those of VRFs.
    Vrf,
}

impl Realm {
    fn of(table: u32) -> Self {
        if table == TABLE_MAIN { Self::Main } else { Self::Vrf }
    }
}

/// The hijackers of one realm's flows.
fn hijackers_of(snapshot: &Snapshot, findings: &[Finding], realm: Realm) -> Vec<Rule> {
    let of_realm = findings.iter().filter(|finding| Realm::of(finding.expected.table) == realm);
    hijackers(snapshot, &of_realm.cloned().collect::<Vec<_>>())
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
        Reason::HijackedByRule | Reason::HijackedFromVrf | Reason::UnreachableRule => !is_closing(rule),
        // A refusing route of the right table itself is preceded by no rule.
        Reason::UnreachableRoute => rule.table() != Some(finding.expected.table),
        _ => false,
    };
    elsewhere && !is_meant(rule, finding)
}

fn is_meant(rule: &Rule, finding: &Finding) -> bool {
    rule.to.is_some_and(|to| finding.prefix.contains(&to))
}

/// Makes the plan that cures the findings as far as policy rules can. It takes time linear in destinations, findings,
/// rules and controls, unless controls lie in the destinations.
///
/// # Errors
/// No priority for the rules.
pub fn plan(situation: Situation<'_>, strategy: Strategy, priority: Option<u32>) -> Result<Plan, PlanError> {
    plan_as(situation, Wanted { strategy, priority, fail_closed: false })
}

/// The same, with all that can be asked for.
///
/// # Errors
/// No priority for the rules.
pub fn plan_as(situation: Situation<'_>, wanted: Wanted) -> Result<Plan, PlanError> {
    let snapshot = situation.fib.snapshot();
    let all = hijackers(snapshot, situation.findings);
    let of_main = hijackers_of(snapshot, situation.findings, Realm::Main);
    let of_vrfs = hijackers_of(snapshot, situation.findings, Realm::Vrf);
    let effects = effects(situation.destinations);
    let mut planner = Planner::new(situation, &all, &effects, wanted);
    for family in Family::ALL {
        let main: Vec<&Rule> = of_main.iter().filter(|rule| rule.family == family).collect();
        let vrfs: Vec<&Rule> = of_vrfs.iter().filter(|rule| rule.family == family).collect();
        planner.vrfs(family, &vrfs)?;
        match wanted.strategy {
            Strategy::Vrf => {}
            _ if wanted.fail_closed => planner.close(family, &main)?,
            _ => planner.family(&main)?,
        }
    }
    planner.leave_out_incurable();
    let mut plan = planner.plan;
    // The flows of VRFs find their tables before main, as they do without the hijacker: both may have the same prefix. A
    // wider rule comes before the narrower ones of its priority: after them the kernel takes it for the same
    // (`rule_exists`, `net/core/fib_rules.c`).
    plan.steps.sort_by_key(|step| {
        let Rule { family, priority, l3mdev, to, .. } = &step.rule;
        (*family, *priority, to.is_some(), to.is_none() && !l3mdev)
    });
    Ok(plan)
}

/// The effects of the rules that a plan for these destinations may make.
fn effects(destinations: &[Destination]) -> HashSet<Rule> {
    let of_destination = |destination: &Destination| [inside_rule(destination, 0), prefix_rule(destination, 0)];
    let narrow = destinations.iter().flat_map(of_destination);
    let wide = Family::ALL.into_iter().map(|family| main_first::rule(family, 0));
    narrow.chain(wide).map(|rule| rule.effect()).collect()
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

fn why_not(snapshot: &Snapshot, finding: &Finding, destination: &Destination) -> &'static str {
    if destination.class == Class::Default {
        return "a default route through the tunnel is cured by no rule, only by the cure at the root";
    }
    if destination.table != TABLE_MAIN {
        return "the tunnel belongs to a VRF, whose flows no rule into main may take: strategy `vrf` is for it";
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
