//! Which table lookups belong to one walk of the rules.
//!
//! The tracepoints tell each table that is tried, not the walk. All lookups of a walk share the flow's address, the
//! thread and the destination; a walk that starts anew begins with the same table as the one before. (The state is per
//! CPU. A walk that is preempted between two tables, or interrupted by a softirq's, is taken for two: its misses before
//! that are then counted with an unknown namespace.)

use vpnfix_common::{NETNS_UNKNOWN, Sighting, WAITING_MAX, Walk, flag};

use crate::{lookup, maps::bump};

/// `RT_TABLE_LOCAL`: the first rule looks it up, but where somebody has moved that rule.
const TABLE_LOCAL: u32 = 255;

/// Does `walk` go on with this lookup? What the flow asks for then lies in its sighting, and need not be read again.
///
/// # Safety
///
/// `walk` must point to a whole element of a walk map.
#[inline(always)]
pub unsafe fn goes_on(walk: *const Walk, flow: u64, thread: u32, destination: &[u32; 4], table: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (*walk).flow == flow
            && (*walk).thread == thread
            && is_to(&raw const (*walk).sighting, destination)
            && table != (*walk).first_table
            && table != TABLE_LOCAL
    }
}

/// Makes `walk` a new one, which this lookup begins. Misses that still wait in the ended one are counted with an unknown
/// namespace (`MISSES_WAIT`: IPv6 lookups know theirs, and never wait).
///
/// # Safety
///
/// As [`goes_on`].
#[inline(always)]
pub unsafe fn begin<const MISSES_WAIT: bool>(walk: *mut Walk, sighting: &Sighting, flow: u64, thread: u32, table: u32) {
    // SAFETY: the caller's promise.
    unsafe {
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

/// Writes a table's answer into the walk's sighting, with no nexthop yet. `flags` may hold [`flag::CUSTOM_RULES`].
///
/// # Safety
///
/// As [`goes_on`].
#[inline(always)]
pub unsafe fn answer(walk: *mut Walk, table: u32, outcome: i32, netns: u32, flags: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let sighting = &raw mut (*walk).sighting;
        (*sighting).key.table = table;
        (*sighting).key.outcome = outcome;
        (*sighting).key.netns = netns;
        (*sighting).key.flags = (*sighting).key.flags & !flag::CUSTOM_RULES | flags;
        (*sighting).key.ifindex = 0;
        (*sighting).gateway = [0; 16];
        (*sighting).gateway_family = 0;
    }
}

/// Branch by branch, byte by byte, this would multiply the states that the verifier has to follow.
///
/// # Safety
///
/// `sighting` must point to a whole one.
#[inline(always)]
unsafe fn is_to(sighting: *const Sighting, destination: &[u32; 4]) -> bool {
    // SAFETY: a destination is 16 plain bytes, 4-aligned as it lies 40 bytes into a `Sighting`.
    let of: [u32; 4] = unsafe { core::ptr::read((&raw const (*sighting).flow.destination).cast()) };
    (of[0] ^ destination[0]) | (of[1] ^ destination[1]) | (of[2] ^ destination[2]) | (of[3] ^ destination[3]) == 0
}

/// Lets a miss wait for the namespace of a hit. Says whether there was room.
///
/// # Safety
///
/// As [`goes_on`].
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

/// Counts the waiting misses in a namespace; `flags` as in [`answer`].
///
/// # Safety
///
/// As [`goes_on`].
#[inline(never)]
pub unsafe fn settle(walk: *mut Walk, netns: u32, flags: u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        // In place: older kernels allow 512 bytes of stack for all frames together.
        let sighting = &raw mut (*walk).sighting;
        answer(walk, 0, lookup::MISS, netns, flags);
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
/// As [`goes_on`].
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
/// As [`goes_on`].
#[inline(always)]
pub unsafe fn step(walk: *mut Walk) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let step = (*walk).hits & 0xff;
        (*walk).hits = step + 1;
        step
    }
}
