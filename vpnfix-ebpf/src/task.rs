//! The task in whose context a hook runs.

use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid};

/// Process id in the upper half, thread id in the lower.
#[inline(always)]
pub fn id() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The ids as in [`id`], and the name.
#[inline(always)]
pub fn current() -> (u64, [u8; 16]) {
    let mut comm = [0; 16];
    // SAFETY: the buffer has the size that is given; should the helper fail, it is zero.
    unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), 16) };
    (id(), comm)
}
