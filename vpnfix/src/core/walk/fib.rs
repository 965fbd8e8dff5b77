//! A namespace's rules, tables and devices, in the order and with the indices that a walk needs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::flow::{Flow, LOOPBACK_INDEX};
use crate::core::model::{Family, Link, LinkKind, Route, Rule, Snapshot};

/// Where the routes of one table stand in the snapshot, by prefix. Those of one prefix keep their order.
type Table = JointPrefixMap<IpNet, Vec<usize>>;

/// Where a nexthop leads: device and gateway.
type Place = (Option<u32>, Option<IpAddr>);

/// The forwarding information base of a snapshot. Making it takes time linear in the snapshot; a walk then takes time
/// linear in the rules and nearly independent of the routes.
#[derive(Debug)]
pub struct Fib<'a> {
    snapshot: &'a Snapshot,
    links: HashMap<u32, &'a Link>,
    names: HashMap<&'a str, &'a Link>,
    tables: HashMap<(Family, u32), Table>,
    partial: HashSet<(Family, u32)>,
    own: HashSet<IpAddr>,
    /// The shortest and the longest prefix among the IPv6 routes that use a nexthop by an object.
    shared: HashMap<Place, (u8, u8)>,
    /// A flow bound to a VRF's port takes the routes of that port only. Before Linux 5.19 the kernel put the VRF in the
    /// port's place and let any of the table's routes pass (`l3mdev_update_flow`; changed by "net: Add l3mdev index to
    /// flow struct and avoid oif reset for port devices").
    ports_bind: bool,
}

/// The rules of one family in the order in which the kernel asks them.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    family: Family,
    rules: Vec<&'a Rule>,
}

impl<'a> Policy<'a> {
    /// The same with these rules in their places. A rule that is added goes behind those of equal priority.
    #[must_use]
    pub fn with<'b>(&self, extra: &'b [Rule]) -> Policy<'b>
    where
        'a: 'b,
    {
        let mut rules: Vec<&'b Rule> = self.rules.clone();
        rules.extend(extra.iter().filter(|rule| rule.family == self.family));
        rules.sort_by_key(|rule| rule.priority);
        Policy { family: self.family, rules }
    }

    /// The same without some rules.
    #[must_use]
    pub fn without(&self, gone: impl Fn(&Rule) -> bool) -> Self {
        Self { family: self.family, rules: self.rules.iter().copied().filter(|rule| !gone(rule)).collect() }
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[&'a Rule] {
        &self.rules
    }
}

/// What of a flow the kernel changes before it asks the rules (`l3mdev_update_flow`, `net/l3mdev/l3mdev.c`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// The device whose routes alone may be taken.
    pub(super) device: Option<u32>,
    /// The VRF that the flow comes from or is bound to, by index.
    pub(super) vrf: Option<u32>,
    /// The device that the flow came in by, [`LOOPBACK_INDEX`] for the host's own. None where the kernel puts the VRF in
    /// the port's place, which is then no device of any route.
    pub(super) input: Option<u32>,
}

impl<'a> Fib<'a> {
    /// Indexes a snapshot.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut tables: HashMap<(Family, u32), Table> = HashMap::new();
        let mut shared: HashMap<Place, (u8, u8)> = HashMap::new();
        for (index, route) in snapshot.routes.iter().enumerate() {
            let table = tables.entry((route.family, route.table)).or_default();
            table.entry(route.destination.trunc()).or_default().push(index);
            for place in places(route) {
                let length = route.destination.prefix_len();
                let (shortest, longest) = shared.entry(place).or_insert((length, length));
                (*shortest, *longest) = (length.min(*shortest), length.max(*longest));
            }
        }
        Self {
            snapshot,
            links: snapshot.links.iter().map(|link| (link.index, link)).collect(),
            names: snapshot.links.iter().map(|link| (link.name.as_str(), link)).collect(),
            tables,
            partial: snapshot.partial.iter().map(|partial| (partial.family, partial.table)).collect(),
            shared,
            own: snapshot.addresses.iter().map(|address| address.local).collect(),
            ports_bind: kernel_version(&snapshot.host.kernel).is_none_or(|version| version >= (5, 19)),
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The interface of this index.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&'a Link> {
        self.links.get(&index).copied()
    }

    /// The interface of this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&'a Link> {
        self.names.get(name).copied()
    }

    /// Is it one of the host's own addresses?
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The rules of a family as they stand.
    #[must_use]
    pub fn policy(&self, family: Family) -> Policy<'a> {
        let mut rules: Vec<&Rule> = self.snapshot.rules_of(family).collect();
        rules.sort_by_key(|rule| rule.priority);
        Policy { family, rules }
    }

    /// Were all routes of this table read?
    #[must_use]
    pub fn is_whole(&self, family: Family, table: u32) -> bool {
        !self.partial.contains(&(family, table))
    }

    /// Has this table any route, as far as is known?
    #[must_use]
    pub fn is_empty(&self, family: Family, table: u32) -> bool {
        !self.tables.contains_key(&(family, table))
    }

    /// The routes of a table whose prefix holds this address or prefix, the longest prefix first.
    #[must_use]
    pub fn covering(&self, table: u32, prefix: IpNet) -> Vec<Vec<&'a Route>> {
        let family = Family::of(prefix.addr());
        let Some(table) = self.tables.get(&(family, table)) else { return Vec::new() };
        let mut found: Vec<Vec<&'a Route>> = table.cover_values(&prefix).map(|indices| self.routes(indices)).collect();
        found.reverse();
        found
    }

    fn routes(&self, indices: &[usize]) -> Vec<&'a Route> {
        indices.iter().filter_map(|index| self.snapshot.routes.get(*index)).collect()
    }

    /// The routes of a table whose prefix lies in this one, that prefix's own included.
    pub fn within(&self, table: u32, prefix: IpNet) -> impl Iterator<Item = &'a Route> {
        let table = self.tables.get(&(Family::of(prefix.addr()), table));
        let inside = table.into_iter().flat_map(move |table| table.children(&prefix));
        inside.flat_map(|(_, indices)| self.routes(indices))
    }

    /// Is there another route on the other side of this length that uses the same IPv6 nexthop by an object? The kernel
    /// keeps what it made of the nexthop for the first of them that was asked for, and goes by that one's length then
    /// (`rt6_get_pcpu_route`, `net/ipv6/route.c`; `fib6_rule_suppress`).
    pub(super) fn may_be_kept_for_another(&self, route: &Route, length: Option<u32>) -> bool {
        let Some(length) = length else { return false };
        let parts = |(shortest, longest): &(u8, u8)| u32::from(*shortest) <= length && length < u32::from(*longest);
        places(route).any(|place| self.shared.get(&place).is_some_and(parts))
    }

    pub(super) fn bound(&self, flow: &Flow) -> Bound {
        let master = |index: u32| {
            let link = self.link(index)?;
            if is_vrf(link) { Some(index) } else { link.master.filter(|master| self.link(*master).is_some_and(is_vrf)) }
        };
        match flow.oif {
            Some(oif) => {
                let vrf = master(oif);
                let is_port = vrf.is_some_and(|vrf| vrf != oif);
                let binds = vrf.is_none() || (is_port && self.ports_bind);
                Bound { device: Some(oif).filter(|_| binds), vrf, input: Some(flow.iif) }
            }
            None => {
                let vrf = Some(flow.iif).filter(|iif| *iif > LOOPBACK_INDEX).and_then(master);
                Bound { device: None, vrf, input: Some(flow.iif).filter(|_| vrf.is_none() || self.ports_bind) }
            }
        }
    }

    /// The tables of all VRF devices.
    pub fn vrf_tables(&self) -> impl Iterator<Item = u32> {
        self.snapshot.links.iter().filter_map(|link| match link.kind {
            LinkKind::Vrf { table } => Some(table),
            _ => None,
        })
    }

    /// The table of a VRF device.
    pub(super) fn vrf_table(&self, index: u32) -> Option<u32> {
        match self.link(index)?.kind {
            LinkKind::Vrf { table } => Some(table),
            _ => None,
        }
    }
}

/// The nexthops that an IPv6 route uses by an object.
fn places(route: &Route) -> impl Iterator<Item = Place> {
    let by_object = route.family == Family::V6 && route.nexthop_object.is_some();
    route.nexthops.iter().filter(move |_| by_object).map(|nexthop| (nexthop.ifindex, nexthop.gateway))
}

pub(super) fn is_vrf(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vrf { .. })
}

/// Major and minor number of a kernel release (`6.1.0-56-amd64`).
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers_that_count() {
        assert_eq!(kernel_version("5.10.0-46-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version(""), None);
        assert_eq!(kernel_version("99999999999.1"), None);
    }
}
