//! Whether the machine's clock can be trusted.

use std::mem::MaybeUninit;

/// Does the kernel hold its clock for synchronised (adjtimex(2))?
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: an all-zero timex is valid, it is of plain integers; its `modes` of 0 asks and changes nothing, and the kernel
    // fills it in whole.
    let (outcome, state) = unsafe {
        let outcome = libc::adjtimex(state.as_mut_ptr());
        (outcome, state.assume_init())
    };
    (outcome >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}
