//! What happens to single flows, while user space asks for it: counted by flow, and told at first sight with the call
//! stack, by which user space tells in whose context it happened and what a lookup was for.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_get_stack;
use vpnfix_common::{
    ABI_VERSION, EventHeader, FlowEvent, FlowKey, STACK_FRAMES, Sighting, TaskContext, act, counter, event_kind,
};

use crate::{
    maps::{EVENTS, FLOWS, bump, tally},
    offsets::BY_FLOW,
    task,
};

/// Is anything told flow by flow?
#[inline(always)]
pub fn are_told() -> bool {
    BY_FLOW.load() != 0
}

/// Notes a lookup.
#[inline(never)]
pub fn looked_up(ctx: *mut c_void, sighting: &Sighting, now: u64) -> u32 {
    let key = FlowKey {
        flow: sighting.flow,
        location: 0,
        netns: sighting.key.netns,
        watch: sighting.key.watch,
        ifindex: sighting.key.ifindex,
        table: sighting.key.table,
        detail: sighting.key.outcome,
        act: act::LOOKUP,
        hook: sighting.key.hook,
        kind: sighting.key.kind,
        flags: sighting.key.flags,
    };
    if is_new(&key, 0, now) {
        tell(ctx, &key, [sighting.iif, sighting.oif, sighting.mark, sighting.uid], 0, now);
    }
    0
}

/// Notes what happened to a packet, or to a socket.
#[inline(never)]
pub fn happened(ctx: *mut c_void, key: &FlowKey, length: u32, now: u64) -> u32 {
    if is_new(key, u64::from(length), now) {
        tell(ctx, key, [0; 4], length, now);
    }
    0
}

#[inline(always)]
fn is_new(key: &FlowKey, bytes: u64, now: u64) -> bool {
    tally(&FLOWS, key, bytes, now).unwrap_or_else(|| {
        bump(counter::FLOWS_UNCOUNTED, 1);
        false
    })
}

#[inline(always)]
fn tell(ctx: *mut c_void, key: &FlowKey, asked: [u32; 4], length: u32, now: u64) {
    let (id, comm) = task::current();
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        bump(counter::RING_FULL, 1);
        return;
    };
    let place: &mut MaybeUninit<FlowEvent> = &mut entry;
    let event = place.as_mut_ptr();
    // SAFETY: every field is written, in place: the whole would not fit on the stack.
    unsafe {
        (&raw mut (*event).header).write(EventHeader {
            abi: ABI_VERSION,
            kind: event_kind::FLOW,
            size: size_of::<FlowEvent>() as u32,
            time_ns: now,
        });
        (&raw mut (*event).key).write(*key);
        (&raw mut (*event).iif).write(asked[0]);
        (&raw mut (*event).oif).write(asked[1]);
        (&raw mut (*event).mark).write(asked[2]);
        (&raw mut (*event).uid).write(asked[3]);
        (&raw mut (*event).length).write(length);
        (&raw mut (*event).task).write(TaskContext { process: (id >> 32) as u32, thread: id as u32, comm });
        let stack = (&raw mut (*event).stack).cast::<u64>();
        let mut frame = 0;
        while frame < STACK_FRAMES {
            core::ptr::write_volatile(stack.add(frame), 0);
            frame += 1;
        }
        let bytes = bpf_get_stack(ctx, stack.cast(), size_of::<[u64; STACK_FRAMES]>() as u32, 0);
        (&raw mut (*event).stack_bytes).write(bytes as i32);
    }
    entry.submit(0);
}
