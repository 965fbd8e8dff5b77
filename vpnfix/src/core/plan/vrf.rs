//! Tunnels enslaved to a VRF: an l3mdev rule of our own before the hijacker, so that the VRF's flows find its table.

use super::planner::Planner;
use super::{PlanError, Strategy};
use crate::core::model::{Family, Rule, RuleAction, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::walk::Fib;

/// The rule: flows of any VRF find that VRF's table.
fn rule(family: Family, priority: u32) -> Rule {
    Rule { l3mdev: true, protocol: VPNFIX_PROTOCOL, ..Rule::lookup(family, priority, 0) }
}

impl<'a> Planner<'a> {
    /// Plans for what hijackers of one family took out of VRFs.
    pub(super) fn vrfs(&mut self, family: Family, hijackers: &[&'a Rule]) -> Result<(), PlanError> {
        let Some(first) = hijackers.first().copied() else { return Ok(()) };
        if !matches!(self.wanted.strategy, Strategy::Auto | Strategy::Vrf) {
            return Ok(());
        }
        let wrong = self.wrong_in_vrfs(family);
        let at = self.places(first).latest()?;
        let for_all = rule(family, at);
        if self.wanted.strategy == Strategy::Vrf || overtakes(self.situation.fib, hijackers, &for_all).is_none() {
            if wrong.is_empty() {
                return Ok(());
            }
            self.add(for_all, format!("the flows of VRFs find their tables before `{first}`"));
            wrong.iter().for_each(|(index, _)| self.repairs(*index));
            return Ok(());
        }
        for (index, destination) in wrong {
            let narrow = Rule { to: Some(destination.prefix), ..for_all.clone() };
            self.place((index, destination), narrow, "prefix");
        }
        Ok(())
    }
}

/// Could the rule for all flows of VRFs decide otherwise than the one that is there decides once the hijackers are gone,
/// or let through or redirect what a hijacker's table does on purpose? Then why.
fn overtakes(fib: &Fib<'_>, hijackers: &[&Rule], ours: &Rule) -> Option<String> {
    let policy = fib.policy(ours.family);
    let Some(theirs) =
        policy.rules().iter().find(|rule| rule.same_effect_anywhere(ours) && rule.protocol != VPNFIX_PROTOCOL)
    else {
        return Some("no rule of others sends the flows of VRFs into their tables".into());
    };
    let between = policy.rules().iter().filter(|rule| (ours.priority..theirs.priority).contains(&rule.priority));
    let foreign = between.filter(|rule| rule.protocol != VPNFIX_PROTOCOL && !hijackers.contains(rule));
    if let Some(rule) = foreign.into_iter().next() {
        return Some(format!("it would overtake `{rule}`"));
    }
    hijackers.iter().find_map(|rule| match rule.action {
        RuleAction::Lookup(table) => {
            let mut routes = fib.snapshot().table(ours.family, table);
            let meant = routes.find(|route| route.destination.prefix_len() > 0)?;
            Some(format!("table {table} has {} on purpose", meant.destination)).filter(|_| table != TABLE_MAIN)
        }
        _ => Some(format!("`{rule}` refuses on purpose")),
    })
}
