//! Which table lookups belong to one walk of the rules.
//!
//! The tracepoints tell each table that is tried, not the walk. All lookups of a walk share the flow's address, the
//! thread and the destination; a walk that starts anew begins with the same table as the one before. (The state is per
//! CPU. A walk that is preempted between two tables, or interrupted by a softirq's, is taken for two: its misses before
//! that are then counted with an unknown namespace.)

use vpnfix_common::{FlowAddresses, NETNS_UNKNOWN, Sighting, WAITING_MAX, Walk};

use crate::{lookup, maps::bump};

/// `RT_TABLE_LOCAL`: the first rule looks it up, but where somebody has moved that rule.
const TABLE_LOCAL: u32 = 255;

/// Makes `walk` the one that `sighting` belongs to: the same if it goes on, else a new one. Misses that still wait in
/// an ended walk are counted with an unknown namespace (`MISSES_WAIT`: IPv6 lookups know theirs, and never wait).
///
/// # Safety
///
/// `walk` must point to a whole element of a walk map.
#[inline(always)]
pub unsafe fn enter<const MISSES_WAIT: bool>(walk: *mut Walk, sighting: &Sighting, flow: u64, thread: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let table = sighting.key.table;
        let goes_on = (*walk).flow == flow
            && (*walk).thread == thread
            && (*walk).sighting.key.watch == sighting.key.watch
            && same_address(&(*walk).sighting.flow, &sighting.flow)
            && table != (*walk).first_table
            && table != TABLE_LOCAL;
        if goes_on {
            return;
        }
        if MISSES_WAIT && (*walk).waiting != 0 {
            settle(walk, NETNS_UNKNOWN, 0);
        }
        (*walk).flow = flow;
        (*walk).thread = thread;
        (*walk).first_table = table;
        (*walk).hits = 0;
        (*walk).waiting = 0;
        (*walk).sighting = *sighting;
    }
}

/// Branch by branch, byte by byte, this would multiply the states that the verifier has to follow.
#[inline(always)]
fn same_address(one: &FlowAddresses, other: &FlowAddresses) -> bool {
    // SAFETY: a destination is 16 plain bytes, 4-aligned as it lies 40 bytes into a `Sighting`.
    let (one, other): ([u32; 4], [u32; 4]) = unsafe {
        (core::ptr::read((&raw const one.destination).cast()), core::ptr::read((&raw const other.destination).cast()))
    };
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
}

/// Lets a miss wait for the namespace of a hit. Says whether there was room.
///
/// # Safety
///
/// As [`enter`].
#[inline(always)]
pub unsafe fn wait(walk: *mut Walk, table: u32, now: u64) -> bool {
    // SAFETY: the caller's promise; the index is checked.
    unsafe {
        let waiting = (*walk).waiting as usize;
        if waiting >= WAITING_MAX {
            return false;
        }
        core::ptr::write_volatile((&raw mut (*walk).tables).cast::<u32>().add(waiting), table);
        (*walk).missed_ns = now;
        (*walk).waiting = waiting as u32 + 1;
    }
    true
}

/// Counts the waiting misses in a namespace, with additional flags.
///
/// # Safety
///
/// As [`enter`].
#[inline(never)]
pub unsafe fn settle(walk: *mut Walk, netns: u32, flags: u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        // In place: older kernels allow 512 bytes of stack for all frames together.
        let sighting = &raw mut (*walk).sighting;
        (*sighting).key.netns = netns;
        (*sighting).key.flags |= flags;
        (*sighting).key.ifindex = 0;
        (*sighting).key.outcome = lookup::MISS;
        let waiting = (*walk).waiting;
        let now = (*walk).missed_ns;
        let mut index = 0;
        while index < WAITING_MAX {
            if index as u32 >= waiting {
                break;
            }
            (*sighting).key.table = core::ptr::read_volatile((&raw const (*walk).tables).cast::<u32>().add(index));
            lookup::record(&*sighting, 0, now);
            index += 1;
        }
        (*walk).waiting = 0;
    }
    0
}

/// Forgets the waiting misses, adding them to a counter.
///
/// # Safety
///
/// As [`enter`].
#[inline(always)]
pub unsafe fn leave_out(walk: *mut Walk, counter: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        bump(counter, u64::from((*walk).waiting));
        (*walk).waiting = 0;
    }
}

/// The number of hits before this one, which it counts.
///
/// # Safety
///
/// As [`enter`].
#[inline(always)]
pub unsafe fn step(walk: *mut Walk) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let step = (*walk).hits & 0xff;
        (*walk).hits = step + 1;
        step
    }
}
