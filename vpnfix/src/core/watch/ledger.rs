//! The rules that this `watch` answers for: what it added, and what it took over from an earlier run. Only they may be
//! taken back by it.

use std::collections::HashSet;

use ipnet::IpNet;

use crate::core::model::{Rule, RuleAction, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;

/// Rules of ours that stand.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rules: HashSet<Rule>,
}

impl Ledger {
    /// Rules that stand and carry our protocol number are answered for; others' never.
    pub fn adopt<'r>(&mut self, standing: impl IntoIterator<Item = &'r Rule>) {
        self.rules = standing.into_iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).cloned().collect();
    }

    /// Rules were added.
    pub fn add<'r>(&mut self, added: impl IntoIterator<Item = &'r Rule>) {
        self.rules.extend(added.into_iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).cloned());
    }

    /// Others deleted a rule. True if it was one of these.
    pub fn lose(&mut self, rule: &Rule) -> bool {
        self.rules.remove(rule)
    }

    /// Is any there?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Does one of them stand for this prefix, or for all?
    #[must_use]
    pub fn steers(&self, prefix: &IpNet) -> bool {
        self.rules.iter().any(|rule| rule.to.is_none_or(|to| to.contains(prefix)))
    }

    /// Is this rule one of these?
    #[must_use]
    pub fn has(&self, rule: &Rule) -> bool {
        self.rules.contains(rule)
    }

    /// Those of these rules that do not stand any more, and are taken out of it.
    pub fn missing(&mut self, standing: &[Rule]) -> Vec<Rule> {
        let standing: HashSet<&Rule> = standing.iter().collect();
        self.rules.extract_if(|rule| !standing.contains(rule)).collect()
    }

    /// Takes out of it the rules whose prefix is none of these any more: a tunnel that is gone, a route that BGP withdrew.
    /// Rules that refuse a prefix, and those before them, stay: that is what they are for. In a stable order.
    pub fn withdraw(&mut self, prefixes: &HashSet<IpNet>) -> Vec<Rule> {
        let stale = self.stale(prefixes);
        self.rules.retain(|rule| !stale.contains(rule));
        stale
    }

    /// The rules that [`Self::withdraw`] would take out.
    #[must_use]
    pub fn stale(&self, prefixes: &HashSet<IpNet>) -> Vec<Rule> {
        let closed: HashSet<IpNet> = self
            .rules
            .iter()
            .filter(|rule| rule.action == RuleAction::Unreachable)
            .filter_map(|rule| rule.to)
            .collect();
        let is_stale = |rule: &&Rule| {
            rule.table() == Some(TABLE_MAIN)
                && rule.to.is_some_and(|to| !prefixes.contains(&to) && !closed.contains(&to))
        };
        let mut stale: Vec<Rule> = self.rules.iter().filter(is_stale).cloned().collect();
        stale.sort_by_key(|rule| (rule.family, rule.priority, rule.to));
        stale
    }
}
