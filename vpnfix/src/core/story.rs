//! From observations to the lines and the summary of a trace.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use super::finding::Confidence;
use super::live::{Standing, Verdict, Verdicts, View};
use super::observation::{
    FlowSeen, LookupKey, LookupOutcome, LookupSeen, Observation, PacketKey, PacketSeen, Task, TcpSeen, Totals,
};
use super::owner::{self, Clues};
use super::report::Outcome;
use super::report::trace::{
    Before, Counted, DestinationCount, EgressLine, FlowReport, LookupCount, LookupLine, LookupResult, PacketCount,
    PrefixVerdict, SCHEMA, Summary, TaskReport, TcpLine, TraceLine, VerdictLine,
};
use super::walk::{self, Fib, Flow, Match};

/// The distance from the kernel's monotonic clock to the wall clock, taken once so that all times of a trace agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallClock {
    /// Nanoseconds to add to `CLOCK_MONOTONIC` for the time since 1970.
    pub offset_ns: i64,
}

impl WallClock {
    /// Nanoseconds since 1970.
    #[must_use]
    pub fn unix_ns(self, monotonic_ns: u64) -> i128 {
        i128::from(self.offset_ns) + i128::from(monotonic_ns)
    }

    /// RFC 3339 in UTC with microseconds.
    #[must_use]
    pub fn tell(self, monotonic_ns: u64) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        OffsetDateTime::from_unix_timestamp_nanos(self.unix_ns(monotonic_ns))
            .ok()
            .and_then(|time| time.format(format).ok())
            .unwrap_or_else(|| format!("{monotonic_ns} ns after boot"))
    }
}

/// Tells observations as lines.
#[derive(Debug)]
pub struct Teller {
    clock: WallClock,
    verdicts: Verdicts,
}

impl Teller {
    /// For so many watched prefixes.
    #[must_use]
    pub fn new(clock: WallClock, watches: usize) -> Self {
        Self { clock, verdicts: Verdicts::new(watches) }
    }

    /// Makes room for prefixes that are watched later.
    pub fn extend_to(&mut self, watches: usize) {
        self.verdicts.extend_to(watches);
    }

    /// The lines that one observation makes: itself, and the verdict if it changed.
    pub fn tell(&mut self, view: &View<'_>, clues: &Clues, observation: &Observation) -> Vec<TraceLine> {
        match observation {
            Observation::Lookup(seen) => self.lookup(view, clues, seen),
            Observation::Packet(seen) => self.packet(view, seen),
            Observation::Tcp(seen) => vec![TraceLine::Tcp(self.tcp(view, seen))],
            // The story of its flow is told by `flows`, when it has something to tell.
            Observation::Flow(_) => Vec::new(),
        }
    }

    fn lookup(&mut self, view: &View<'_>, clues: &Clues, seen: &LookupSeen) -> Vec<TraceLine> {
        let Some(watch) = view.watches.get(seen.key.watch as usize) else { return Vec::new() };
        let standing = view.lookup(&seen.key);
        let device = |index: Option<u32>| index.map(|index| view.device(seen.key.netns, index));
        let time = self.clock.tell(seen.time_ns);
        let (outcome, errno) = result(seen.key.outcome);
        let line = LookupLine {
            time: time.clone(),
            occasion: seen.occasion,
            flow: flow(&seen.flow),
            prefix: watch.prefix,
            table: seen.key.table,
            device: device(seen.key.ifindex),
            gateway: seen.gateway,
            outcome,
            errno,
            is_final: view.is_final(&seen.key),
            standing,
            hook: seen.key.hook,
            kind: seen.key.kind,
            netns: seen.key.netns,
            netns_name: view.namespace(seen.key.netns),
            bgp: seen.key.marks.bgp,
            bound: seen.key.marks.bound,
            probe: seen.key.marks.probe,
            iif: view.device(seen.key.netns, seen.iif),
            mark: seen.mark,
            uid: seen.uid,
            before: seen.previous.map(|before| Before { table: before.table, device: device(before.ifindex) }),
            task: task(&seen.task),
        };
        let mut lines = vec![TraceLine::Lookup(line)];
        if let Some(verdict) = self.verdicts.lookup(seen.key.watch, standing) {
            let refused = matches!(seen.key.outcome, LookupOutcome::Refused(_));
            let fib = Fib::new(view.snapshot);
            let (rule, owner) = rule_of(&fib, clues, &flow_asked(seen), seen.key.table, refused);
            lines.push(TraceLine::Verdict(VerdictLine {
                time,
                prefix: watch.prefix,
                tunnels: names(view, &watch.tunnels),
                verdict,
                device: device(seen.key.ifindex),
                table: Some(seen.key.table),
                rule,
                owner,
            }));
        }
        lines
    }

    fn packet(&mut self, view: &View<'_>, seen: &PacketSeen) -> Vec<TraceLine> {
        let Some(watch) = view.watches.get(seen.key.watch as usize) else { return Vec::new() };
        let standing = view.packet(&seen.key);
        let device = view.device(Some(seen.key.netns), seen.key.ifindex);
        let time = self.clock.tell(seen.time_ns);
        let mut lines = vec![TraceLine::Egress(EgressLine {
            time: time.clone(),
            occasion: seen.occasion,
            flow: flow(&seen.flow),
            prefix: watch.prefix,
            device: device.clone(),
            standing,
            bytes: seen.length,
            netns: seen.key.netns,
            netns_name: view.namespace(Some(seen.key.netns)),
            bgp: seen.key.marks.bgp,
            bound: seen.key.marks.bound,
            probe: seen.key.marks.probe,
            before: seen.previous_ifindex.map(|index| view.device(Some(seen.key.netns), index)),
            task: task(&seen.task),
        })];
        if let Some(verdict) = self.verdicts.packet(seen.key.watch, standing) {
            lines.push(TraceLine::Verdict(VerdictLine {
                time,
                prefix: watch.prefix,
                tunnels: names(view, &watch.tunnels),
                verdict,
                device: Some(device),
                table: None,
                rule: None,
                owner: None,
            }));
        }
        lines
    }

    fn tcp(&self, view: &View<'_>, seen: &TcpSeen) -> TcpLine {
        TcpLine {
            time: self.clock.tell(seen.time_ns),
            flow: flow(&seen.flow),
            old: seen.old,
            new: seen.new,
            netns: seen.netns,
            netns_name: view.namespace(Some(seen.netns)),
            task: task(&seen.task),
        }
    }

    /// The counts at the end of a trace of so many seconds.
    #[must_use]
    pub fn summary(&self, view: &View<'_>, totals: &Totals, now_ns: u64, seconds: f64) -> Summary {
        let verdicts = prefix_verdicts(view, totals, &self.verdicts);
        let misrouted = verdicts.iter().any(|verdict| verdict.verdict == Verdict::Misrouted);
        Summary {
            schema: SCHEMA.into(),
            time: self.clock.tell(now_ns),
            outcome: if misrouted { Outcome::FaultFound } else { Outcome::Ok },
            seconds,
            lookups: self.lookup_counts(view, totals),
            packets: self.packet_counts(view, totals),
            destinations: destination_counts(view, totals),
            verdicts,
            stories: Vec::new(),
            stories_untold: 0,
            command: None,
            lost: totals.losses,
            passed_over: totals.passed_over,
        }
    }

    fn lookup_counts(&self, view: &View<'_>, totals: &Totals) -> Vec<LookupCount> {
        let count = |(key, tally): &(LookupKey, super::observation::Tally)| {
            let watch = view.watches.get(key.watch as usize)?;
            let (outcome, errno) = result(key.outcome);
            Some(LookupCount {
                prefix: watch.prefix,
                table: key.table,
                device: key.ifindex.map(|index| view.device(key.netns, index)),
                outcome,
                errno,
                kind: key.kind,
                hook: key.hook,
                is_final: view.is_final(key),
                standing: view.lookup(key),
                netns: key.netns,
                bgp: key.marks.bgp,
                bound: key.marks.bound,
                probe: key.marks.probe,
                count: tally.count,
                first: self.clock.tell(tally.first_ns),
                last: self.clock.tell(tally.last_ns),
            })
        };
        let mut counts: Vec<LookupCount> = totals.lookups.iter().filter_map(count).collect();
        counts.sort_by(|a, b| (a.prefix, &a.first).cmp(&(b.prefix, &b.first)));
        counts
    }

    fn packet_counts(&self, view: &View<'_>, totals: &Totals) -> Vec<PacketCount> {
        let count = |(key, tally): &(PacketKey, super::observation::Tally)| {
            let watch = view.watches.get(key.watch as usize)?;
            Some(PacketCount {
                prefix: watch.prefix,
                device: view.device(Some(key.netns), key.ifindex),
                netns: key.netns,
                right: (!watch.tunnels.is_empty()).then(|| watch.tunnels.contains(&key.ifindex)),
                standing: view.packet(key),
                bgp: key.marks.bgp,
                bound: key.marks.bound,
                probe: key.marks.probe,
                count: tally.count,
                bytes: tally.bytes,
                first: self.clock.tell(tally.first_ns),
                last: self.clock.tell(tally.last_ns),
            })
        };
        let mut counts: Vec<PacketCount> = totals.packets.iter().filter_map(count).collect();
        counts.sort_by(|a, b| (a.prefix, &a.first).cmp(&(b.prefix, &b.first)));
        counts
    }
}

fn destination_counts(view: &View<'_>, totals: &Totals) -> Vec<DestinationCount> {
    let mut counts: Vec<DestinationCount> = totals
        .destinations
        .iter()
        .map(|total| DestinationCount {
            destination: total.address,
            device: (total.ifindex != 0).then(|| view.device(Some(total.netns), total.ifindex)),
            what: if total.packets { Counted::Packets } else { Counted::Lookups },
            count: total.tally.count,
        })
        .collect();
    counts.sort_by(|a, b| b.count.cmp(&a.count).then(a.destination.cmp(&b.destination)));
    counts
}

/// The worst that was counted on each judged prefix.
fn prefix_verdicts(view: &View<'_>, totals: &Totals, told: &Verdicts) -> Vec<PrefixVerdict> {
    let judge = |(index, watch): (usize, &super::live::Watch)| {
        let of_watch = |other: u32| usize::try_from(other).is_ok_and(|other| other == index);
        let lookups = totals.lookups.iter().filter(|(key, _)| of_watch(key.watch));
        let packets = totals.packets.iter().filter(|(key, _)| of_watch(key.watch));
        let (mut seen, mut wrong_lookups, mut wrong) = (false, 0, super::observation::Tally::default());
        let mut devices = Vec::new();
        for (key, tally) in lookups {
            let standing = view.lookup(key);
            seen |= matches!(standing, Standing::Right | Standing::Wrong);
            if standing == Standing::Wrong {
                wrong_lookups += tally.count;
                devices.extend(key.ifindex);
            }
        }
        for (key, tally) in packets {
            let standing = view.packet(key);
            seen |= matches!(standing, Standing::Right | Standing::Wrong);
            if standing == Standing::Wrong {
                wrong.count += tally.count;
                wrong.bytes += tally.bytes;
                devices.push(key.ifindex);
            }
        }
        devices.sort_unstable();
        devices.dedup();
        let counted = match (wrong.count, wrong_lookups) {
            (1.., _) => Some(Verdict::Misrouted),
            (0, 1..) => Some(Verdict::Suspected),
            (0, 0) => seen.then_some(Verdict::Right),
        };
        // What was told of a prefix that has since been withdrawn still holds.
        let verdict = counted.max(u32::try_from(index).ok().and_then(|index| told.worst(index)))?;
        Some(PrefixVerdict {
            prefix: watch.prefix,
            tunnels: names(view, &watch.tunnels),
            verdict,
            misrouted_packets: wrong.count,
            misrouted_bytes: wrong.bytes,
            wrong_lookups,
            wrong_devices: names(view, &devices),
        })
    };
    view.watches.iter().enumerate().filter_map(judge).collect()
}

pub(super) fn names(view: &View<'_>, indices: &[u32]) -> Vec<String> {
    indices.iter().map(|index| view.snapshot.device_name(*index)).collect()
}

pub(super) fn result(outcome: LookupOutcome) -> (LookupResult, Option<i32>) {
    match outcome {
        LookupOutcome::Hit => (LookupResult::Hit, None),
        LookupOutcome::Miss => (LookupResult::Miss, None),
        LookupOutcome::Refused(errno) => (LookupResult::Refused, Some(errno)),
    }
}

pub(super) fn flow(seen: &FlowSeen) -> FlowReport {
    FlowReport {
        source: seen.source,
        destination: seen.destination,
        protocol: seen.protocol,
        source_port: seen.source_port,
        destination_port: seen.destination_port,
    }
}

pub(super) fn task(task: &Task) -> TaskReport {
    TaskReport { pid: task.process, name: task.comm.clone() }
}

/// The flow that a lookup asked about, as the engine takes it.
pub(super) fn flow_asked(seen: &LookupSeen) -> Flow {
    Flow {
        from: seen.flow.source,
        iif: seen.iif,
        oif: seen.oif,
        mark: seen.mark,
        uid: seen.uid,
        protocol: seen.flow.protocol,
        source_port: seen.flow.source_port,
        destination_port: seen.flow.destination_port,
        ..Flow::plain(seen.flow.destination)
    }
}

/// The rule that must have led a lookup to its table, and who put it there. The engine's walk is preferred; where it
/// ends in another table, the first rule to that table that may match stands for it.
pub(super) fn rule_of(
    fib: &Fib<'_>,
    clues: &Clues,
    flow: &Flow,
    table: u32,
    refused: bool,
) -> (Option<String>, Option<String>) {
    let end = walk::walk(fib, &fib.policy(flow.family()), flow);
    let rule = match end.rule() {
        Some(rule) if refused || rule.table() == Some(table) => Some(rule),
        _ => fib
            .snapshot()
            .rules_of(flow.family())
            .find(|rule| rule.table() == Some(table) && !matches!(walk::matches(fib, rule, flow), Match::No(_))),
    };
    let owner = owner::owner(fib.snapshot(), clues, rule);
    (rule.map(ToString::to_string), (owner.confidence > Confidence::Unknown).then_some(owner.name))
}
