//! What happens to single flows, joined to one story each.
//!
//! The kernel side tells first sights of (flow, act) and counts the rest. A lookup may know less of its flow than a packet
//! does (a connection has no port yet, a forwarded packet's lookup has no protocol), so a story begins with what is known
//! and is filled in.

mod encryption;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::observation::{Act, FlowEvent, FlowKey, FlowSeen, LookupKey, LookupOutcome, Tally, Task, TcpSeen, TcpState};
use super::origin::{Context, Purpose};

pub use encryption::Associations;
pub use tell::Case;

/// Most stories that are kept; what comes later is counted.
const STORIES_MAX: usize = 8192;
/// Most things that happened that are kept: as many as the kernel side tells apart.
const ACTS_MAX: usize = vpnfix_common::FLOWS_MAX as usize;
/// A story is told when nothing new came for so long: a packet's lookup, its way out and its answer then stand in one.
const SETTLED_NS: u64 = 400_000_000;
/// Most TCP states of one story that are kept, the latest.
const STATES_MAX: usize = 16;
/// Most TCP states that wait for their connection's first packet.
const EARLY_MAX: usize = 64;

/// All flows seen.
#[derive(Debug, Default)]
pub struct Flows {
    stories: Vec<Story>,
    by_key: HashMap<FlowKey, (usize, usize)>,
    by_destination: HashMap<(u32, IpAddr), Vec<usize>>,
    /// The same with the source port, 0 while it is not known: many flows to one destination are found at once.
    by_port: HashMap<(u32, IpAddr, u16), Vec<usize>>,
    /// `SYN_SENT` comes before the connection has a port (`tcp_v4_connect`), and so before its story where an earlier one
    /// to the same peer has had the lookup.
    early: VecDeque<TcpSeen>,
    untold: u64,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Story {
    /// Namespace.
    netns: u32,
    /// Index of the watched prefix.
    watch: u32,
    /// Addresses and ports, as far as known.
    flow: FlowSeen,
    /// What happened.
    acts: Vec<ActSeen>,
    /// TCP's states with their times.
    states: Vec<(u64, TcpState, TcpState)>,
    /// When something new came last.
    changed_ns: u64,
    /// Something new came since it was told.
    is_new: bool,
    /// What was told last, by words.
    told: Vec<(&'static str, String)>,
}

/// One thing that happened, with its counts.
#[derive(Clone, Debug)]
struct ActSeen {
    key: FlowKey,
    tally: Tally,
    /// What its first sight told; none if that was lost.
    first: Option<First>,
}

/// What the first sight of something tells.
#[derive(Clone, Debug)]
struct First {
    iif: u32,
    oif: Option<u32>,
    mark: u32,
    uid: u32,
    task: Task,
    context: Context,
    purpose: Purpose,
}

impl Flows {
    /// Takes a first sight, with what its call stack says.
    pub fn event(&mut self, event: &FlowEvent, context: Context, purpose: Purpose) {
        let Some((story, act)) = self.place(&event.key) else { return };
        let Some(story) = self.stories.get_mut(story) else { return };
        story.is_new = true;
        story.changed_ns = event.time_ns;
        if let Some(act) = story.acts.get_mut(act) {
            let once =
                Tally { count: 1, bytes: u64::from(event.length), first_ns: event.time_ns, last_ns: event.time_ns };
            if act.tally.count == 0 {
                act.tally = once;
            }
            act.first = Some(First {
                iif: event.iif,
                oif: event.oif,
                mark: event.mark,
                uid: event.uid,
                task: event.task.clone(),
                context,
                purpose,
            });
        }
    }

    /// Takes a change of TCP's state, if its flow is known or watched. Listening sockets belong to no flow.
    pub fn state(&mut self, seen: &TcpSeen) {
        let without_port = seen.flow.source_port == 0;
        // The latest: a port may be used again.
        let its_own = |story: &&mut Story| story.fits(seen) && (!without_port || story.flow.source_port == 0);
        match self.stories.iter_mut().rev().find(its_own) {
            Some(story) => story.push_state(seen),
            None if without_port => {
                if self.early.len() == EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back(seen.clone());
            }
            None => {}
        }
    }

    /// Gives a story that has a port by now the state that came before it.
    fn take_early(&mut self, index: usize) {
        let Some(story) = self.stories.get_mut(index) else { return };
        if story.flow.source_port == 0 || !story.states.is_empty() {
            return;
        }
        // The latest; those before it were of connections whose packets nobody saw.
        let latest = self.early.iter().rev().find(|seen| story.fits(seen)).cloned();
        self.early.retain(|seen| !story.fits(seen));
        if let Some(seen) = latest {
            story.push_state(&seen);
        }
    }

    /// Takes the counts so far.
    pub fn counted(&mut self, flows: &[(FlowKey, Tally)]) {
        for (key, tally) in flows {
            let Some((story, act)) = self.place(key) else { continue };
            if let Some(act) = self.stories.get_mut(story).and_then(|story| story.acts.get_mut(act)) {
                act.tally = *tally;
            }
        }
    }

    /// The count that was taken last of something that happened.
    #[must_use]
    pub fn tally(&self, key: &FlowKey) -> Option<Tally> {
        let (story, act) = self.by_key.get(key)?;
        self.stories.get(*story)?.acts.get(*act).map(|act| act.tally)
    }

    /// Numbers of the stories that have something new and have settled by this time; of all that have something new at
    /// the end of time.
    #[must_use]
    pub fn due(&self, now_ns: u64) -> Vec<usize> {
        let is_due = |story: &Story| {
            story.is_new && story.is_worth_telling() && now_ns.saturating_sub(story.changed_ns) >= SETTLED_NS
        };
        self.stories.iter().enumerate().filter(|(_, story)| is_due(story)).map(|(index, _)| index).collect()
    }

    /// Stories that are worth telling, by number.
    pub fn worth_telling(&self) -> impl Iterator<Item = (usize, &Story)> {
        self.stories.iter().enumerate().filter(|(_, story)| story.is_worth_telling())
    }

    /// How many things happened that found no room.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// Story and act of a key; made if they are new.
    fn place(&mut self, key: &FlowKey) -> Option<(usize, usize)> {
        if let Some(place) = self.by_key.get(key) {
            return Some(*place);
        }
        if self.by_key.len() >= ACTS_MAX {
            self.untold += 1;
            return None;
        }
        let story = self.story_of(key)?;
        let acts = &mut self.stories.get_mut(story)?.acts;
        acts.push(ActSeen { key: *key, tally: Tally::default(), first: None });
        let place = (story, acts.len() - 1);
        self.by_key.insert(*key, place);
        Some(place)
    }

    fn story_of(&mut self, key: &FlowKey) -> Option<usize> {
        if let Some(index) = self.find(key) {
            let port_before = self.stories.get(index).map_or(0, |story| story.flow.source_port);
            if let Some(story) = self.stories.get_mut(index) {
                story.fill_in(&key.flow);
            }
            if port_before == 0 && key.flow.source_port != 0 {
                self.by_port.entry((key.netns, key.flow.destination, key.flow.source_port)).or_default().push(index);
                self.take_early(index);
            }
            return Some(index);
        }
        if self.stories.len() >= STORIES_MAX {
            self.untold += 1;
            return None;
        }
        let index = self.stories.len();
        self.by_destination.entry((key.netns, key.flow.destination)).or_default().push(index);
        self.by_port.entry((key.netns, key.flow.destination, key.flow.source_port)).or_default().push(index);
        self.stories.push(Story {
            netns: key.netns,
            watch: key.watch,
            flow: key.flow,
            acts: Vec::new(),
            states: Vec::new(),
            changed_ns: 0,
            is_new: false,
            told: Vec::new(),
        });
        self.take_early(index);
        Some(index)
    }

    /// The story that a key belongs to: that of exactly its flow first, for a lookup without ports fits several; of those
    /// that fit, the latest.
    fn find(&self, key: &FlowKey) -> Option<usize> {
        let (netns, to, port) = (key.netns, key.flow.destination, key.flow.source_port);
        let of_port = |port: u16| self.by_port.get(&(netns, to, port)).map_or(&[][..], Vec::as_slice);
        let everywhere = self.by_destination.get(&(netns, to)).map_or(&[][..], Vec::as_slice);
        let near = if port == 0 { [everywhere, &[]] } else { [of_port(0), of_port(port)] };
        let candidates = || near.iter().rev().flat_map(|indices| indices.iter().rev().copied());
        let flow = |index: usize| self.stories.get(index).map(|story| &story.flow);
        candidates()
            .find(|index| flow(*index) == Some(&key.flow))
            .or_else(|| candidates().find(|index| flow(*index).is_some_and(|flow| fits(flow, &key.flow))))
    }
}

/// May both be the same flow, as far as each knows it?
fn fits(one: &FlowSeen, other: &FlowSeen) -> bool {
    let same_or_unknown = |one: u16, other: u16| one == other || one == 0 || other == 0;
    one.destination == other.destination
        && (one.source == other.source || one.source.is_none() || other.source.is_none())
        && (one.protocol == other.protocol || one.protocol == 0 || other.protocol == 0)
        && same_or_unknown(one.source_port, other.source_port)
        && same_or_unknown(one.destination_port, other.destination_port)
}

impl Story {
    /// May a state be that of this flow's connection?
    fn fits(&self, seen: &TcpSeen) -> bool {
        self.netns == seen.netns && self.flow.protocol == seen.flow.protocol && fits(&self.flow, &seen.flow)
    }

    fn push_state(&mut self, seen: &TcpSeen) {
        if self.states.len() == STATES_MAX {
            self.states.remove(0);
        }
        self.states.push((seen.time_ns, seen.old, seen.new));
        self.is_new = true;
        self.changed_ns = seen.time_ns;
    }

    fn fill_in(&mut self, flow: &FlowSeen) {
        self.flow.source = self.flow.source.or(flow.source);
        let fill = |known: u16, found: u16| if known == 0 { found } else { known };
        self.flow.source_port = fill(self.flow.source_port, flow.source_port);
        self.flow.destination_port = fill(self.flow.destination_port, flow.destination_port);
        if self.flow.protocol == 0 {
            self.flow.protocol = flow.protocol;
        }
    }

    /// A lookup that found a route and was followed by nothing is a question, not a flow: programs ask so for the source
    /// address that they would have. So is source validation.
    fn is_worth_telling(&self) -> bool {
        !self.states.is_empty()
            || self.acts.iter().any(|act| match act.key.act {
                Act::Lookup { outcome: LookupOutcome::Refused(_), .. } => true,
                Act::Lookup { .. } => false,
                Act::Packet(_) | Act::Drop(_) | Act::Answer(_) | Act::Retransmission => true,
            })
    }
}

impl ActSeen {
    /// As the key of a lookup, to be judged like one.
    fn lookup_key(&self) -> Option<LookupKey> {
        let Act::Lookup { table, ifindex, outcome, hook, kind, custom_rules } = self.key.act else { return None };
        Some(LookupKey {
            netns: Some(self.key.netns),
            watch: self.key.watch,
            table,
            ifindex,
            outcome,
            hook,
            kind,
            marks: self.key.marks,
            custom_rules,
            prefix_length: None,
        })
    }
}

#[cfg(test)]
mod tests;
