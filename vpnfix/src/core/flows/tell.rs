//! From what was seen of a flow to its story.

use super::encryption::{self, Associations};
use super::{ActSeen, First, Flows, Story};
use crate::core::explain::steps;
use crate::core::live::{Standing, View};
use crate::core::model::{Family, TABLE_LOCAL, TABLE_MAIN};
use crate::core::observation::{Act, LookupKind, LookupOutcome};
use crate::core::origin::{Context, Purpose};
use crate::core::owner::Clues;
use crate::core::report::explain::{Did, WalkStep};
use crate::core::report::flow::{
    Encryption, Fate, Sender, StoryAnswer, StoryDrop, StoryEgress, StoryLine, StoryLookup, StoryReport, StoryState,
};
use crate::core::story::{self, WallClock};
use crate::core::walk::{self, End, Fib, Flow, LOOPBACK_INDEX};

/// IP protocol numbers (IANA).
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// The kernel's name of a reason (`include/net/dropreason-core.h`).
const NO_SOCKET: &str = "NO_SOCKET";

/// What stories are told from.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// What is judged against.
    pub view: &'a View<'a>,
    /// The host's routing, of the view's snapshot.
    pub fib: &'a Fib<'a>,
    /// Signs of other programs.
    pub clues: &'a Clues,
    /// Security associations.
    pub associations: Associations<'a>,
    /// The kernel's names of its reasons for dropping packets.
    pub reasons: &'a [(i32, String)],
    /// The kernel's function at an address.
    pub function: &'a dyn Fn(u64) -> Option<String>,
    /// For times.
    pub clock: WallClock,
}

impl Case<'_> {
    /// What encrypts what a device takes; none for devices without IPsec, and where that is not known.
    #[must_use]
    pub fn encryption(&self, ifindex: u32) -> Option<Encryption> {
        encryption::of_device(self.view.snapshot, &self.associations, ifindex)
    }
}

impl Flows {
    /// Tells a story, with what changed since it was told last. Nothing where it was told before and only counts changed.
    pub fn tell(&mut self, index: usize, case: &Case<'_>, now_ns: u64) -> Option<StoryLine> {
        let story = self.stories.get_mut(index)?;
        story.is_new = false;
        let report = story.report(index, case, true);
        let facts = facts(&report);
        let is_first = story.told.is_empty();
        let changed: Vec<String> =
            if is_first { Vec::new() } else { changes(&story.told, &facts).into_iter().collect() };
        story.told = facts;
        (is_first || !changed.is_empty()).then(|| StoryLine { time: case.clock.tell(now_ns), changed, story: report })
    }

    /// All stories worth telling as they stand, the worst first.
    #[must_use]
    pub fn reports(&self, case: &Case<'_>) -> Vec<StoryReport> {
        self.all(case, true)
    }

    /// The same without the walks, which take most of the time.
    #[must_use]
    pub fn outlines(&self, case: &Case<'_>) -> Vec<StoryReport> {
        self.all(case, false)
    }

    /// The story of a number, as it stands.
    #[must_use]
    pub fn report(&self, flow_id: u32, case: &Case<'_>) -> Option<StoryReport> {
        let index = usize::try_from(flow_id).ok()?.checked_sub(1)?;
        self.stories.get(index).map(|story| story.report(index, case, true))
    }

    fn all(&self, case: &Case<'_>, walks: bool) -> Vec<StoryReport> {
        let told = self.worth_telling().map(|(index, story)| story.report(index, case, walks));
        let mut reports: Vec<StoryReport> = told.collect();
        reports.sort_by_key(|report| (report.fate, report.flow_id));
        reports
    }
}

/// What a story says, but for its counts, by headings.
fn facts(report: &StoryReport) -> Vec<(&'static str, String)> {
    let list = |words: Vec<String>| if words.is_empty() { "none".to_string() } else { words.join(", ") };
    let encrypted = |egress: &StoryEgress| match &egress.encryption {
        Some(Encryption::By { spi, .. }) => Some(format!("{} by SA {spi:#010x}", egress.device)),
        Some(Encryption::None) => Some(format!("{} without an SA", egress.device)),
        None => None,
    };
    let dropped = |drop: &StoryDrop| {
        let way = if drop.incoming { "answers" } else { "packets" };
        let why = drop.reason.as_deref().unwrap_or("no reason given");
        format!("{way}: {why} in {}", drop.function.as_deref().unwrap_or("a function that is not known"))
    };
    let lookups = report.lookups.iter().filter(|lookup| lookup.standing != Standing::Step);
    let mut found: Vec<String> = lookups
        .map(|lookup| format!("table {} to {}", lookup.table, lookup.device.as_deref().unwrap_or("nowhere")))
        .collect();
    found.dedup();
    vec![
        ("fate", format!("{:?}", report.fate).to_lowercase()),
        ("looked up", list(found)),
        ("source", report.flow.source.map_or_else(|| "none".into(), |source| source.to_string())),
        ("left by", list(report.egress.iter().map(|egress| egress.device.clone()).collect())),
        ("encrypted", list(report.egress.iter().filter_map(encrypted).collect())),
        ("dropped", list(report.drops.iter().map(dropped).collect())),
        ("answered by", list(report.answers.iter().map(|answer| answer.device.clone()).collect())),
        ("sent again", if report.retransmissions > 0 { "yes".into() } else { "no".into() }),
        ("tcp", report.tcp.last().map_or_else(|| "none".into(), |state| format!("{:?}", state.new).to_lowercase())),
    ]
}

fn changes(before: &[(&'static str, String)], now: &[(&'static str, String)]) -> Vec<String> {
    let pairs = before.iter().zip(now).filter(|((_, before), (_, now))| before != now);
    pairs.map(|((what, before), (_, now))| format!("{what}: {now} (was {before})")).collect()
}

impl Story {
    fn report(&self, index: usize, case: &Case<'_>, with_walk: bool) -> StoryReport {
        let view = case.view;
        let watch = view.watches.get(self.watch as usize);
        let asked = self.deciding_lookup(view);
        let is_own = view.is_own(self.netns);
        let is_walked = is_own && with_walk;
        let (walk, agrees) = if is_walked { self.walk(case, asked) } else { (Vec::new(), None) };
        let (rule, owner) = match asked.and_then(|act| Some((self.flow_asked(act), act.lookup_key()?))) {
            Some((flow, key)) if is_walked => {
                let refused = matches!(key.outcome, LookupOutcome::Refused(_));
                story::rule_of(case.fib, case.clues, &flow, key.table, refused)
            }
            _ => (None, None),
        };
        let source = self.flow.source;
        let own = source.and_then(|source| view.snapshot.addresses.iter().find(|own| own.local == source));
        let first = self.acts.iter().map(|act| act.tally.first_ns).filter(|time| *time != 0);
        let first = first.chain(self.states.iter().map(|(time, ..)| *time)).min().unwrap_or(0);
        let last = self.acts.iter().map(|act| act.tally.last_ns).chain(self.states.iter().map(|(time, ..)| *time));
        let mut report = StoryReport {
            flow_id: u32::try_from(index + 1).unwrap_or(u32::MAX),
            flow: story::flow(&self.flow),
            netns: self.netns,
            netns_name: view.namespace(Some(self.netns)),
            prefix: watch.map_or_else(|| walk::everything(Family::of(self.flow.destination)), |watch| watch.prefix),
            tunnels: watch.filter(|_| is_own).map(|watch| story::names(view, &watch.tunnels)).unwrap_or_default(),
            fate: Fate::NotJudged,
            sender: self.sender(view),
            probe: self.acts.iter().any(|act| act.key.marks.probe),
            lookups: self.lookups(view),
            walk,
            walk_agrees: agrees,
            rule,
            owner,
            source_device: own.filter(|_| is_own).map(|own| view.snapshot.device_name(own.ifindex)),
            egress: self.egress(case),
            drops: self.drops(case),
            answers: self.answers(view),
            retransmissions: self.count(|act| act == Act::Retransmission),
            tcp: self.states(case.clock),
            first: case.clock.tell(first),
            last: case.clock.tell(last.max().unwrap_or(0)),
        };
        report.fate = fate(&report);
        report
    }

    fn count(&self, chosen: impl Fn(Act) -> bool) -> u64 {
        self.acts.iter().filter(|act| chosen(act.key.act)).map(|act| act.tally.count).sum()
    }

    fn states(&self, clock: WallClock) -> Vec<StoryState> {
        self.states
            .iter()
            .map(|(time, old, new)| StoryState { time: clock.tell(*time), old: *old, new: *new })
            .collect()
    }

    /// The lookup that decided about the packets: no validation of somebody else's, and the outcome of a walk where one is
    /// known; of several the last.
    fn deciding_lookup(&self, view: &View<'_>) -> Option<&ActSeen> {
        let decides = |act: &&ActSeen| act.lookup_key().is_some() && !is_of_the_kernels_own(act);
        let is_final = |act: &&ActSeen| act.lookup_key().is_some_and(|key| view.is_final(&key));
        let last = |act: &&ActSeen| act.tally.last_ns;
        let finals = self.acts.iter().filter(decides).filter(is_final).max_by_key(last);
        finals.or_else(|| self.acts.iter().filter(decides).max_by_key(last))
    }

    /// The flow that a lookup asked about, as the engine takes it.
    fn flow_asked(&self, act: &ActSeen) -> Flow {
        let asked = act.key.flow;
        let plain = Flow::plain(asked.destination);
        let first = act.first.as_ref();
        Flow {
            from: asked.source,
            iif: first.map_or(LOOPBACK_INDEX, |first| first.iif),
            oif: first.and_then(|first| first.oif),
            mark: first.map_or(0, |first| first.mark),
            uid: first.map_or(0, |first| first.uid),
            protocol: asked.protocol,
            source_port: asked.source_port,
            destination_port: asked.destination_port,
            ..plain
        }
    }

    /// The engine's walk, and whether it ends where the kernel was seen to end.
    fn walk(&self, case: &Case<'_>, asked: Option<&ActSeen>) -> (Vec<WalkStep>, Option<bool>) {
        let flow = match asked {
            Some(act) => self.flow_asked(act),
            None => Flow {
                from: self.flow.source,
                protocol: self.flow.protocol,
                source_port: self.flow.source_port,
                destination_port: self.flow.destination_port,
                ..Flow::plain(self.flow.destination)
            },
        };
        let policy = case.fib.policy(flow.family());
        let walk = walk::retrace(case.fib, &policy, &flow);
        let key = asked.and_then(ActSeen::lookup_key).filter(|key| case.view.is_final(key));
        let agrees = key.and_then(|key| match (&walk.end, key.outcome) {
            (End::Undecided { .. }, _) => None,
            (End::Route { table, .. }, LookupOutcome::Hit) => {
                // Until a namespace gets its first rule of others, local and main are one table, which answers as main.
                let merged = !key.custom_rules && (*table, key.table) == (TABLE_LOCAL, TABLE_MAIN);
                // What is delivered here has no nexthop that could be compared.
                let by_device = |ifindex| *table == TABLE_LOCAL || walk.end.leaves_by(ifindex);
                Some((*table == key.table || merged) && key.ifindex.is_none_or(by_device))
            }
            (End::RefusedByRule(_) | End::RefusedByRoute { .. } | End::NoRoute, LookupOutcome::Refused(_)) => {
                Some(true)
            }
            _ => Some(false),
        });
        let mut steps = steps::steps(case.fib, &policy, &walk, &flow);
        steps.retain(|step| !matches!(step.did, Did::NoMatch { .. } | Did::NotAsked | Did::JumpedOver));
        (steps, agrees)
    }

    /// Whose flow it is: what happened in a task's own context names it.
    fn sender(&self, view: &View<'_>) -> Sender {
        let firsts = || {
            self.acts
                .iter()
                .filter(|act| !is_of_the_kernels_own(act))
                .filter_map(|act| Some((act, act.first.as_ref()?)))
        };
        let is_outgoing = |act: &ActSeen| matches!(act.key.act, Act::Lookup { .. } | Act::Packet(_) | Act::Drop(_));
        let came_in = |(act, first): &(&ActSeen, &First)| {
            matches!(act.key.act, Act::Lookup { kind: LookupKind::Input, .. }) && first.iif > LOOPBACK_INDEX
        };
        if let Some((_, first)) = firsts().find(came_in) {
            return Sender::Forwarded { device: view.device(Some(self.netns), first.iif) };
        }
        let own = firsts().find(|(act, first)| is_outgoing(act) && first.context == Context::Process);
        if let Some((_, first)) = own {
            return Sender::Process(story::task(&first.task));
        }
        let softirq = firsts().any(|(act, first)| is_outgoing(act) && first.context == Context::Softirq);
        if softirq { Sender::Softirq } else { Sender::Unknown }
    }

    fn lookups(&self, view: &View<'_>) -> Vec<StoryLookup> {
        let lookup = |act: &ActSeen| {
            let key = act.lookup_key()?;
            let (outcome, errno) = story::result(key.outcome);
            Some(StoryLookup {
                table: key.table,
                device: key.ifindex.map(|index| view.device(key.netns, index)),
                outcome,
                errno,
                standing: view.lookup(&key),
                purpose: purpose(act, key.kind),
                count: act.tally.count,
            })
        };
        self.acts.iter().filter_map(lookup).collect()
    }

    fn egress(&self, case: &Case<'_>) -> Vec<StoryEgress> {
        let mut found: Vec<StoryEgress> = Vec::new();
        for act in &self.acts {
            let Act::Packet(ifindex) = act.key.act else { continue };
            let key = crate::core::observation::PacketKey {
                netns: self.netns,
                watch: self.watch,
                ifindex,
                marks: act.key.marks,
            };
            let device = case.view.device(Some(self.netns), ifindex);
            let own = case.view.is_own(self.netns);
            match found.iter_mut().find(|egress| egress.device == device) {
                Some(egress) => {
                    egress.packets += act.tally.count;
                    egress.bytes += act.tally.bytes;
                }
                None => found.push(StoryEgress {
                    device,
                    standing: case.view.packet(&key),
                    packets: act.tally.count,
                    bytes: act.tally.bytes,
                    encryption: own.then(|| case.encryption(ifindex)).flatten(),
                }),
            }
        }
        found
    }

    fn drops(&self, case: &Case<'_>) -> Vec<StoryDrop> {
        let name = |number: i32| {
            let known = case.reasons.iter().find(|(value, _)| *value == number);
            known.map_or_else(|| number.to_string(), |(_, name)| name.clone())
        };
        let drop = |act: &ActSeen| {
            let Act::Drop(place) = act.key.act else { return None };
            let reason = place.reason.map(name);
            if is_raw_sockets_leftover(self.flow.protocol, reason.as_deref()) {
                return None;
            }
            Some(StoryDrop {
                incoming: place.incoming,
                reason,
                function: (case.function)(place.location),
                device: place.ifindex.map(|index| case.view.device(Some(self.netns), index)),
                packets: act.tally.count,
            })
        };
        self.acts.iter().filter_map(drop).collect()
    }

    fn answers(&self, view: &View<'_>) -> Vec<StoryAnswer> {
        let answer = |act: &ActSeen| {
            let Act::Answer(ifindex) = act.key.act else { return None };
            Some(StoryAnswer {
                device: view.device(Some(self.netns), ifindex),
                packets: act.tally.count,
                bytes: act.tally.bytes,
            })
        };
        self.acts.iter().filter_map(answer).collect()
    }
}

/// Raw sockets, as root's ping has one, get a copy before the protocol itself looks for a socket (`raw_local_deliver`); for
/// the original of an echo reply there mostly is none (`ping_rcv`), and the kernel says so of every reply that arrived well.
fn is_raw_sockets_leftover(protocol: u8, reason: Option<&str>) -> bool {
    matches!(protocol, ICMP | ICMPV6) && reason == Some(NO_SOCKET)
}

/// What a lookup was for; by its fields where its first sight was lost.
fn purpose(act: &ActSeen, kind: LookupKind) -> Purpose {
    let by_fields = match kind {
        LookupKind::Output => Purpose::Output,
        LookupKind::Input => Purpose::Input,
        LookupKind::SourceValidation => Purpose::NotProvable,
    };
    act.first.as_ref().map_or(by_fields, |first| first.purpose)
}

/// A question of the kernel's own, or about somebody's routing: it decides about no packet of the flow.
fn is_of_the_kernels_own(act: &ActSeen) -> bool {
    let Act::Lookup { kind, .. } = act.key.act else { return false };
    kind == LookupKind::SourceValidation
        || matches!(purpose(act, kind), Purpose::SourceValidation | Purpose::RouteQuery)
}

/// What the flow came to. Packets prove more than lookups.
fn fate(report: &StoryReport) -> Fate {
    let leaves = |standing| report.egress.iter().any(|egress| egress.standing == standing);
    let answers: u64 = report.answers.iter().map(|answer| answer.packets).sum();
    // A kernel without reasons also tells of packets that it merely frees.
    let dropped = |incoming| {
        let told = report.drops.iter().filter(|drop| drop.incoming == incoming && drop.reason.is_some());
        told.map(|drop| drop.packets).sum::<u64>()
    };
    if leaves(Standing::Wrong) {
        return Fate::Misrouted;
    }
    if dropped(false) > 0 || (dropped(true) > 0 && dropped(true) >= answers) {
        return Fate::Dropped;
    }
    if report.egress.is_empty()
        && report.lookups.iter().any(|lookup| lookup.standing == Standing::Wrong && lookup.errno.is_some())
    {
        return Fate::Refused;
    }
    match (leaves(Standing::Right), answers) {
        (true, 0) => Fate::Unanswered,
        (true, _) => Fate::Right,
        (false, _) => Fate::NotJudged,
    }
}
