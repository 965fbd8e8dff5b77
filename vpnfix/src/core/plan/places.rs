//! At which priority a rule can stand: after table local's, before the hijacker's, beside nobody it would collide with.

use std::collections::HashSet;

use super::{INSIDE_PRIORITY, PlanError};
use crate::core::model::{Rule, RuleAction, Snapshot, TABLE_LOCAL};
use crate::core::owner::VPNFIX_PROTOCOL;

/// Where rules can stand before a hijacker.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) hijacker: &'a Rule,
    pub(super) asked: Option<u32>,
    /// Effects of the rules that a plan may make: a rule of others that has one takes no place from it.
    pub(super) effects: &'a HashSet<Rule>,
}

impl<'a> Places<'a> {
    /// For `inside` rules: what was asked for, else the priority that operators know, else the latest that is free.
    pub(super) fn inside(self) -> Result<u32, PlanError> {
        let free = self.taken(INSIDE_PRIORITY, &is_foreign).is_none();
        let between = self.local() < INSIDE_PRIORITY && INSIDE_PRIORITY < self.hijacker.priority;
        if self.asked.is_none() && between && free {
            return Ok(INSIDE_PRIORITY);
        }
        self.latest()
    }

    /// The highest free priority before the hijacker: rules that others add without a priority land in front of the
    /// first custom rule, so the closer to the hijacker the less is overtaken. Or what was asked for.
    pub(super) fn latest(self) -> Result<u32, PlanError> {
        self.choose(is_foreign)
    }

    /// Two places in a row, both before `limit`: the ones that were asked for and the next, else the latest.
    pub(super) fn pair(self, limit: u32) -> Result<(u32, u32), PlanError> {
        let local = self.local();
        let is_free = |first: u32| {
            first > local && [first, first + 1].iter().all(|place| self.taken(*place, &is_foreign).is_none())
        };
        let free = (local + 1..limit.saturating_sub(1)).rev().find(|first| is_free(*first));
        let Some(asked) = self.asked else {
            let place = free.ok_or_else(|| PlanError::NoRoom { hijacker: self.hijacker.to_string() })?;
            return Ok((place, place + 1));
        };
        let second = asked.saturating_add(1);
        if second >= limit {
            return Err(PlanError::TooLate { asked, hijacker: self.hijacker.to_string(), free });
        }
        if asked <= local {
            return Err(PlanError::TooEarly { asked, local, free });
        }
        match [asked, second].iter().find_map(|place| self.taken(*place, &is_foreign)) {
            Some(by) => Err(PlanError::Taken { asked: by.priority, by: by.to_string(), free }),
            None => Ok((asked, second)),
        }
    }

    /// The same for `inside` rules: at the priority that operators know, if both places there are free.
    pub(super) fn inside_pair(self, limit: u32) -> Result<(u32, u32), PlanError> {
        let usual = (INSIDE_PRIORITY, INSIDE_PRIORITY + 1);
        let free = [usual.0, usual.1].iter().all(|place| self.taken(*place, &is_foreign).is_none());
        if self.asked.is_none() && self.local() < usual.0 && usual.1 < limit && free {
            return Ok(usual);
        }
        self.pair(limit)
    }

    /// The same with no rule of our own there either: the kernel takes a rule without a destination for the same as a
    /// narrower one of its priority, and refuses it (`rule_exists`, `net/core/fib_rules.c`).
    pub(super) fn latest_alone(self) -> Result<u32, PlanError> {
        self.choose(|rule| is_foreign(rule) || rule.to.is_some())
    }

    fn choose(self, in_the_way: impl Fn(&Rule) -> bool) -> Result<u32, PlanError> {
        let free = self.highest_free(&in_the_way);
        let Some(asked) = self.asked else {
            return free.ok_or_else(|| PlanError::NoRoom { hijacker: self.hijacker.to_string() });
        };
        if asked >= self.hijacker.priority {
            return Err(PlanError::TooLate { asked, hijacker: self.hijacker.to_string(), free });
        }
        let local = self.local();
        if asked <= local {
            return Err(PlanError::TooEarly { asked, local, free });
        }
        match self.taken(asked, &in_the_way) {
            Some(by) => Err(PlanError::Taken { asked, by: by.to_string(), free }),
            None => Ok(asked),
        }
    }

    fn highest_free(self, in_the_way: &impl Fn(&Rule) -> bool) -> Option<u32> {
        (self.local() + 1..self.hijacker.priority).rev().find(|priority| self.taken(*priority, in_the_way).is_none())
    }

    /// Priority of the rule of table local; some move it (Cilium to 100).
    fn local(self) -> u32 {
        let mut rules = self.snapshot.rules_of(self.hijacker.family);
        rules.find(|rule| rule.table() == Some(TABLE_LOCAL)).map_or(0, |rule| rule.priority)
    }

    /// A rule at this priority beside which ours cannot stand, or one that would jump to ours.
    fn taken(self, priority: u32, in_the_way: &impl Fn(&Rule) -> bool) -> Option<&'a Rule> {
        let stands_there = |rule: &&Rule| {
            rule.priority == priority
                && in_the_way(rule)
                && !(is_foreign(rule) && self.effects.contains(&rule.effect()))
        };
        let jumps_there = |rule: &&Rule| is_foreign(rule) && rule.action == RuleAction::Goto(priority);
        self.snapshot.rules_of(self.hijacker.family).find(|rule| stands_there(rule) || jumps_there(rule))
    }
}

fn is_foreign(rule: &Rule) -> bool {
    rule.protocol != VPNFIX_PROTOCOL
}
