//! Whom the host talks to: known before it is needed.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::commands::assess::Surroundings;

/// How often it is looked whom the host talks to, for what a repair must not spoil.
const REFRESH: Duration = Duration::from_secs(20);

/// After a link has come or gone; associations come with it, and not at the same moment.
const HURRY: Duration = Duration::from_secs(1);

/// Whom the host talks to, as it was a while ago: gathering it takes longer than a repair may.
pub(super) struct Known {
    pub(super) now: Surroundings,
    gathering: Option<JoinHandle<Surroundings>>,
    next: Instant,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { now: Surroundings::gather(), gathering: None, next: Instant::now() + REFRESH }
    }

    /// Gathers anew at once: a tunnel has come, whose peer only its associations know.
    pub(super) fn hurry(&mut self) {
        self.next = self.next.min(Instant::now() + HURRY);
    }

    /// When it is gathered anew.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Takes in what was gathered, and begins to gather anew when it is time, on another thread.
    pub(super) async fn refresh(&mut self) {
        if self.next > Instant::now() {
            return;
        }
        self.next = Instant::now() + REFRESH;
        match self.gathering.take() {
            Some(gathering) if gathering.is_finished() => {
                self.now = gathering.await.unwrap_or_default();
            }
            Some(unfinished) => {
                self.gathering = Some(unfinished);
                return;
            }
            None => {}
        }
        self.gathering = Some(tokio::task::spawn_blocking(Surroundings::gather));
    }
}
