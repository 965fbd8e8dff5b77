//! Who put a rule or a route there: by its shape and its numbers, by its table's routes and devices, and by what else
//! was seen on the host.

mod clues;
mod cure;
mod evidence;
mod fingerprint;
mod program;
mod seen;

pub use clues::{Clues, PidFile, Process, Whereabouts};
pub use cure::cures;
pub use program::{Program, Signs};

use super::finding::{Confidence, Owner};
use super::model::{Route, Rule, RuleAction, Snapshot, TABLE_LOCAL, route::protocol_name};
pub use super::strongswan::{NM_TABLE as CHARON_NM_TABLE, TABLE as STRONGSWAN_TABLE};
use evidence::{Candidate, Kind, best};
use seen::Seen;

/// `FRA_PROTOCOL` of vpnfix's own rules. Not assigned to anyone else in `/etc/iproute2/rt_protos`.
pub const VPNFIX_PROTOCOL: u8 = 118;

/// Is this a rule of vpnfix's own that refuses a prefix while its tunnel has no route for it (`--fail-closed`)?
#[must_use]
pub fn is_closing(rule: &Rule) -> bool {
    rule.protocol == VPNFIX_PROTOCOL && rule.action == RuleAction::Unreachable && rule.to.is_some()
}

/// The rules of others that stand right in front of vpnfix's own. A rule that is added without a priority gets the one
/// before the first after table local's (`fib_default_rule_pref`, `net/core/fib_rules.c`), so that is where it lands.
#[must_use]
pub fn in_front_of_ours<'a>(rules: &[&'a Rule]) -> Vec<&'a Rule> {
    let is_ours = |rule: &&&Rule| rule.protocol == VPNFIX_PROTOCOL;
    let Some(first) = rules.iter().find(is_ours) else { return Vec::new() };
    let before = rules.iter().take_while(|rule| rule.protocol != VPNFIX_PROTOCOL && rule.priority < first.priority);
    let mut expected = first.priority;
    let mut found: Vec<&Rule> = Vec::new();
    for rule in before.collect::<Vec<_>>().into_iter().rev() {
        if rule.is_kernel_default() || rule.table() == Some(TABLE_LOCAL) || rule.priority + 1 < expected {
            break;
        }
        expected = rule.priority;
        found.push(rule);
    }
    found.reverse();
    found
}

/// The most likely owner of a rule.
#[must_use]
pub fn of_rule(snapshot: &Snapshot, clues: &Clues, rule: &Rule) -> Owner {
    let seen = Seen { snapshot, clues };
    let candidates = fingerprint::RULES.iter().filter_map(|of| of(&seen, rule));
    best(candidates.map(|candidate| seen.on_host(candidate)).collect()).unwrap_or_else(|| {
        let protocol =
            (rule.protocol != 0).then(|| format!("the rule's protocol is {}", protocol(clues, rule.protocol)));
        let table = rule.table().and_then(|table| {
            clues.table_name(table).map(|name| format!("table {table} is named {name} in rt_tables of this host"))
        });
        unknown([protocol, table].into_iter().flatten().collect())
    })
}

/// The most likely owner of a route.
#[must_use]
pub fn of_route(snapshot: &Snapshot, clues: &Clues, route: &Route) -> Owner {
    let seen = Seen { snapshot, clues };
    let candidates = fingerprint::ROUTES.iter().filter_map(|of| of(&seen, route));
    best(candidates.map(|candidate| seen.on_host(candidate)).collect()).unwrap_or_else(|| {
        let by_hand = if route.protocol == 3 { " (`ip route` by hand or in a script)" } else { "" };
        unknown(vec![format!("the route's protocol is {}{by_hand}", protocol(clues, route.protocol))])
    })
}

/// The most likely owner of a rule, unknown where there is none.
#[must_use]
pub fn owner(snapshot: &Snapshot, clues: &Clues, rule: Option<&Rule>) -> Owner {
    rule.map_or_else(|| unknown(Vec::new()), |rule| of_rule(snapshot, clues, rule))
}

/// The owner of a decision: of the rule that led to it; where that is one of those that every namespace has, of the
/// route that was found by it.
#[must_use]
pub fn of_decision(snapshot: &Snapshot, clues: &Clues, rule: Option<&Rule>, route: Option<&Route>) -> Owner {
    match (rule, route) {
        (Some(rule), Some(route)) if rule.is_kernel_default() => of_route(snapshot, clues, route),
        _ => owner(snapshot, clues, rule),
    }
}

fn protocol(clues: &Clues, number: u8) -> String {
    clues.protocol_name(number).map_or_else(|| protocol_name(number), String::from)
}

fn unknown(evidence: Vec<String>) -> Owner {
    Owner { name: "unknown".into(), confidence: Confidence::Unknown, evidence }
}

#[cfg(test)]
mod tests;
