//! What each known remedy would do to one packet: the walk with its rules in place, or without the hijacker.

use super::{Case, effect, inside, way};
use crate::core::destination::{Class, Destination, may_steer};
use crate::core::model::{Rule, TABLE_LOCAL, TABLE_MAIN};
use crate::core::plan::INSIDE_PRIORITY;
use crate::core::report::explain::{Effect, Remedy, RemedyName, Way};
use crate::core::walk;

/// The remedies against a rule, each tried on the packet. Against the kernel's own rules there is none.
pub(super) fn remedies(case: Case<'_>, destination: &Destination, tunnels: &[u32], hijacker: &Rule) -> Vec<Remedy> {
    if hijacker.is_kernel_default() {
        return Vec::new();
    }
    let mut remedies = Vec::new();
    // A rule into main moves no packet of a VRF.
    if destination.table == TABLE_MAIN
        && let Some(places) = Places::before(case, hijacker)
    {
        let lookup = |at| Rule::lookup(hijacker.family, at, TABLE_MAIN);
        let to = |at, destination: &Destination| Rule { to: Some(destination.prefix), ..lookup(at) };
        let suppress = |rule: Rule| Rule { suppress_prefix_length: Some(0), ..rule };
        let mut of_inside: Vec<Rule> =
            inside(case, hijacker.family).map(|destination| to(places.early, destination)).collect();
        of_inside.dedup();
        if !of_inside.is_empty() {
            remedies.push(with(case, tunnels, hijacker, RemedyName::Inside, of_inside));
        }
        if destination.class == Class::Routed && may_steer(destination) {
            let rules = vec![suppress(to(places.late, destination))];
            remedies.push(with(case, tunnels, hijacker, RemedyName::Prefix, rules));
        }
        let rules = vec![suppress(lookup(places.late))];
        remedies.push(with(case, tunnels, hijacker, RemedyName::MainFirst, rules));
    }
    remedies.push(root(case, tunnels, hijacker));
    remedies
}

/// Where rules would stand.
pub(super) struct Places {
    /// Where the usual advice puts them.
    pub(super) early: u32,
    /// Right before the hijacker.
    pub(super) late: u32,
}

impl Places {
    /// Before the hijacker and after the rule of table local; none if there is no room.
    pub(super) fn before(case: Case<'_>, hijacker: &Rule) -> Option<Self> {
        let mut rules = case.fib.snapshot().rules_of(hijacker.family);
        let local = rules.find(|rule| rule.table() == Some(TABLE_LOCAL)).map_or(0, |rule| rule.priority);
        let late = hijacker.priority.checked_sub(1).filter(|late| *late > local)?;
        let early = if local < INSIDE_PRIORITY && INSIDE_PRIORITY < hijacker.priority { INSIDE_PRIORITY } else { late };
        Some(Self { early, late })
    }
}

fn with(case: Case<'_>, tunnels: &[u32], hijacker: &Rule, remedy: RemedyName, rules: Vec<Rule>) -> Remedy {
    let standing = |rule: &Rule| {
        let mut there = case.fib.snapshot().rules_of(rule.family);
        there.find(|other| other.same_effect_anywhere(rule) && other.priority < hijacker.priority).cloned()
    };
    let (there, lacking): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(|rule| standing(rule).is_some());
    let (effect, way) = tried(case, tunnels, &lacking);
    Remedy {
        remedy,
        rules: lacking.iter().map(Rule::add_command).collect(),
        standing: there.iter().filter_map(standing).map(|rule| rule.to_string()).collect(),
        effect,
        way,
    }
}

/// Where the packet would go with these rules in place.
pub(super) fn tried(case: Case<'_>, tunnels: &[u32], rules: &[Rule]) -> (Effect, Way) {
    let flow = case.flow();
    let policy = case.fib.policy(flow.family());
    let with = policy.with(rules);
    let end = walk::walk(case.fib, &with, &flow);
    (effect(&end, tunnels), way(case.fib, &end))
}

/// The owner takes the rule away or empties its table: no rule into that table finds anything.
fn root(case: Case<'_>, tunnels: &[u32], hijacker: &Rule) -> Remedy {
    let flow = case.flow();
    let gone = |rule: &Rule| rule == hijacker || (rule.table().is_some() && rule.table() == hijacker.table());
    let policy = case.fib.policy(flow.family()).without(gone);
    let end = walk::walk(case.fib, &policy, &flow);
    Remedy {
        remedy: RemedyName::Root,
        rules: Vec::new(),
        standing: Vec::new(),
        effect: effect(&end, tunnels),
        way: way(case.fib, &end),
    }
}
