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
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {} s", DEADLINE.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}
