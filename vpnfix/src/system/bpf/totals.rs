//! Reading the counts out of the kernel's maps.

use std::collections::HashMap;

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray, PerCpuHashMap},
};
use vpnfix_common::{
    DestinationKey, FlowKey, LookupKey as RawLookupKey, PacketKey as RawPacketKey, Tally as RawTally, Walk, counter,
};

use super::BpfError;
use crate::core::{
    decode,
    observation::{DecodeError, Losses, PassedOver, Tally, Totals},
};

/// All maps, the CPUs' shares added up.
pub(super) fn read(ebpf: &Ebpf) -> Result<Totals, BpfError> {
    let mut undecodable = 0;
    let mut decoded = |error: DecodeError| {
        tracing::debug!("undecodable key: {error}");
        undecodable += 1;
    };
    let mut lookups = HashMap::new();
    for (key, tally) in entries::<{ size_of::<RawLookupKey>() }>(ebpf, "LOOKUPS")? {
        match decode::lookup_key(&key) {
            Ok(key) => merge(lookups.entry(key).or_default(), &tally),
            Err(error) => decoded(error),
        }
    }
    // Read after the counted ones: a miss that is counted meanwhile is then missed this once, and not counted twice.
    for walk in walks(ebpf)? {
        match decode::waiting_misses(&walk) {
            Ok((keys, time)) => {
                let tally = Tally { count: 1, bytes: 0, first_ns: time, last_ns: time };
                keys.into_iter().for_each(|key| merge(lookups.entry(key).or_default(), &tally));
            }
            Err(error) => decoded(error),
        }
    }
    let mut packets = HashMap::new();
    for (key, tally) in entries::<{ size_of::<RawPacketKey>() }>(ebpf, "PACKETS")? {
        match decode::packet_key(&key) {
            Ok(key) => merge(packets.entry(key).or_default(), &tally),
            Err(error) => decoded(error),
        }
    }
    let mut destinations = Vec::new();
    for (key, tally) in entries::<{ size_of::<DestinationKey>() }>(ebpf, "DESTINATIONS")? {
        match decode::destination_key(&key) {
            Ok(mut total) => {
                total.tally = tally;
                destinations.push(total);
            }
            Err(error) => decoded(error),
        }
    }
    let mut flows = Vec::new();
    for (key, tally) in entries::<{ size_of::<FlowKey>() }>(ebpf, "FLOWS")? {
        match decode::flow_key(&key) {
            Ok(key) => flows.push((key, tally)),
            Err(error) => decoded(error),
        }
    }
    let mut totals = Totals {
        lookups: lookups.into_iter().collect(),
        packets: packets.into_iter().collect(),
        destinations,
        flows,
        losses: losses(ebpf)?,
        passed_over: passed_over(ebpf)?,
    };
    totals.losses.undecodable_records = undecodable;
    totals.lookups.sort_unstable_by_key(|(key, _)| *key);
    totals.packets.sort_unstable_by_key(|(key, _)| *key);
    totals.flows.sort_unstable_by_key(|(_, tally)| (tally.first_ns, tally.last_ns));
    totals.destinations.sort_unstable_by_key(|total| (total.netns, total.address, total.ifindex, total.packets));
    Ok(totals)
}

/// The IPv4 walk last seen on each CPU: its misses may wait for a hit that never comes.
fn walks(ebpf: &Ebpf) -> Result<Vec<Walk>, BpfError> {
    let map = map(ebpf, "WALK4")?;
    let map: PerCpuArray<&MapData, Walk> = PerCpuArray::try_from(map).map_err(BpfError::map("open", "WALK4"))?;
    let walks = map.get(&0, 0).map_err(BpfError::map("read", "WALK4"))?;
    Ok(walks.to_vec())
}

fn entries<const N: usize>(ebpf: &Ebpf, name: &'static str) -> Result<Vec<([u8; N], Tally)>, BpfError> {
    let map = map(ebpf, name)?;
    let map: PerCpuHashMap<&MapData, [u8; N], RawTally> =
        PerCpuHashMap::try_from(map).map_err(BpfError::map("open", name))?;
    let mut entries = Vec::new();
    for entry in map.iter() {
        let (key, shares) = entry.map_err(BpfError::map("read", name))?;
        let mut sum = Tally::default();
        for share in shares.iter().filter(|share| share.count != 0) {
            let RawTally { count, bytes, first_ns, last_ns } = *share;
            merge(&mut sum, &Tally { count, bytes, first_ns, last_ns });
        }
        // Another CPU has made the entry and not counted yet.
        if sum.count != 0 {
            entries.push((key, sum));
        }
    }
    Ok(entries)
}

fn merge(sum: &mut Tally, share: &Tally) {
    sum.first_ns = match (sum.first_ns, share.first_ns) {
        (0, first) | (first, 0) => first,
        (one, other) => one.min(other),
    };
    sum.last_ns = sum.last_ns.max(share.last_ns);
    sum.count += share.count;
    sum.bytes += share.bytes;
}

/// One of the counters of losses and skips, all CPUs together.
fn counter_of(ebpf: &Ebpf, index: u32) -> Result<u64, BpfError> {
    let map = map(ebpf, "COUNTERS")?;
    let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(map).map_err(BpfError::map("open", "COUNTERS"))?;
    Ok(map.get(&index, 0).map_err(BpfError::map("read", "COUNTERS"))?.iter().sum())
}

/// Headers that were lost on their way.
pub(super) fn headers_lost(ebpf: &Ebpf) -> Result<u64, BpfError> {
    counter_of(ebpf, counter::HEADERS_LOST)
}

fn passed_over(ebpf: &Ebpf) -> Result<PassedOver, BpfError> {
    Ok(PassedOver {
        other_netns: counter_of(ebpf, counter::OTHER_NETNS)?,
        own_queries: counter_of(ebpf, counter::OWN_QUERIES)?,
        // The programs' own statistics tell that, not a map.
        hook_runs_skipped: 0,
    })
}

fn losses(ebpf: &Ebpf) -> Result<Losses, BpfError> {
    let count = |index| counter_of(ebpf, index);
    Ok(Losses {
        events_lost: count(counter::RING_FULL)?,
        lookups_uncounted: count(counter::LOOKUPS_UNCOUNTED)?,
        packets_uncounted: count(counter::PACKETS_UNCOUNTED)?,
        destinations_uncounted: count(counter::DESTINATIONS_UNCOUNTED)?,
        outcomes_untracked: count(counter::OUTCOMES_UNTRACKED)?,
        flows_uncounted: count(counter::FLOWS_UNCOUNTED)?,
        unreadable_packets: count(counter::UNREADABLE_PACKETS)?,
        undecodable_records: 0,
    })
}

fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, BpfError> {
    ebpf.map(name).ok_or(BpfError::NoMap(name))
}
