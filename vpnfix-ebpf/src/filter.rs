//! What is watched at all. Nearly all traffic of a host ends here, so the cheapest question comes first.

use aya_ebpf::maps::{Array, lpm_trie::Key};
use vpnfix_common::{BITMAP_WORDS, FlowAddresses, WATCH_NONE, bitmap6_bit};

use crate::maps::{BITMAP4, BITMAP6, VRFS, WATCHES4, WATCHES6};

/// May an IPv4 destination (network byte order, as it lies in memory) be watched?
#[inline(always)]
pub fn may_be_watched4(destination: u32) -> bool {
    let [first, second, ..] = destination.to_ne_bytes();
    is_set(&BITMAP4, u16::from_be_bytes([first, second]))
}

/// The same of an IPv6 destination's first four bytes.
#[inline(always)]
pub fn may_be_watched6(first: u32) -> bool {
    is_set(&BITMAP6, bitmap6_bit(first.to_ne_bytes()))
}

/// The index of the watched prefix that an IPv4 destination belongs to, if it may be watched.
#[inline(always)]
pub fn watch4(destination: u32) -> Option<u32> {
    tunnel(WATCHES4.get(Key::new(32, destination.to_ne_bytes())).copied())
}

/// The same for IPv6.
#[inline(always)]
pub fn watch6(destination: &[u8; 16]) -> Option<u32> {
    tunnel(WATCHES6.get(Key::new(128, *destination)).copied())
}

/// The index of the watched prefix that an IPv4 destination belongs to.
#[inline(always)]
pub fn watched4(destination: u32) -> Option<u32> {
    if may_be_watched4(destination) { watch4(destination) } else { None }
}

/// The same for IPv6.
#[inline(always)]
pub fn watched6(destination: &[u8; 16]) -> Option<u32> {
    let first = u32::from_ne_bytes([destination[0], destination[1], destination[2], destination[3]]);
    if may_be_watched6(first) { watch6(destination) } else { None }
}

/// The index of the watched prefix that a flow's destination belongs to.
#[inline(always)]
pub fn watched(flow: &FlowAddresses) -> Option<u32> {
    let to = &flow.destination;
    if flow.family == 4 { watched4(u32::from_ne_bytes([to[0], to[1], to[2], to[3]])) } else { watched6(to) }
}

/// Has the sender to a watched prefix chosen the device? Who is bound to the device of the prefix's own VRF has chosen a
/// table, and the rules decide.
#[inline(always)]
pub fn is_bound(watch: u32, device: u32) -> bool {
    device != 0 && VRFS.get_ptr(u64::from(watch) << 32 | u64::from(device)).is_none()
}

#[inline(always)]
fn is_set(bitmap: &Array<[u64; BITMAP_WORDS as usize]>, bit: u16) -> bool {
    let Some(words) = bitmap.get_ptr(0) else { return false };
    let bits = u32::from(bit);
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
