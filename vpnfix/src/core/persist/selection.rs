//! Which rules are kept.

use ipnet::IpNet;

use super::kept::Kept;
use crate::core::model::{Rule, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;

/// vpnfix's rules that stand now, and those that were kept before and still stand: after a reboot the manager made them.
#[must_use]
pub fn to_keep(running: &[Rule], before: Option<&Kept>) -> Vec<Rule> {
    let own = running.iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).cloned();
    let kept = before.into_iter().flat_map(|kept| &kept.rules);
    let stands = kept.filter(|rule| running.iter().any(|other| other.same_effect(rule))).cloned();
    let mut rules: Vec<Rule> = Vec::new();
    for rule in own.chain(stands) {
        if rules.iter().all(|other| !other.same_effect(&rule)) {
            rules.push(rule);
        }
    }
    rules.sort_by_key(|rule| (rule.family, rule.priority, rule.to));
    rules
}

/// Rules of others that send what belongs into a tunnel to main: somebody's own cure, which is not vpnfix's to keep.
#[must_use]
pub fn foreign<'r>(running: &'r [Rule], kept: &[Rule], belongs: &[IpNet]) -> Vec<&'r Rule> {
    let cures = |rule: &&Rule| {
        let main_first =
            Rule { suppress_prefix_length: Some(0), ..Rule::lookup(rule.family, rule.priority, TABLE_MAIN) };
        let names_one = rule.to.is_some_and(|to| belongs.iter().any(|prefix| to.contains(prefix)));
        rule.table() == Some(TABLE_MAIN) && (names_one || rule.same_effect(&main_first))
    };
    let is_ours = |rule: &&Rule| rule.protocol == VPNFIX_PROTOCOL || kept.iter().any(|own| own.same_effect(rule));
    running.iter().filter(cures).filter(|rule| !is_ours(rule) && !rule.is_kernel_default()).collect()
}
