//! Whether one rule for all, main before the hijackers, may stand.

use std::collections::HashSet;

use super::places::Places;
use super::{Realm, Situation, hijackers, hijackers_of, own_rule};
use crate::core::control::Outlook;
use crate::core::destination::{Class, may_steer};
use crate::core::finding::Finding;
use crate::core::model::{Family, Rule, RuleAction};
use crate::core::proof::{self, Proof};
use crate::core::walk::Fib;

/// What was found about `main-first` for one family, where the strategy asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainFirst {
    /// The family.
    pub family: Family,
    /// The plan has the rule.
    pub used: bool,
    /// Whether it changes nothing but what the hijackers had led astray.
    pub proof: Proof,
    /// Why `auto` does not use it, in words. With the strategy `main-first` it is used all the same: then this is a
    /// warning.
    pub objection: Option<String>,
}

/// The rule: main decides, but for its default route.
pub(super) fn rule(family: Family, priority: u32) -> Rule {
    Rule { suppress_prefix_length: Some(0), ..own_rule(family, priority) }
}

/// Judges the rule; `forced` uses it whatever comes of that.
pub(super) fn consider(situation: Situation<'_>, of_family: &[&Rule], rule: &Rule, forced: bool) -> MainFirst {
    let proof = proof::prove_main_first(situation.fib, of_family, rule);
    let objection = match &proof {
        Proof::Refuted(example) => Some(example.sentence.clone()),
        Proof::Undecided { why } => Some(format!("it cannot be shown to be harmless: {why}")),
        Proof::Proven { .. } => would_reopen(of_family)
            .or_else(|| would_steer(situation, rule.family))
            .or_else(|| would_draw(situation, rule)),
    };
    MainFirst { family: rule.family, used: forced || objection.is_none(), proof, objection }
}

/// A rule that refuses was meant to (a kill switch); the tunnels' destinations are let through it, nothing else is.
fn would_reopen(of_family: &[&Rule]) -> Option<String> {
    let refuses =
        |rule: &&&Rule| matches!(rule.action, RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit);
    let rule = of_family.iter().find(refuses)?;
    Some(format!("it would let through all that `{rule}` refuses and main has a route for"))
}

/// Main's own routes may lead into a tunnel what is never steered there.
fn would_steer(situation: Situation<'_>, family: Family) -> Option<String> {
    let shared = situation.destinations.iter().find(|destination| {
        Family::of(destination.address) == family && destination.class != Class::Default && !may_steer(destination)
    })?;
    Some(format!("it would steer {}, which is shared with cloud services", shared.prefix))
}

fn would_draw(situation: Situation<'_>, rule: &Rule) -> Option<String> {
    let Situation { fib, tunnels, findings, controls, .. } = situation;
    let hijackers = hijackers(fib.snapshot(), findings);
    let rules = std::slice::from_ref(rule);
    let outlook = Outlook::new(fib, tunnels, &hijackers, rules);
    let harm = |control| Some(outlook.harm(control)?.words(control, "a tunnel"));
    controls.iter().find_map(harm)
}

/// Does a plan of the strategy `auto` or `main-first` for these findings need all of main's routes? If not, those by the
/// tunnels' devices are enough. `priority` is the one asked for, if any.
#[must_use]
pub fn needs_whole_main(fib: &Fib<'_>, findings: &[Finding], priority: Option<u32>) -> bool {
    let all = hijackers_of(fib.snapshot(), findings, Realm::Main);
    let effects = HashSet::new();
    Family::ALL.into_iter().any(|family| {
        let of_family: Vec<&Rule> = all.iter().filter(|rule| rule.family == family).collect();
        let Some(first) = of_family.first() else { return false };
        let place = Places { snapshot: fib.snapshot(), hijacker: first, asked: priority, effects: &effects };
        let place = place.latest_alone();
        place.is_ok_and(|priority| proof::needs_whole_main(fib, &of_family, &rule(family, priority)))
    })
}
