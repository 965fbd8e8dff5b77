//! The maps, and how something is counted in them.
//!
//! All are plain and preallocated but the tries, which only user space fills: nothing is evicted in silence, and what
//! does not fit increments a counter.
//!
//! Sums are per CPU and plain. A softirq cannot come between reading and writing one: from 5.12 to 6.0 on (by hook) the
//! kernel skips a program that interrupts itself, and user space reads how often from the program's `fdinfo`. (The BPF
//! target of Rust has no atomic addition to rely on in 5.10 instead; there a count may be short by one for each time
//! that a softirq's lookup of the same key hits that window of two instructions.)

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf},
};
use vpnfix_common::{
    BITMAP_WORDS, DESTINATIONS_MAX, DestinationKey, FLOWS_MAX, FlowKey, HEADERS_RING_BYTES, LAST_OUTCOMES_MAX,
    LOOKUP_KEYS_MAX, LastOutcome, LookupKey, OutcomeKey, PACKET_KEYS_MAX, PacketKey, RING_BYTES, Tally, WATCHES_MAX,
    Walk, counter,
};

/// `EEXIST`, negative as helpers return it.
const EEXIST: i32 = -17;

/// Bitmap over the first 16 bits of an IPv4 destination: may anything there be watched?
#[map]
pub static BITMAP4: Array<[u64; BITMAP_WORDS as usize]> = Array::with_max_entries(1, 0);
/// The same for IPv6.
#[map]
pub static BITMAP6: Array<[u64; BITMAP_WORDS as usize]> = Array::with_max_entries(1, 0);
/// Watched IPv4 prefixes and holes in them.
#[map]
pub static WATCHES4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(WATCHES_MAX, 0);
/// Watched IPv6 prefixes and holes in them.
#[map]
pub static WATCHES6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(WATCHES_MAX, 0);
/// The VRFs that a watched prefix belongs to: its index above, that of the VRF's device below. Not preallocated, since most
/// hosts have none.
#[map]
pub static VRFS: HashMap<u64, u8> = HashMap::with_max_entries(WATCHES_MAX, BPF_F_NO_PREALLOC);
/// Element 0 is 1 while `fexit` of `__fib_lookup` is attached, and so is the one to count IPv4 destinations where there
/// are custom rules.
#[map]
pub static OUTCOMES_KNOWN: Array<u32> = Array::with_max_entries(1, 0);
/// Lookups by key.
#[map]
pub static LOOKUPS: PerCpuHashMap<LookupKey, Tally> = PerCpuHashMap::with_max_entries(LOOKUP_KEYS_MAX, 0);
/// Packets by key.
#[map]
pub static PACKETS: PerCpuHashMap<PacketKey, Tally> = PerCpuHashMap::with_max_entries(PACKET_KEYS_MAX, 0);
/// Lookups and packets by destination.
#[map]
pub static DESTINATIONS: PerCpuHashMap<DestinationKey, Tally> = PerCpuHashMap::with_max_entries(DESTINATIONS_MAX, 0);
/// What happened to single flows.
#[map]
pub static FLOWS: PerCpuHashMap<FlowKey, Tally> = PerCpuHashMap::with_max_entries(FLOWS_MAX, 0);
/// Last outcomes.
#[map]
pub static LAST_OUTCOMES: HashMap<OutcomeKey, LastOutcome> = HashMap::with_max_entries(LAST_OUTCOMES_MAX, 0);
/// The IPv4 walk last seen on each CPU.
#[map]
pub static WALK4: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);
/// The IPv6 walk last seen on each CPU.
#[map]
pub static WALK6: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);
/// What was lost or left out, by the indices of [`counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
/// Events for user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
/// Headers of packets for user space, apart from the events: a burst of them shall push none of those out. User space makes
/// it as small as it can be while they are not asked for.
#[map]
pub static HEADERS: RingBuf = RingBuf::with_byte_size(HEADERS_RING_BYTES, 0);

/// Adds to a counter of losses.
#[inline(always)]
pub fn bump(index: u32, by: u64) {
    if let Some(count) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the element lives as long as the program, and is this CPU's.
        unsafe { *count += by };
    }
}

/// Counts one under `key`. Says whether the key is new, or nothing if there was no room for it.
#[inline(always)]
pub fn tally<K>(map: &PerCpuHashMap<K, Tally>, key: &K, bytes: u64, now: u64) -> Option<bool> {
    let mut new = false;
    let slot = match map.get_ptr_mut(key) {
        Some(slot) => slot,
        None => {
            let zero = Tally { count: 0, bytes: 0, first_ns: 0, last_ns: 0 };
            match map.insert(key, zero, u64::from(BPF_NOEXIST)) {
                Ok(()) => new = true,
                // Another CPU was first: its element serves, and the key is not new.
                Err(EEXIST) => {}
                Err(_) => return None,
            }
            map.get_ptr_mut(key)?
        }
    };
    // SAFETY: nothing deletes an element, and only this CPU writes its slot.
    unsafe {
        if (*slot).first_ns == 0 {
            (*slot).first_ns = now;
        }
        (*slot).last_ns = now;
        (*slot).count += 1;
        (*slot).bytes += bytes;
    }
    Some(new)
}
