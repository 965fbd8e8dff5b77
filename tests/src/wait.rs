//! Waiting for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything: the play of the lab took 93 s in an emulated 5.10 on a busy host. Only a failing test ever
/// waits so long.
pub const DEADLINE: Duration = Duration::from_secs(400);

/// Asks until the answer is `Some`, and returns it.
///
/// # Panics
///
/// If there is none within [`DEADLINE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, ask).unwrap_or_else(|| panic!("{what}: not within {} s", DEADLINE.as_secs()))
}

/// Asks until the answer is `Some`, but not longer than this.
pub fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
