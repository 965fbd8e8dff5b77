//! Counting lookups and telling user space of them, whichever hook saw them.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_log_ebpf::debug;
use vpnfix_common::{
    ABI_VERSION, CHANGE_INTERVAL_NS, DestinationKey, EventHeader, LastOutcome, LookupEvent, Outcome, OutcomeKey,
    Sighting, TaskContext, counter, event_kind, flag, hook, lookup_kind, occasion,
};

use crate::{
    maps::{DESTINATIONS, EVENTS, LAST_OUTCOMES, LOOKUPS, OUTCOMES_KNOWN, bump, tally},
    offsets::BY_DESTINATION,
    task,
};

/// `EAGAIN`, negative: no route in this table, the walk goes on.
pub const MISS: i32 = -11;

const EEXIST: i32 = -17;

/// What became of an outcome when it was compared with the last one.
pub enum Comparison {
    /// As before, or told of only just now.
    Same,
    /// There was none before, or none could be kept.
    First,
    /// Another one before.
    Changed(Outcome),
}

/// Counts a lookup and sends an event if its key is new or its outcome another than the last.
///
/// `step` is the number of hits that the same walk had before.
#[inline(never)]
pub fn record(sighting: &Sighting, step: u32, now: u64) -> u32 {
    let key = &sighting.key;
    let new = tally(&LOOKUPS, key, 0, now).unwrap_or_else(|| {
        bump(counter::LOOKUPS_UNCOUNTED, 1);
        false
    });
    if key.outcome == 0 && tells_destination(sighting) {
        count_destination(sighting, now);
    }
    // A table without a route is no outcome: the walk goes on.
    let comparison = if key.outcome == MISS && key.hook != hook::FIB_RULES {
        Comparison::First
    } else {
        compare(
            &OutcomeKey {
                netns: key.netns,
                watch: key.watch,
                event: event_kind::LOOKUP,
                hook: key.hook,
                kind: key.kind,
                flags: key.flags & (flag::BGP | flag::BOUND),
                step: step as u8,
                _pad: [0; 2],
            },
            Outcome { table: key.table, ifindex: key.ifindex, outcome: key.outcome },
            now,
        )
    };
    match comparison {
        Comparison::Changed(previous) => send(sighting, occasion::CHANGE, &previous, now),
        _ if new => send(sighting, occasion::FIRST_SIGHT, &Outcome { table: 0, ifindex: 0, outcome: 0 }, now),
        _ => {}
    }
    0
}

/// Each lookup counts its destination once, by the hook that knows the outcome.
#[inline(always)]
fn tells_destination(sighting: &Sighting) -> bool {
    let key = &sighting.key;
    if BY_DESTINATION.load() == 0 || key.kind == lookup_kind::SOURCE_VALIDATION {
        // What source validation looks up is a packet's source.
        return false;
    }
    if key.hook != hook::FIB_TABLE || key.flags & flag::CUSTOM_RULES == 0 {
        return true;
    }
    OUTCOMES_KNOWN.get(0).is_none_or(|known| *known == 0)
}

#[inline(always)]
fn count_destination(sighting: &Sighting, now: u64) {
    let key = DestinationKey {
        address: sighting.flow.destination,
        netns: sighting.key.netns,
        ifindex: sighting.key.ifindex,
        kind: event_kind::LOOKUP,
        family: sighting.flow.family,
        flags: sighting.key.flags & (flag::BGP | flag::BOUND | flag::PROBE),
    };
    if tally(&DESTINATIONS, &key, 0, now).is_none() {
        bump(counter::DESTINATIONS_UNCOUNTED, 1);
    }
}

/// Compares an outcome with the last one that user space was told, and keeps it if it is to be told.
#[inline(always)]
pub fn compare(key: &OutcomeKey, outcome: Outcome, now: u64) -> Comparison {
    let Some(last) = LAST_OUTCOMES.get_ptr_mut(key) else {
        let first = LastOutcome { told_ns: 0, outcome, _pad: 0 };
        if let Err(error) = LAST_OUTCOMES.insert(key, first, u64::from(BPF_NOEXIST))
            && error != EEXIST
        {
            bump(counter::OUTCOMES_UNTRACKED, 1);
        }
        return Comparison::First;
    };
    // SAFETY: nothing deletes an element. Another CPU may write it meanwhile; then one of the two tells the change.
    unsafe {
        let previous = (*last).outcome;
        if previous.table == outcome.table && previous.ifindex == outcome.ifindex && previous.outcome == outcome.outcome
            || now.wrapping_sub((*last).told_ns) < CHANGE_INTERVAL_NS
        {
            return Comparison::Same;
        }
        (*last).told_ns = now;
        (*last).outcome = outcome;
        Comparison::Changed(previous)
    }
}

#[inline(always)]
fn send(sighting: &Sighting, occasion: u8, previous: &Outcome, now: u64) {
    let (id, comm) = task::current();
    if let Some(mut entry) = EVENTS.reserve::<LookupEvent>(0) {
        let event: &mut MaybeUninit<LookupEvent> = &mut entry;
        event.write(LookupEvent {
            header: EventHeader {
                abi: ABI_VERSION,
                kind: event_kind::LOOKUP,
                size: size_of::<LookupEvent>() as u32,
                time_ns: now,
            },
            key: sighting.key,
            flow: sighting.flow,
            iif: sighting.iif,
            oif: sighting.oif,
            mark: sighting.mark,
            uid: sighting.uid,
            gateway: sighting.gateway,
            gateway_family: sighting.gateway_family,
            occasion,
            tos: sighting.tos,
            _pad: 0,
            previous: *previous,
            task: TaskContext { process: (id >> 32) as u32, thread: id as u32, comm },
        });
        entry.submit(0);
    } else {
        bump(counter::RING_FULL, 1);
    }
    log(sighting);
}

/// Apart, so that what a debug line needs of the stack does not add to that of the programs.
#[inline(never)]
fn log(sighting: &Sighting) -> u32 {
    let key = &sighting.key;
    debug!(
        (),
        "lookup: netns {} watch {} table {} ifindex {} outcome {} hook {}",
        key.netns,
        key.watch,
        key.table,
        key.ifindex,
        key.outcome,
        key.hook
    );
    0
}
