//! An address that no route leads into a tunnel yet: would a route that BGP learns later be used at all? And is a route used
//! that main has for it, a connected network's, say?

use super::remedy::Places;
use super::{Case, inside};
use crate::core::model::{Rule, TABLE_MAIN};
use crate::core::owner;
use crate::core::walk::{self, Flow, Found, Outcome, Policy};

/// What is worth saying where the deciding rule keeps the tunnels' own peers out of main as well: BGP is down then, and
/// what it would learn is not used.
pub(super) fn notes(case: Case<'_>, hijacker: &Rule) -> Vec<String> {
    let flow = case.flow();
    let policy = case.fib.policy(flow.family());
    if hijacker.is_kernel_default() || hijacker.table() == Some(TABLE_MAIN) || asks_main(case, &policy, &flow) {
        return Vec::new();
    }
    let mut tunnels: Vec<String> = inside(case, flow.family())
        .filter(|destination| {
            let end = walk::walk(case.fib, &policy, &Flow::plain(destination.address));
            end.rule() == Some(hijacker) && !destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel))
        })
        .flat_map(|destination| &destination.tunnels)
        .map(|index| case.fib.snapshot().device_name(*index))
        .collect();
    tunnels.dedup();
    if tunnels.is_empty() {
        return Vec::new();
    }
    let owner = owner::owner(case.fib.snapshot(), case.clues, Some(hijacker)).name;
    let priority = hijacker.priority;
    let mut notes = vec![format!(
        "{}: rule {priority} (owner: {owner}) decides before table main is asked, as it does for the inside prefixes of {}",
        what_is_not_used(case, &flow),
        tunnels.join(" and ")
    )];
    if let Some(places) = Places::before(case, hijacker) {
        let lookup = |at| Rule::lookup(hijacker.family, at, TABLE_MAIN);
        let of_inside: Vec<Rule> = inside(case, flow.family())
            .map(|destination| Rule { to: Some(destination.prefix), ..lookup(places.early) })
            .collect();
        let main_first = [Rule { suppress_prefix_length: Some(0), ..lookup(places.late) }];
        let would = |rules: &[Rule]| if asks_main(case, &policy.with(rules), &flow) { "would" } else { "would not" };
        notes.push(format!(
            "rules for the inside prefixes alone {} change that, `{}` {}",
            would(&of_inside),
            main_first.first().map(Rule::add_command).unwrap_or_default(),
            would(&main_first)
        ));
    }
    notes
}

/// The host's own networks are kept from main as well; for other addresses it is about what BGP may learn.
fn what_is_not_used(case: Case<'_>, flow: &Flow) -> String {
    match walk::lookup(case.fib, TABLE_MAIN, flow) {
        Found::Route { route, nexthops } if route.destination.prefix_len() > 0 => {
            let device = nexthops.first().and_then(|nexthop| nexthop.ifindex);
            let by = device.map_or_else(String::new, |index| format!(" by {}", case.fib.snapshot().device_name(index)));
            format!("table main's route {}{by} is not used", route.destination)
        }
        _ => "no route leads it into a tunnel now, and one that BGP learns would not be used".into(),
    }
}

/// Is table main asked for the packet before the walk ends?
fn asks_main(case: Case<'_>, policy: &Policy<'_>, flow: &Flow) -> bool {
    let matched = |outcome: &Outcome<'_>| !matches!(outcome, Outcome::NoMatch(_) | Outcome::JumpedOver);
    let walk = walk::retrace(case.fib, policy, flow);
    walk.steps.iter().any(|(rule, outcome)| rule.table() == Some(TABLE_MAIN) && matched(outcome))
}
