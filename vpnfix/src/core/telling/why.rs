//! Which lookup led packets of a prefix to a device, and by which rule.

use std::collections::HashMap;

use crate::core::live::{Standing, View};
use crate::core::observation::{LookupOutcome, Observation};
use crate::core::owner::Clues;
use crate::core::story;
use crate::core::walk::{Fib, Flow};

/// Most ways that are kept: as many as the kernel side keeps keys of lookups.
const WAYS_MAX: usize = vpnfix_common::LOOKUP_KEYS_MAX as usize;

/// Why packets of a prefix leave by a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Table that led there.
    pub table: u32,
    /// The rule that led to the table, where it is known.
    pub rule: Option<String>,
    /// Who put it there, where that is known.
    pub owner: Option<String>,
}

/// The last lookup that led there, by watch and device.
#[derive(Debug, Default)]
pub(super) struct Ways(HashMap<(u32, u32), Way>);

#[derive(Debug)]
struct Way {
    asked: Flow,
    table: u32,
    told: Option<Why>,
}

impl Ways {
    /// Notes the outcome of a lookup of the own namespace.
    pub(super) fn note(&mut self, view: &View<'_>, observation: &Observation) {
        let Observation::Lookup(seen) = observation else { return };
        let Some(ifindex) = seen.key.ifindex.filter(|_| seen.key.outcome == LookupOutcome::Hit) else { return };
        let is_own = seen.key.netns.is_some_and(|netns| view.is_own(netns));
        let place = (seen.key.watch, ifindex);
        let has_room = self.0.len() < WAYS_MAX || self.0.contains_key(&place);
        if is_own && has_room && matches!(view.lookup(&seen.key), Standing::Right | Standing::Wrong) {
            let way = Way { asked: story::flow_asked(seen), table: seen.key.table, told: None };
            self.0.insert(place, way);
        }
    }

    /// Rules may have changed: what was told by them holds no longer.
    pub(super) fn forget(&mut self) {
        self.0.values_mut().for_each(|way| way.told = None);
    }

    pub(super) fn why(&mut self, view: &View<'_>, clues: &Clues, watch: u32, ifindex: u32) -> Option<Why> {
        let way = self.0.get_mut(&(watch, ifindex))?;
        if way.told.is_none() {
            let (rule, owner) = story::rule_of(&Fib::new(view.snapshot), clues, &way.asked, way.table, false);
            way.told = Some(Why { table: way.table, rule, owner });
        }
        way.told.clone()
    }
}
