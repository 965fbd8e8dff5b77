//! The verdict on what the kernel is seen doing: which lookups and packets went right, which wrong, and which prove
//! nothing.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::destination::Destination;
use super::model::{Family, Snapshot};
use super::observation::{Hook, LookupKey, LookupKind, LookupOutcome, PacketKey};
use super::tunnel::Tunnel;
use super::walk;

/// A prefix that the kernel side watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The prefix.
    pub prefix: IpNet,
    /// Indices of the tunnels that its traffic belongs to; none for a prefix that is only watched.
    pub tunnels: Vec<u32>,
}

/// The prefixes to watch, in the order of the kernel side's indices: the destinations first, then what is only watched.
#[must_use]
pub fn watches(destinations: &[Destination], only_watched: &[IpNet]) -> Vec<Watch> {
    let mut watches: Vec<Watch> = Vec::new();
    let mut places: HashMap<IpNet, usize> = HashMap::new();
    let all = destinations.iter().map(|destination| (destination.prefix, destination.tunnels.as_slice()));
    for (prefix, tunnels) in all.chain(only_watched.iter().map(|prefix| (*prefix, &[][..]))) {
        let place = *places.entry(prefix).or_insert(watches.len());
        match watches.get_mut(place) {
            Some(watch) => watch.tunnels.extend(tunnels),
            None => watches.push(Watch { prefix, tunnels: tunnels.to_vec() }),
        }
    }
    watches
}

/// The destinations as far as they lie in these prefixes; all where there are none. A prefix inside a destination stands
/// for that part of it, with the tunnels of the longest destination around it.
#[must_use]
pub fn narrowed(destinations: &[Destination], only: &[IpNet]) -> Vec<Destination> {
    if only.is_empty() {
        return destinations.to_vec();
    }
    let inside = |destination: &&Destination| only.iter().any(|only| only.contains(&destination.prefix));
    let mut found: Vec<Destination> = destinations.iter().filter(inside).cloned().collect();
    for only in only {
        if found.iter().any(|destination| destination.prefix == *only) {
            continue;
        }
        let around = || destinations.iter().filter(|destination| destination.prefix.contains(only));
        let Some(longest) = around().map(|destination| destination.prefix.prefix_len()).max() else { continue };
        let nearest = around().filter(|destination| destination.prefix.prefix_len() == longest);
        found.extend(nearest.map(|destination| Destination { prefix: *only, ..destination.clone() }));
    }
    found
}

/// Brings the watches up to the host's present state; indices stay. A tunnel that was made anew counts beside the old one;
/// a prefix that belongs to no tunnel any more is not judged from now on; new prefixes come last. Returns how many there
/// are of those.
pub fn rebind(watches: &mut Vec<Watch>, destinations: &[Destination]) -> usize {
    let now = self::watches(destinations, &[]);
    let by_prefix: HashMap<IpNet, &Watch> = now.iter().map(|watch| (watch.prefix, watch)).collect();
    for watch in watches.iter_mut() {
        match by_prefix.get(&watch.prefix) {
            Some(other) => {
                let further = other.tunnels.iter().filter(|index| !watch.tunnels.contains(index)).copied();
                let further: Vec<u32> = further.collect();
                watch.tunnels.extend(further);
            }
            None => watch.tunnels.clear(),
        }
    }
    let before = watches.len();
    let known: HashSet<IpNet> = watches.iter().map(|watch| watch.prefix).collect();
    watches.extend(now.into_iter().filter(|watch| !known.contains(&watch.prefix)));
    watches.len() - before
}

/// The VRFs that watched prefixes belong to: the prefix' index, and that of the VRF's device.
#[must_use]
pub fn vrfs(watches: &[Watch], tunnels: &[Tunnel]) -> Vec<(u32, u32)> {
    let of_tunnel: HashMap<u32, u32> =
        tunnels.iter().filter_map(|tunnel| Some((tunnel.ifindex, tunnel.vrf?))).collect();
    // Most hosts have none, and `watch` asks at each judging, while traffic may leak.
    if of_tunnel.is_empty() {
        return Vec::new();
    }
    let pairs = (0..).zip(watches).flat_map(|(index, watch)| {
        let vrfs = watch.tunnels.iter().filter_map(|tunnel| of_tunnel.get(tunnel));
        vrfs.map(move |vrf| (index, *vrf))
    });
    pairs.collect()
}

/// What observations are judged against.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The host.
    pub snapshot: &'a Snapshot,
    /// The watched prefixes, by the kernel side's index.
    pub watches: &'a [Watch],
    /// The outcome of whole walks is seen (`fexit`), not only each table's.
    pub knows_outcomes: bool,
    /// The other namespaces, where they are told of too.
    pub others: &'a Others,
}

/// Namespaces beside the one that is judged: their names, and their devices by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Name by inode.
    pub names: HashMap<u32, String>,
    /// Name of a device by inode and index.
    pub devices: HashMap<(u32, u32), String>,
}

/// What one observation says about its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It went to the tunnel.
    Right,
    /// It went elsewhere, or was refused.
    Wrong,
    /// One table of a walk whose outcome is told elsewhere: a miss, or a hit beside which the outcome is seen itself.
    Step,
    /// A hit that a rule with `suppress_prefixlength` may have discarded.
    Provisional,
    /// Bound to a device by its socket: the sender chose.
    Bound,
    /// A question of the kernel's own, such as source validation.
    Internal,
    /// The hook cannot tell whose it is: without a nexthop there is no device, and so no namespace.
    NamespaceUnknown,
    /// Another namespace's: its routing was not read.
    OtherNamespace,
    /// No tunnel's traffic.
    Unjudged,
}

impl View<'_> {
    /// What a lookup says.
    #[must_use]
    pub fn lookup(&self, key: &LookupKey) -> Standing {
        if key.netns.is_some_and(|netns| !self.is_own(netns)) {
            return Standing::OtherNamespace;
        }
        let Some(watch) = self.judged_watch(key.watch) else { return Standing::Unjudged };
        if key.kind == LookupKind::SourceValidation {
            return Standing::Internal;
        }
        if key.marks.bound {
            return Standing::Bound;
        }
        if key.outcome == LookupOutcome::Miss || self.outcome_is_told_elsewhere(key) {
            return Standing::Step;
        }
        // The table's answer to "no route" looks the same in IPv6 as that of an unreachable route.
        if key.hook == Hook::Fib6Table && key.outcome != LookupOutcome::Hit {
            return Standing::Step;
        }
        if key.netns.is_none() {
            return Standing::NamespaceUnknown;
        }
        let Some(ifindex) = key.ifindex else { return Standing::Wrong };
        if self.may_be_suppressed(key) {
            return Standing::Provisional;
        }
        side(watch, ifindex)
    }

    /// What a packet says.
    #[must_use]
    pub fn packet(&self, key: &PacketKey) -> Standing {
        match self.judged_watch(key.watch) {
            _ if !self.is_own(key.netns) => Standing::OtherNamespace,
            None => Standing::Unjudged,
            Some(_) if key.marks.bound => Standing::Bound,
            Some(watch) => side(watch, key.ifindex),
        }
    }

    /// Is this the namespace that is judged?
    #[must_use]
    pub fn is_own(&self, netns: u32) -> bool {
        u64::from(netns) == self.snapshot.netns.inode
    }

    /// The name of a device of a namespace (of the judged one where the hook cannot tell), `if7` where it is not known.
    #[must_use]
    pub fn device(&self, netns: Option<u32>, index: u32) -> String {
        match netns {
            Some(netns) if !self.is_own(netns) => {
                self.others.devices.get(&(netns, index)).cloned().unwrap_or_else(|| format!("if{index}"))
            }
            _ => self.snapshot.device_name(index),
        }
    }

    /// The name of a namespace, `None` for one without.
    #[must_use]
    pub fn namespace(&self, netns: Option<u32>) -> Option<String> {
        let netns = netns?;
        if self.is_own(netns) {
            return self.snapshot.netns.name.clone();
        }
        self.others.names.get(&netns).cloned()
    }

    /// Is this lookup the outcome of a walk, as far as is known (and not one table of it)?
    #[must_use]
    pub fn is_final(&self, key: &LookupKey) -> bool {
        key.outcome != LookupOutcome::Miss && !self.outcome_is_told_elsewhere(key) && !self.may_be_suppressed(key)
    }

    /// Is this one table's hit, which a rule may have discarded? The outcome of a whole walk is not.
    fn may_be_suppressed(&self, key: &LookupKey) -> bool {
        let watch = self.watches.get(key.watch as usize).filter(|_| key.hook != Hook::FibRules);
        watch.zip(key.ifindex).is_some_and(|(watch, ifindex)| {
            let family = Family::of(watch.prefix.addr());
            walk::hit_may_be_suppressed(self.snapshot, family, key.table, ifindex)
        })
    }

    /// The kernel calls `__fib_lookup` only in a namespace with custom rules; there its outcome is the authority.
    fn outcome_is_told_elsewhere(&self, key: &LookupKey) -> bool {
        key.hook == Hook::FibTable && self.knows_outcomes && key.custom_rules
    }

    fn judged_watch(&self, index: u32) -> Option<&Watch> {
        self.watches.get(index as usize).filter(|watch| !watch.tunnels.is_empty())
    }
}

fn side(watch: &Watch, ifindex: u32) -> Standing {
    if watch.tunnels.contains(&ifindex) { Standing::Right } else { Standing::Wrong }
}

/// The verdict on a watched prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// What was seen went to the tunnel.
    Right,
    /// Lookups went elsewhere; no packet has proven it.
    Suspected,
    /// A packet was handed to the wrong device.
    Misrouted,
}

/// Follows the verdict on each prefix from event to event. The latest evidence counts; but lookups do not make what
/// packets have proven a mere suspicion.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    current: Vec<Option<Verdict>>,
    worst: Vec<Option<Verdict>>,
}

impl Verdicts {
    /// For so many watched prefixes.
    #[must_use]
    pub fn new(watches: usize) -> Self {
        Self { current: vec![None; watches], worst: vec![None; watches] }
    }

    /// Makes room for watches that came later.
    pub fn extend_to(&mut self, watches: usize) {
        self.current.resize(watches.max(self.current.len()), None);
        self.worst.resize(watches.max(self.worst.len()), None);
    }

    /// The worst verdict so far.
    #[must_use]
    pub fn worst(&self, watch: u32) -> Option<Verdict> {
        self.worst.get(watch as usize).copied().flatten()
    }

    /// Takes a lookup's standing; tells the verdict if it changed.
    pub fn lookup(&mut self, watch: u32, standing: Standing) -> Option<Verdict> {
        match standing {
            Standing::Right => self.change(watch, Verdict::Right),
            Standing::Wrong if self.of(watch) != Some(Verdict::Misrouted) => self.change(watch, Verdict::Suspected),
            _ => None,
        }
    }

    /// Takes a packet's standing; tells the verdict if it changed.
    pub fn packet(&mut self, watch: u32, standing: Standing) -> Option<Verdict> {
        match standing {
            Standing::Right => self.change(watch, Verdict::Right),
            Standing::Wrong => self.change(watch, Verdict::Misrouted),
            _ => None,
        }
    }

    /// The verdict now.
    #[must_use]
    pub fn of(&self, watch: u32) -> Option<Verdict> {
        self.current.get(watch as usize).copied().flatten()
    }

    fn change(&mut self, watch: u32, to: Verdict) -> Option<Verdict> {
        let slot = self.current.get_mut(watch as usize)?;
        if let Some(worst) = self.worst.get_mut(watch as usize) {
            *worst = (*worst).max(Some(to));
        }
        (slot.replace(to) != Some(to)).then_some(to)
    }
}

#[cfg(test)]
mod tests;
