//! What a trace judges by: the host as it was read, and read again.

use serde::{Deserialize, Serialize};

use crate::core::live::{Others, View, Watch};
use crate::core::model::{Address, HostFacts, Link, Netns, PartialTable, Route, Rule, SecurityAssociation, Snapshot};
use crate::core::owner::Clues;

/// What observations are judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The host's network state.
    pub snapshot: Snapshot,
    /// Signs of other programs.
    pub clues: Clues,
    /// Security associations, or why they are not known.
    pub associations: Result<Vec<SecurityAssociation>, String>,
    /// The watched prefixes, by the kernel side's index.
    pub watches: Vec<Watch>,
    /// Namespaces beside the one that is judged.
    pub others: Others,
}

impl Default for Basis {
    fn default() -> Self {
        Self {
            snapshot: Snapshot::default(),
            clues: Clues::default(),
            associations: Ok(Vec::new()),
            watches: Vec::new(),
            others: Others::default(),
        }
    }
}

/// One part of a basis, whole. Only what changed is handed on: a host may have a million routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "part", content = "is", rename_all = "snake_case")]
pub enum Part {
    /// The host.
    Host(HostFacts),
    /// The namespace.
    Netns(Netns),
    /// Interfaces.
    Links(Vec<Link>),
    /// Addresses.
    Addresses(Vec<Address>),
    /// Rules.
    Rules(Vec<Rule>),
    /// Routes.
    Routes(Vec<Route>),
    /// Tables that were read in part.
    PartialTables(Vec<PartialTable>),
    /// Signs of other programs.
    Clues(Box<Clues>),
    /// Security associations.
    Associations(Vec<SecurityAssociation>),
    /// Why security associations are not known.
    AssociationsNotKnown(String),
    /// Watched prefixes.
    Watches(Vec<Watch>),
    /// Other namespaces: names by inode.
    OtherNames(Vec<(u32, String)>),
    /// Their devices: names by inode and index.
    OtherDevices(Vec<(u32, u32, String)>),
}

impl Part {
    /// Security associations, or why they are not known.
    #[must_use]
    pub fn associations(known: Result<Vec<SecurityAssociation>, String>) -> Self {
        known.map_or_else(Self::AssociationsNotKnown, Self::Associations)
    }

    /// Can it change which rule leads a packet where, or whose that rule is?
    pub(super) fn bears_on_rules(&self) -> bool {
        !matches!(self, Self::Associations(_) | Self::AssociationsNotKnown(_))
    }
}

impl Basis {
    /// The parts in which a newer basis differs.
    #[must_use]
    pub fn changes(&self, newer: Self) -> Vec<Part> {
        let Snapshot { host, netns, links, addresses, rules, routes, partial } = newer.snapshot;
        let old = &self.snapshot;
        let mut parts = Vec::new();
        let mut part = |changed: bool, part: Part| parts.extend(changed.then_some(part));
        part(host != old.host, Part::Host(host));
        part(netns != old.netns, Part::Netns(netns));
        part(links != old.links, Part::Links(links));
        part(addresses != old.addresses, Part::Addresses(addresses));
        part(rules != old.rules, Part::Rules(rules));
        part(routes != old.routes, Part::Routes(routes));
        part(partial != old.partial, Part::PartialTables(partial));
        part(newer.clues != self.clues, Part::Clues(Box::new(newer.clues)));
        let changed = newer.associations != self.associations;
        part(changed, Part::associations(newer.associations));
        part(newer.watches != self.watches, Part::Watches(newer.watches));
        let Others { names, devices } = newer.others;
        let changed = (names != self.others.names, devices != self.others.devices);
        // In an order of its own: the same host is recorded as the same bytes.
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        let mut devices: Vec<_> = devices.into_iter().map(|((inode, index), name)| (inode, index, name)).collect();
        devices.sort_unstable();
        part(changed.0, Part::OtherNames(names));
        part(changed.1, Part::OtherDevices(devices));
        parts
    }

    /// Puts parts in the place of the present ones.
    pub fn apply(&mut self, parts: Vec<Part>) {
        let snapshot = &mut self.snapshot;
        for part in parts {
            match part {
                Part::Host(host) => snapshot.host = host,
                Part::Netns(netns) => snapshot.netns = netns,
                Part::Links(links) => snapshot.links = links,
                Part::Addresses(addresses) => snapshot.addresses = addresses,
                Part::Rules(rules) => snapshot.rules = rules,
                Part::Routes(routes) => snapshot.routes = routes,
                Part::PartialTables(partial) => snapshot.partial = partial,
                Part::Clues(clues) => self.clues = *clues,
                Part::Associations(associations) => self.associations = Ok(associations),
                Part::AssociationsNotKnown(why) => self.associations = Err(why),
                Part::Watches(watches) => self.watches = watches,
                Part::OtherNames(names) => self.others.names = names.into_iter().collect(),
                Part::OtherDevices(devices) => {
                    self.others.devices =
                        devices.into_iter().map(|(inode, index, name)| ((inode, index), name)).collect();
                }
            }
        }
    }

    /// What observations are judged against.
    #[must_use]
    pub fn view(&self, knows_outcomes: bool) -> View<'_> {
        View { snapshot: &self.snapshot, watches: &self.watches, knows_outcomes, others: &self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{association, gateway};

    fn basis() -> Basis {
        let mut others = Others::default();
        others.names.insert(9, "lan".into());
        others.devices.insert((9, 2), "eth0".into());
        Basis {
            snapshot: gateway(),
            associations: Ok(vec![association(0, "192.0.2.1", "192.0.2.2")]),
            watches: vec![Watch { prefix: "10.0.0.0/8".parse().unwrap(), tunnels: vec![3] }],
            others,
            ..Basis::default()
        }
    }

    #[test]
    fn what_changed_makes_of_the_old_one_the_new_one() {
        let newer = basis();
        let mut older = Basis::default();
        older.apply(older.changes(newer.clone()));
        assert_eq!(older, newer);
        assert_eq!(newer.changes(newer.clone()), []);
    }

    #[test]
    fn only_what_changed_is_handed_on() {
        let older = basis();
        let mut newer = older.clone();
        newer.snapshot.rules.clear();
        newer.associations = Err("not permitted".into());
        let changes = older.changes(newer);
        assert_eq!(changes, [Part::Rules(Vec::new()), Part::AssociationsNotKnown("not permitted".into())]);
    }
}
