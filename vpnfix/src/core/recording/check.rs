//! Whether counts from a file can be a kernel's: sums of them must not overflow, nor lists outgrow its maps.

use vpnfix_common::{DESTINATIONS_MAX, FLOWS_MAX, LOOKUP_KEYS_MAX, PACKET_KEYS_MAX, WAITING_MAX};

use crate::core::observation::{FlowKey, Losses, PassedOver, Tally, Totals};

/// More packets or bytes than this no trace counts: a hundred gigabits a second for six hours.
const COUNT_MAX: u64 = 1 << 48;
/// More CPUs than Linux takes (`NR_CPUS` of x86_64): each may hold back some misses beside the map of lookups.
const CPUS_MAX: usize = 8192;

pub(super) fn flows(flows: &[(FlowKey, Tally)]) -> Result<(), String> {
    fits("flows", flows.len(), FLOWS_MAX as usize)?;
    flows.iter().try_for_each(|(_, counted)| tally(counted))
}

pub(super) fn totals(totals: &Totals) -> Result<(), String> {
    fits("lookups", totals.lookups.len(), LOOKUP_KEYS_MAX as usize + CPUS_MAX * WAITING_MAX)?;
    fits("packets", totals.packets.len(), PACKET_KEYS_MAX as usize)?;
    fits("destinations", totals.destinations.len(), DESTINATIONS_MAX as usize)?;
    totals.lookups.iter().try_for_each(|(_, counted)| tally(counted))?;
    totals.packets.iter().try_for_each(|(_, counted)| tally(counted))?;
    totals.destinations.iter().try_for_each(|total| tally(&total.tally))?;
    flows(&totals.flows)?;
    let Losses {
        events_lost,
        lookups_uncounted,
        packets_uncounted,
        destinations_uncounted,
        outcomes_untracked,
        flows_uncounted,
        unreadable_packets,
        undecodable_records,
    } = totals.losses;
    let PassedOver { other_netns, own_queries, hook_runs_skipped } = totals.passed_over;
    let lost = [events_lost, lookups_uncounted, packets_uncounted, destinations_uncounted, outcomes_untracked];
    let more = [flows_uncounted, unreadable_packets, undecodable_records, other_netns, own_queries, hook_runs_skipped];
    lost.into_iter().chain(more).try_for_each(number)
}

fn tally(tally: &Tally) -> Result<(), String> {
    number(tally.count).and_then(|()| number(tally.bytes))
}

fn number(count: u64) -> Result<(), String> {
    if count < COUNT_MAX { Ok(()) } else { Err(format!("a count of {count}")) }
}

fn fits(what: &str, got: usize, most: usize) -> Result<(), String> {
    if got <= most { Ok(()) } else { Err(format!("{got} {what}, where a kernel counts {most} at most")) }
}
