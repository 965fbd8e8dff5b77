//! vpnfix's own questions to the kernel, which must not be taken for traffic.

use aya_ebpf::{EbpfContext, Global, helpers::generated::bpf_get_stack, macros::map, maps::PerCpuArray};

use crate::offsets::{
    GETROUTE4_END, GETROUTE4_START, GETROUTE6_END, GETROUTE6_START, QUERY_THREAD, SOFTIRQ_END, SOFTIRQ_START,
};

/// Frames looked at. `inet_rtm_getroute` lies about eight above the tracepoint, a softirq's entry about twenty.
const FRAMES: usize = 32;

/// Room for a stack's return addresses.
#[map]
static STACK: PerCpuArray<[u64; FRAMES]> = PerCpuArray::with_max_entries(1, 0);

/// Is this lookup an `RTM_GETROUTE` query of the query thread? `thread` is the current one.
///
/// The thread alone does not tell: a softirq that interrupts it looks up routes for foreign packets. So the call stack
/// must reach the query's function before it reaches the softirq's. Taking it costs microseconds, which only
/// vpnfix's own thread ever pays.
#[inline(always)]
pub fn is_query<C: EbpfContext>(ctx: &C, thread: u32) -> bool {
    let query_thread = QUERY_THREAD.load();
    query_thread != 0 && thread == query_thread && asks_for_route(ctx.as_ptr())
}

#[inline(never)]
fn asks_for_route(ctx: *mut core::ffi::c_void) -> bool {
    if GETROUTE4_START.load() == 0 {
        return true;
    }
    let Some(stack) = STACK.get_ptr_mut(0) else { return true };
    // SAFETY: the buffer has the size that is given.
    let bytes = unsafe { bpf_get_stack(ctx, stack.cast(), size_of::<[u64; FRAMES]>() as u32, 0) };
    if bytes <= 0 {
        return true;
    }
    let mut frame = 0;
    while frame < FRAMES {
        if (frame as i64) * 8 >= i64::from(bytes as i32) {
            return false;
        }
        // SAFETY: within the buffer.
        let address = unsafe { core::ptr::read_volatile(stack.cast::<u64>().add(frame)) };
        if within(address, &GETROUTE4_START, &GETROUTE4_END) || within(address, &GETROUTE6_START, &GETROUTE6_END) {
            return true;
        }
        if within(address, &SOFTIRQ_START, &SOFTIRQ_END) {
            return false;
        }
        frame += 1;
    }
    false
}

#[inline(always)]
fn within(address: u64, start: &Global<u64>, end: &Global<u64>) -> bool {
    address >= start.load() && address < end.load()
}
