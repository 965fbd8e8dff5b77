//! Two states beside each other, with what differs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::state::{LinkState, State};
use crate::core::model::Family;
use crate::core::model::rule::table_word;

/// More rows of one table are counted only; those that differ come first.
const MOST_ROWS: usize = 80;

/// One kind of thing, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// What it is about.
    pub title: String,
    /// One row for each thing.
    pub rows: Vec<Row>,
    /// Rows that are not shown.
    pub more: usize,
}

/// One thing, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Its name.
    pub item: String,
    /// How it was, `null` where it was not there or not looked at.
    pub before: Option<String>,
    /// How it is.
    pub after: Option<String>,
    /// What came of it.
    pub change: Change,
}

/// What came of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is otherwise.
    Changed,
    /// A count that went on, as counts do.
    Counted,
    /// It is as it was.
    Same,
    /// There is one state only.
    Alone,
}

/// A thing with what is compared of it, and what only counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thing {
    item: String,
    value: String,
    count: String,
}

impl Thing {
    fn new(item: impl Into<String>, value: impl Into<String>) -> Self {
        Self { item: item.into(), value: value.into(), count: String::new() }
    }

    fn counted(item: impl Into<String>, value: impl Into<String>, count: impl Into<String>) -> Self {
        Self { item: item.into(), value: value.into(), count: count.into() }
    }

    fn told(&self) -> String {
        match (self.value.is_empty(), self.count.is_empty()) {
            (true, true) => "there".into(),
            (false, true) => self.value.clone(),
            (true, false) => self.count.clone(),
            (false, false) => format!("{}; {}", self.value, self.count),
        }
    }
}

/// What there is of one kind in a state; nothing where it was not looked at.
type Things = fn(&State) -> Option<Vec<Thing>>;

/// Compares two states, or shows the one there is.
#[must_use]
pub fn compare(before: Option<&State>, after: Option<&State>) -> Vec<Compared> {
    let kinds: [(&str, Things); 10] = [
        ("Policy rules", rules),
        ("Routes", routes),
        ("Interfaces", links),
        ("BGP", bgp),
        ("Security associations", associations),
        ("IPsec policies", policies),
        ("Checks of `verify`", checks),
        ("Kernel settings", sysctls),
        ("IPsec's error counters", xfrm_stat),
        ("Neighbours", neighbours),
    ];
    let of = |state: Option<&State>, things: Things| state.and_then(things);
    let tables = kinds.into_iter().filter_map(|(title, things)| {
        let (old, new) = (of(before, things), of(after, things));
        let both = before.is_some() && after.is_some();
        (old.is_some() || new.is_some()).then(|| table(title, old.unwrap_or_default(), new.unwrap_or_default(), both))
    });
    tables.filter(|table| !table.rows.is_empty()).collect()
}

fn table(title: &str, old: Vec<Thing>, new: Vec<Thing>, both: bool) -> Compared {
    let mut later: BTreeMap<String, Thing> = new.iter().map(|thing| (thing.item.clone(), thing.clone())).collect();
    let mut rows = Vec::new();
    for thing in &old {
        let now = later.remove(&thing.item);
        let change = match &now {
            _ if !both => Change::Alone,
            None => Change::Removed,
            Some(now) if now.value != thing.value => Change::Changed,
            Some(now) if now.count != thing.count => Change::Counted,
            Some(_) => Change::Same,
        };
        let after = now.as_ref().map(Thing::told);
        rows.push(Row { item: thing.item.clone(), before: Some(thing.told()), after, change });
    }
    for thing in new.iter().filter(|thing| later.contains_key(&thing.item)) {
        let change = if both { Change::Added } else { Change::Alone };
        rows.push(Row { item: thing.item.clone(), before: None, after: Some(thing.told()), change });
    }
    let more = rows.len().saturating_sub(MOST_ROWS);
    if more > 0 {
        rows.sort_by_key(|row| row.change);
        rows.truncate(MOST_ROWS);
    }
    Compared { title: title.into(), rows, more }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "IPv6 ",
    }
}

fn rules(state: &State) -> Option<Vec<Thing>> {
    let rules = state.rules.as_ref()?;
    let mut rules: Vec<_> = rules.iter().collect();
    rules.sort_by_key(|rule| (rule.family, rule.priority));
    let thing = |rule: &&crate::core::bundle::state::RuleState| {
        Thing::new(format!("{}{}: {}", family(rule.family), rule.priority, rule.text), "")
    };
    Some(rules.iter().map(thing).collect())
}

fn routes(state: &State) -> Option<Vec<Thing>> {
    let routes = state.routes.as_ref()?;
    let thing = |route: &super::state::RouteState| {
        Thing::new(format!("{}table {}: {}", family(route.family), table_word(route.table), route.text), "")
    };
    Some(routes.routes.iter().map(thing).collect())
}

fn links(state: &State) -> Option<Vec<Thing>> {
    let links = state.links.as_ref()?;
    let thing = |link: &LinkState| {
        let up = match (link.up, link.carrier) {
            (true, true) => "up",
            (true, false) => "up, no carrier",
            (false, _) => "down",
        };
        let mtu = link.mtu.map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
        let counters = &link.counters;
        let errors = counters.tx_errors + counters.tx_dropped + counters.tx_carrier_errors + counters.collisions;
        let count = format!(
            "sent {} packets, {} bytes; received {}, {}; {errors} errors",
            counters.tx_packets, counters.tx_bytes, counters.rx_packets, counters.rx_bytes
        );
        Thing::counted(link.name.clone(), format!("{} {up}{mtu}", link.kind), count)
    };
    Some(links.iter().map(thing).collect())
}

fn bgp(state: &State) -> Option<Vec<Thing>> {
    let bgp = state.bgp.as_ref()?;
    let thing = |neighbour: &crate::core::verify::Neighbour| {
        let received = neighbour.received.map_or_else(String::new, |count| format!(", {count} prefixes received"));
        let value = format!("{:?}{received}", neighbour.state);
        let count = neighbour.uptime.map_or_else(String::new, |seconds| format!("up for {seconds} s"));
        Thing::counted(format!("{} ({})", neighbour.address, bgp.daemon), value, count)
    };
    Some(bgp.neighbours.iter().map(thing).collect())
}

fn associations(state: &State) -> Option<Vec<Thing>> {
    let associations = state.associations.as_ref()?;
    let thing = |sa: &super::state::AssociationState| {
        let item = format!("{} -> {}, SPI {:#010x}", sa.source, sa.destination, sa.spi);
        let mark = sa.mark.as_ref().map_or_else(String::new, |mark| format!(", mark {mark}"));
        let count = format!("{} packets, {} bytes, {} refused", sa.packets, sa.bytes, sa.refused);
        Thing::counted(item, format!("{}{mark}", sa.mode), count)
    };
    Some(associations.iter().map(thing).collect())
}

fn policies(state: &State) -> Option<Vec<Thing>> {
    let policies = state.policies.as_ref()?;
    let thing = |policy: &super::state::PolicyState| {
        let mark = policy.mark.as_ref().map_or_else(String::new, |mark| format!(", mark {mark}"));
        let item = format!("{} {} -> {}{mark}", policy.direction, policy.source, policy.destination);
        let templates = if policy.templates.is_empty() { "none".into() } else { policy.templates.join(" and ") };
        Thing::new(item, format!("priority {}, {templates}", policy.priority))
    };
    Some(policies.iter().map(thing).collect())
}

fn checks(state: &State) -> Option<Vec<Thing>> {
    let verify = state.verify.as_ref()?;
    let thing = |check: &crate::core::verify::Check| {
        let state = match check.state {
            crate::core::verify::State::Ok => "ok",
            crate::core::verify::State::Warning => "warning",
            crate::core::verify::State::Failed => "FAILED",
            crate::core::verify::State::Skipped => "skipped",
        };
        // What a check rests on is mostly counts.
        Thing::counted(format!("{}: {}", check.area.title(), check.label()), state, check.found.clone())
    };
    Some(verify.checks.iter().map(thing).collect())
}

fn sysctls(state: &State) -> Option<Vec<Thing>> {
    Some(state.sysctls.as_ref()?.iter().map(|(name, value)| Thing::new(name, value)).collect())
}

fn xfrm_stat(state: &State) -> Option<Vec<Thing>> {
    let counters = state.xfrm_stat.as_ref()?;
    let told = counters.iter().filter(|(_, count)| **count > 0);
    Some(told.map(|(name, count)| Thing::counted(name, "", count.to_string())).collect())
}

fn neighbours(state: &State) -> Option<Vec<Thing>> {
    let neighbours = state.neighbours.as_ref()?;
    let thing = |neighbour: &super::state::NeighbourState| {
        let hardware = neighbour.hardware.as_deref().unwrap_or("no hardware address");
        let item = format!("{} dev {}", neighbour.address, neighbour.device);
        Thing::counted(item, hardware, neighbour.state.clone())
    };
    Some(neighbours.iter().map(thing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::bundle::state::RuleState;

    fn state(rules: &[(u32, &str)], packets: u64) -> State {
        let rule = |(priority, text): &(u32, &str)| RuleState {
            family: Family::V4,
            priority: *priority,
            text: (*text).into(),
            table: None,
            protocol: 0,
            add: String::new(),
        };
        let counters = crate::core::model::LinkCounters { tx_packets: packets, ..Default::default() };
        let link = LinkState {
            name: "vti1".into(),
            index: 3,
            kind: "vti".into(),
            up: true,
            carrier: true,
            mtu: Some(1419),
            binding: None,
            counters,
        };
        State { rules: Some(rules.iter().map(rule).collect()), links: Some(vec![link]), ..State::default() }
    }

    #[test]
    fn what_was_added_removed_and_counted_is_marked() {
        let before = state(&[(0, "from all lookup local"), (220, "from all lookup 220")], 1);
        let after = state(&[(0, "from all lookup local"), (219, "from all lookup main")], 9);
        let compared = compare(Some(&before), Some(&after));
        let changes: Vec<(&str, Change)> = compared[0].rows.iter().map(|row| (row.item.as_str(), row.change)).collect();
        assert_eq!(
            changes,
            [
                ("0: from all lookup local", Change::Same),
                ("220: from all lookup 220", Change::Removed),
                ("219: from all lookup main", Change::Added),
            ]
        );
        assert_eq!(compared[1].rows[0].change, Change::Counted);
        let alone = compare(Some(&before), None);
        assert!(alone[0].rows.iter().all(|row| row.change == Change::Alone && row.after.is_none()));
    }

    #[test]
    fn long_tables_are_cut_and_keep_what_differs() {
        let texts: Vec<String> = (0..200).map(|number| format!("from 10.0.0.{number} lookup main")).collect();
        let rules: Vec<(u32, &str)> = texts.iter().map(|text| (7, text.as_str())).collect();
        let compared = compare(Some(&state(&rules, 0)), Some(&state(&rules[..199], 0)));
        assert_eq!((compared[0].rows.len(), compared[0].more), (MOST_ROWS, 200 - MOST_ROWS));
        assert_eq!(compared[0].rows[0].change, Change::Removed);
    }
}
