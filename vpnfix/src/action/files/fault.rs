//! Where a test ends a change in its middle, as a kill would: from there on nothing more is done.

/// Passed before each step that changes the disk.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "only tests let it fail")]
#[inline]
pub(super) fn point() -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use for_tests::{after, point};

#[cfg(test)]
mod for_tests {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Steps that are still done; `None`: all.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets only so many steps be done in this thread.
    pub(in super::super) fn after(steps: Option<u32>) {
        LEFT.set(steps);
    }

    pub(in super::super) fn point() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("killed by the test")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
