//! What has to be walked at all.
//!
//! Call L what table main says to a flow. The new rule decides about a flow only if the walk reaches it and L is a route
//! that is no default, or a refusal; its decision then is L. Otherwise it passes the flow on as if it were not there.
//! (`fib_rules_lookup`, `net/core/fib_rules.c`: a table's answer depends on the table and the flow, not on the rule.)
//!
//! Take such a flow. Without the hijackers the walk goes on behind the new rule's place. If on the way to a rule that looks
//! up main for everything each rule does not match, or finds nothing in its table, or looks up main itself, then it ends with
//! L as well: (a) holds for the flow, and so does the first half of (b). The second half holds unless a hijacker's table has a
//! non-default route to the destination.
//!
//! So only those destinations have to be walked that the table of such a rule in between has a route to, or that such a rule
//! refuses; and of the hijackers' tables only the non-default routes count. Often there are none: then the proof is done,
//! whatever main holds. Where a `goto` could change the order, or main is never asked for everything, all destinations are
//! walked.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::core::model::{Family, Route, Rule, RuleAction, TABLE_MAIN};
use crate::core::walk::{self, Fib, Policy};

/// What has to be walked.
pub(super) struct Scope<'p> {
    pub(super) family: Family,
    /// The rules that can have a part in a decision that counts; they tell flows apart.
    pub(super) rules: Vec<&'p Rule>,
    /// The tables that these rules look up; main first.
    pub(super) tables: Vec<u32>,
    /// The destinations, sorted; none lies in another.
    pub(super) ranges: Vec<IpNet>,
    /// Rules may be jumped over: nothing can be concluded from their order.
    pub(super) jumps: bool,
}

impl<'p> Scope<'p> {
    /// `policy` has all rules and the new one.
    ///
    /// # Errors
    /// A table was read in part only, so that it cannot be told what it has routes to.
    pub(super) fn new<'a: 'p>(
        fib: &Fib<'a>,
        policy: &Policy<'p>,
        hijackers: &[&Rule],
        rule: &Rule,
    ) -> Result<Self, String> {
        let rules = policy.rules();
        let family = rule.family;
        let jumps = rules.iter().any(|rule| matches!(rule.action, RuleAction::Goto(_) | RuleAction::Other(_)));
        let place = rules.iter().position(|other| std::ptr::eq(*other, rule)).unwrap_or(0);
        let last = rules.iter().skip(place + 1).position(|rule| is_main_whole(rule) && !hijackers.contains(rule));
        let (count, ranges) = match last {
            Some(between) if !jumps => {
                let mut ranges = Vec::new();
                for rule in rules.iter().skip(place + 1).take(between) {
                    ranges.extend(reach(fib, rule, hijackers.contains(rule))?);
                }
                (place + 1 + between + 1, ranges)
            }
            _ => (rules.len(), vec![walk::everything(family)]),
        };
        let rules: Vec<&Rule> = rules.iter().copied().take(count).filter(|rule| can_decide(fib, rule)).collect();
        let mut tables = vec![TABLE_MAIN];
        for table in rules.iter().flat_map(|rule| tables_of(fib, rule)) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        Ok(Self { family, rules, tables, ranges: outermost(ranges), jumps })
    }

    /// Every rule and every destination.
    #[cfg(test)]
    pub(super) fn whole(fib: &Fib<'p>, rule: &'p Rule) -> Self {
        let rules = fib.policy(rule.family).with(std::slice::from_ref(rule)).rules().to_vec();
        let mut tables = vec![TABLE_MAIN];
        tables.extend(rules.iter().flat_map(|rule| tables_of(fib, rule)));
        Self { family: rule.family, rules, tables, ranges: vec![walk::everything(rule.family)], jumps: true }
    }

    /// Nothing has to be walked: the order of the rules proves it.
    pub(super) fn is_nothing(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Does an address lie in one of the ranges?
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let after = self.ranges.partition_point(|range| range.network() <= address);
        after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|range| range.contains(&address))
    }
}

/// Does it end the walk of every flow that main has a route for? Like the kernel's own rule of priority 32766.
fn is_main_whole(rule: &Rule) -> bool {
    rule.same_effect_anywhere(&Rule::lookup(rule.family, 0, TABLE_MAIN))
}

/// Could the rule ever end a walk, or send it elsewhere?
fn can_decide(fib: &Fib<'_>, rule: &Rule) -> bool {
    let gone = |name: &Option<String>, detached: bool| {
        name.as_ref().is_some_and(|name| detached || fib.link_named(name).is_none())
    };
    let no_vrf = rule.l3mdev && fib.vrf_tables().next().is_none();
    let never = gone(&rule.iif, rule.iif_detached) || gone(&rule.oif, rule.oif_detached) || no_vrf;
    let nothing = match rule.action {
        RuleAction::Nop => true,
        RuleAction::Lookup(table) => {
            !rule.l3mdev && fib.is_whole(rule.family, table) && fib.is_empty(rule.family, table)
        }
        _ => false,
    };
    let known = rule.unknown_attributes.is_empty();
    !(known && (nothing || (never && !rule.invert)))
}

fn tables_of(fib: &Fib<'_>, rule: &Rule) -> Vec<u32> {
    match rule.action {
        RuleAction::Lookup(_) if rule.l3mdev => fib.vrf_tables().collect(),
        RuleAction::Lookup(table) => vec![table],
        _ => Vec::new(),
    }
}

/// The destinations for which a rule behind the new one could have made another decision than main. Of a hijacker only what
/// (b) protects.
fn reach(fib: &Fib<'_>, rule: &Rule, is_hijacker: bool) -> Result<Vec<IpNet>, String> {
    if !can_decide(fib, rule) {
        return Ok(Vec::new());
    }
    let all = rule.to.filter(|_| !rule.invert).unwrap_or_else(|| walk::everything(rule.family));
    // What such a rule does to the flow on its way is not known, or lasts beyond the rule (`fib6_rule_saddr`,
    // `net/ipv6/fib6_rules.c`).
    let is_odd = !rule.unknown_attributes.is_empty() || (rule.find_source && rule.from.is_some());
    match rule.action {
        RuleAction::Nop => Ok(Vec::new()),
        _ if is_odd && !is_hijacker => Ok(vec![all]),
        RuleAction::Lookup(TABLE_MAIN) if !rule.l3mdev => Ok(Vec::new()),
        RuleAction::Lookup(_) => routed(fib, rule, all, is_hijacker),
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit if is_hijacker => Ok(Vec::new()),
        _ => Ok(vec![all]),
    }
}

/// What of `all` the rule's table has routes to that could decide.
fn routed(fib: &Fib<'_>, rule: &Rule, all: IpNet, is_hijacker: bool) -> Result<Vec<IpNet>, String> {
    let counts = |route: &Route| {
        let is_hijack = is_hijacker && route.destination.prefix_len() == 0;
        !walk::passes_on(rule, route) && !is_hijack
    };
    let mut found = Vec::new();
    for table in tables_of(fib, rule) {
        if !fib.is_whole(rule.family, table) {
            return Err(format!("only a part of table {table} was read"));
        }
        if fib.covering(table, all).iter().flatten().any(|route| counts(route)) {
            found.push(all);
        }
        found.extend(fib.within(table, all).filter(|route| counts(route)).map(|route| route.destination.trunc()));
    }
    Ok(found)
}

/// The same addresses by prefixes of which none lies in another, sorted.
fn outermost(mut ranges: Vec<IpNet>) -> Vec<IpNet> {
    ranges.sort_by_key(|range| (range.network(), range.prefix_len()));
    let mut kept: Vec<IpNet> = Vec::new();
    for range in ranges {
        if !kept.last().is_some_and(|last| last.contains(&range)) {
            kept.push(range.trunc());
        }
    }
    kept
}
