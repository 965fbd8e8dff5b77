//! What is watched at all. Nearly all traffic of a host ends here, so the cheapest question comes first.

use aya_ebpf::maps::{Array, lpm_trie::Key};
use vpnfix_common::{BITMAP_WORDS, FlowAddresses, WATCH_NONE};

use crate::maps::{BITMAP4, BITMAP6, WATCHES4, WATCHES6};

/// The index of the watched prefix that an IPv4 destination (network byte order, as it lies in memory) belongs to.
#[inline(always)]
pub fn watched4(destination: u32) -> Option<u32> {
    let bytes = destination.to_ne_bytes();
    if !maybe_watched(&BITMAP4, bytes[0], bytes[1]) {
        return None;
    }
    tunnel(WATCHES4.get(Key::new(32, bytes)).copied())
}

/// The same for IPv6.
#[inline(always)]
pub fn watched6(destination: &[u8; 16]) -> Option<u32> {
    if !maybe_watched(&BITMAP6, destination[0], destination[1]) {
        return None;
    }
    tunnel(WATCHES6.get(Key::new(128, *destination)).copied())
}

/// The index of the watched prefix that a flow's destination belongs to.
#[inline(always)]
pub fn watched(flow: &FlowAddresses) -> Option<u32> {
    let to = &flow.destination;
    if flow.family == 4 { watched4(u32::from_ne_bytes([to[0], to[1], to[2], to[3]])) } else { watched6(to) }
}

#[inline(always)]
fn maybe_watched(bitmap: &Array<[u64; BITMAP_WORDS as usize]>, first: u8, second: u8) -> bool {
    let Some(words) = bitmap.get_ptr(0) else { return false };
    let bits = (u32::from(first) << 8) | u32::from(second);
    // Two bytes make no more than 1023 words, so LLVM would drop the mask; but 5.10's verifier forgets a byte's bounds
    // when it is spilled, and needs it.
    let word = core::hint::black_box(bits >> 6) & (BITMAP_WORDS - 1);
    // SAFETY: the index is masked to the array's length.
    let word = unsafe { *words.cast::<u64>().add(word as usize) };
    (word >> (bits & 63)) & 1 == 1
}

#[inline(always)]
fn tunnel(entry: Option<u32>) -> Option<u32> {
    match entry {
        Some(WATCH_NONE) | None => None,
        watch => watch,
    }
}
