//! Traffic that others gave a way of its own passes our rules by: a rule before ours sends it on to theirs.
//!
//! Without strongSwan's rule, traffic from a second interface's address, with a mark, or of a VRF finds the rule that was
//! made for it before main is asked, also to a tunnel's destination. A rule of ours into main stands before theirs, and
//! would take it; and would go on doing so when strongSwan is long gone.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::planner::Planner;
use crate::core::destination::Destination;
use crate::core::model::{Rule, RuleAction, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::walk::{self, Fib, Flow, Match, Mismatch};

/// A rule that goes before one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passing<'a> {
    /// The rule.
    pub(super) rule: Rule,
    /// Whose traffic it is.
    pub(super) theirs: &'a Rule,
}

impl<'a> Planner<'a> {
    /// What must go before this rule for a destination, so that with the hijackers gone no decision about it changes.
    pub(super) fn passing(&self, destination: &Destination, ours: &Rule) -> Vec<Passing<'a>> {
        let fib = self.situation.fib;
        let candidates = fib
            .snapshot()
            .rules_of(ours.family)
            .skip_while(|rule| rule.priority <= ours.priority)
            .take_while(|rule| !is_mains(rule, destination.prefix))
            .filter(|rule| rule.protocol != VPNFIX_PROTOCOL && !self.is_hijacker(rule))
            .filter(|rule| !(rule.l3mdev && ours.l3mdev))
            .filter(|rule| is_for_some(fib, rule, destination) && may_decide(fib, rule, destination.prefix));
        let mut theirs: Vec<&'a Rule> = Vec::new();
        for rule in candidates {
            let is_reached = |earlier: &&Rule| !decides_as_main(earlier) || selectors(earlier) != selectors(rule);
            if theirs.iter().all(is_reached) {
                theirs.push(rule);
            }
        }
        // What main decides sooner or later, ours lets it decide as well; before one of another table it counts.
        theirs.truncate(theirs.iter().rposition(|rule| !decides_as_main(rule)).map_or(0, |last| last + 1));
        for_each(&theirs, destination.prefix, ours)
    }
}

/// A rule by which main decides for all that is left.
fn is_mains(rule: &Rule, prefix: IpNet) -> bool {
    let finds = rule.suppress_prefix_length.is_none_or(|longest| u32::from(prefix.prefix_len()) > longest);
    let suppress_prefix_length = rule.suppress_prefix_length;
    finds && rule.same_effect_anywhere(&Rule { suppress_prefix_length, ..Rule::lookup(rule.family, 0, TABLE_MAIN) })
}

fn decides_as_main(rule: &Rule) -> bool {
    rule.table() == Some(TABLE_MAIN) && rule.suppress_prefix_length.unwrap_or(0) == 0 && rule.suppress_ifgroup.is_none()
}

/// Is it for some traffic only, or a jump over what follows? A rule that takes ordinary traffic to the destination hijacks
/// it as well. One that cannot be judged is left alone.
fn is_for_some(fib: &Fib<'_>, rule: &Rule, destination: &Destination) -> bool {
    let jumps = matches!(rule.action, RuleAction::Goto(_) | RuleAction::Other(_));
    let part = rule.to.filter(|to| !rule.invert && destination.prefix.contains(to));
    let flow = Flow::plain(part.map_or(destination.address, |part| part.addr()));
    jumps || matches!(walk::matches(fib, rule, &flow), Match::No(why) if why != Mismatch::To)
}

/// Could it decide about traffic to this prefix otherwise than main does?
fn may_decide(fib: &Fib<'_>, rule: &Rule, prefix: IpNet) -> bool {
    let is_for = rule.invert || rule.to.is_none_or(|to| to.contains(&prefix) || prefix.contains(&to));
    let decides = match rule.action {
        RuleAction::Lookup(_) if rule.l3mdev => fib.vrf_tables().any(|table| has_way(fib, rule, table, prefix)),
        RuleAction::Lookup(table) => has_way(fib, rule, table, prefix),
        RuleAction::Nop => false,
        RuleAction::Goto(_) | RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => true,
        RuleAction::Other(_) => true,
    };
    is_for && decides
}

/// Has the table a route for the prefix or a part of it that the rule does not discard?
fn has_way(fib: &Fib<'_>, rule: &Rule, table: u32, prefix: IpNet) -> bool {
    let covering = fib.covering(table, prefix).into_iter().flatten();
    let mut routes = covering.chain(fib.within(table, prefix));
    !fib.is_whole(rule.family, table) || routes.any(|route| !walk::passes_on(rule, route))
}

/// A rule for each of theirs; or one for all traffic to the prefix, which then goes on to the first of them, where the
/// kernel would take two such rules for the same, or where theirs cannot be repeated.
fn for_each<'a>(theirs: &[&'a Rule], prefix: IpNet, ours: &Rule) -> Vec<Passing<'a>> {
    let Some(first) = theirs.first().copied() else { return Vec::new() };
    let can_repeat = |rule: &&&Rule| !rule.invert && !rule.find_source && rule.unknown_attributes.is_empty();
    let mut own: Vec<Passing<'a>> = Vec::new();
    for theirs in theirs.iter().filter(can_repeat).copied() {
        let rule = repeated(theirs, prefix, ours);
        if own.iter().all(|other| selectors(&other.rule) != selectors(&rule)) {
            own.push(Passing { rule, theirs });
        }
    }
    let jumps = own.iter().filter(|passing| !passing.rule.l3mdev);
    let kinds: BTreeSet<[bool; 12]> = jumps.map(|passing| kinds(&passing.rule)).collect();
    if theirs.iter().all(|rule| can_repeat(&rule)) && kinds.len() <= 1 {
        return own;
    }
    let all = Rule { to: Some(prefix), action: RuleAction::Goto(first.priority), ..bare(ours) };
    vec![Passing { rule: all, theirs: first }]
}

/// Their selectors, for this prefix alone, and on to them. A VRF's flows need no jump: a rule of ours gives them their
/// table, as theirs does.
fn repeated(theirs: &Rule, prefix: IpNet, ours: &Rule) -> Rule {
    let narrower = |to: IpNet| if prefix.contains(&to) { to } else { prefix };
    let rule = Rule {
        priority: ours.priority,
        protocol: ours.protocol,
        to: Some(theirs.to.map_or(prefix, narrower)),
        iif_detached: false,
        oif_detached: false,
        ..theirs.clone()
    };
    if theirs.l3mdev {
        return rule;
    }
    let action = RuleAction::Goto(theirs.priority);
    Rule { action, suppress_prefix_length: None, suppress_ifgroup: None, ..rule }
}

fn bare(ours: &Rule) -> Rule {
    Rule { protocol: ours.protocol, ..Rule::lookup(ours.family, ours.priority, 0) }
}

/// The rule with nothing but what it is for.
fn selectors(rule: &Rule) -> Rule {
    Rule { action: RuleAction::Nop, suppress_prefix_length: None, suppress_ifgroup: None, ..rule.effect() }
}

/// Which selectors it has. `rule_exists` (`net/core/fib_rules.c`) compares those alone that the new rule has, and not where
/// a jump leads.
fn kinds(rule: &Rule) -> [bool; 12] {
    [
        rule.from.is_some(),
        rule.iif.is_some(),
        rule.oif.is_some(),
        rule.mark.is_some(),
        rule.tos != 0,
        rule.dscp.is_some(),
        rule.flow_label.is_some(),
        rule.uid_range.is_some(),
        rule.ip_protocol.is_some(),
        rule.source_ports.is_some(),
        rule.destination_ports.is_some(),
        rule.tunnel_id.is_some(),
    ]
}
