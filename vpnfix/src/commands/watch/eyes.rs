//! What hears and sees: the kernel's notifications and the tracer, with what came and was not looked at yet.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use crate::commands::assess::Host;
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::core::destination;
use crate::core::live::{self, Others, View, Watch};
use crate::core::model::Snapshot;
use crate::core::observation::{LookupKey, Observation, PacketKey, Totals};
use crate::core::walk::Fib;
use crate::system::bpf::Tracer;
use crate::system::netlink::{Change, Monitor};

/// Hears and sees.
pub(super) struct Eyes {
    pub(super) monitor: Monitor,
    pub(super) tracer: Tracer,
    pub(super) watches: Vec<Watch>,
    pub(super) changes: Vec<Change>,
    pub(super) seen: Vec<Observation>,
    /// What was seen to go elsewhere while the kernel's answers were right: on purpose, until something changes.
    pub(super) dismissed: HashSet<(u32, u32)>,
    /// Sightings that were not judged yet.
    pub(super) unjudged: HashSet<(u32, u32)>,
    lookups: HashMap<LookupKey, u64>,
    packets: HashMap<PacketKey, (u64, u64)>,
    /// The tracer has no room for more prefixes.
    full: bool,
    /// Other namespaces: none is watched.
    others: Others,
}

/// What went wrong of a tunnel's traffic since the last count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leak {
    pub(super) lookups: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Eyes {
    pub(super) fn new(monitor: Monitor, tracer: Tracer, watches: Vec<Watch>) -> Self {
        Self {
            monitor,
            tracer,
            watches,
            changes: Vec::new(),
            seen: Vec::new(),
            dismissed: HashSet::new(),
            unjudged: HashSet::new(),
            lookups: HashMap::new(),
            packets: HashMap::new(),
            full: false,
            others: Others::default(),
        }
    }

    pub(super) fn view<'a>(&'a self, snapshot: &'a Snapshot) -> View<'a> {
        View { snapshot, watches: &self.watches, knows_outcomes: self.tracer.knows_outcomes(), others: &self.others }
    }

    /// Name of the tunnel that a watched prefix belongs to.
    pub(super) fn tunnel_of(&self, snapshot: &Snapshot, watch: u32) -> Option<String> {
        let watch = self.watches.get(usize::try_from(watch).ok()?)?;
        // A tunnel that was made anew counts beside the old one, which has no name any more.
        watch.tunnels.iter().rev().find_map(|index| snapshot.link(*index)).map(|link| link.name.clone())
    }

    /// Watches what the host has now. That there is no room for more is said once; notifications and the kernel's answers
    /// find what goes wrong there all the same.
    pub(super) fn follow(&mut self, host: &Host) -> Result<(), Failure> {
        let added = live::rebind(&mut self.watches, &host.destinations);
        if added > 0 && !self.full {
            self.watch_too(host, added)?;
        }
        let vrfs = live::vrfs(&self.watches, &host.tunnels);
        self.tracer.know_vrfs(vrfs).map_err(|error| attach::bpf_failure("tell the VRFs", &error))
    }

    fn watch_too(&mut self, host: &Host, added: usize) -> Result<(), Failure> {
        let further: Vec<IpNet> = self.watches.iter().rev().take(added).rev().map(|watch| watch.prefix).collect();
        let holes = destination::holes(&Fib::new(&host.snapshot), &host.destinations);
        self.tracer.watch_too(&further, &holes).map_err(|error| {
            self.full = true;
            attach::bpf_failure("watch further prefixes", &error)
        })
    }

    /// What went wrong since the last call, by tunnel, and everything counted.
    pub(super) fn leaks(&mut self, snapshot: &Snapshot) -> Result<(HashMap<String, Leak>, Totals), Failure> {
        let totals = attach::totals(&self.tracer)?;
        let mut leaks: HashMap<String, Leak> = HashMap::new();
        let mut lookups = std::mem::take(&mut self.lookups);
        let mut packets = std::mem::take(&mut self.packets);
        let view = self.view(snapshot);
        for (key, tally) in &totals.lookups {
            let before = lookups.insert(*key, tally.count).unwrap_or(0);
            let more = tally.count.saturating_sub(before);
            if more > 0 && view.lookup(key) == live::Standing::Wrong && view.is_final(key) {
                let tunnel = self.tunnel_of(snapshot, key.watch).unwrap_or_default();
                leaks.entry(tunnel).or_default().lookups += more;
            }
        }
        for (key, tally) in &totals.packets {
            let (count, bytes) = packets.insert(*key, (tally.count, tally.bytes)).unwrap_or_default();
            let more = tally.count.saturating_sub(count);
            if more > 0 && view.packet(key) == live::Standing::Wrong {
                let tunnel = self.tunnel_of(snapshot, key.watch).unwrap_or_default();
                let leak = leaks.entry(tunnel).or_default();
                leak.packets += more;
                leak.bytes += tally.bytes.saturating_sub(bytes);
            }
        }
        (self.lookups, self.packets) = (lookups, packets);
        Ok((leaks, totals))
    }
}
