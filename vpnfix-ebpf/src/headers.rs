//! The headers of the first packets of each key, while user space asks for them: evidence that a reader of packets can check.
//! They go by a ring buffer of their own.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use vpnfix_common::{ABI_VERSION, EventHeader, HEADER_BYTES, HEADERS_PER_KEY, HeadersEvent, counter, event_kind};

use crate::{
    maps::{HEADERS, PACKETS, bump},
    offsets::TELL_HEADERS,
    transmit::Packet,
};

/// Are headers told?
#[inline(always)]
pub fn are_told() -> bool {
    TELL_HEADERS.load() != 0
}

/// Tells the headers of a packet that was counted just now, if it is one of the first of its key on this CPU. The bytes are
/// copied straight into the ring buffer: they would not fit on the stack. `data` is the address of the first, which is the
/// link's header, of `link_length` bytes; `linear` of them are the packet's.
#[inline(never)]
pub fn tell(packet: &Packet, data: u64, link_length: u32, linear: u32, now: u64) -> u32 {
    let key = packet.key();
    let Some(tally) = PACKETS.get_ptr_mut(key) else { return 0 };
    // SAFETY: nothing deletes an element, and this CPU alone writes its slot.
    if unsafe { (*tally).count } > HEADERS_PER_KEY {
        return 0;
    }
    let Some(mut entry) = HEADERS.reserve::<HeadersEvent>(0) else {
        bump(counter::HEADERS_LOST, 1);
        return 0;
    };
    let event: *mut HeadersEvent = {
        let place: &mut MaybeUninit<HeadersEvent> = &mut entry;
        place.as_mut_ptr()
    };
    // SAFETY: every field is written, in place. A bad address reads as an error, and what it leaves behind is not told.
    let error = unsafe {
        (&raw mut (*event).header).write(EventHeader {
            abi: ABI_VERSION,
            kind: event_kind::HEADERS,
            size: size_of::<HeadersEvent>() as u32,
            time_ns: now,
        });
        (&raw mut (*event).key).write(key);
        (&raw mut (*event).length).write(packet.length);
        (&raw mut (*event).link_length).write(link_length);
        (&raw mut (*event).linear).write(linear);
        (&raw mut (*event)._pad).write(0);
        bpf_probe_read_kernel((&raw mut (*event).bytes).cast(), HEADER_BYTES as u32, data as *const _)
    };
    if error != 0 {
        entry.discard(0);
        bump(counter::HEADERS_LOST, 1);
        return 0;
    }
    entry.submit(0);
    0
}
