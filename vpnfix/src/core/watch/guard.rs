//! How often repairs may be made, and when a fight is a fight.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Evidence, Moment};

/// What `watch` keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many repairs at the most in any stretch of [`Self::window`]; at least 1.
    pub repairs: u32,
    /// That stretch.
    pub window: Duration,
    /// From one repair to the next; it doubles with each further one within the window.
    pub pause: Duration,
    /// The pause grows no longer than this.
    pub longest_pause: Duration,
    /// Needed rules taken away so often within [`Self::calm`] are a fight; at least 1.
    pub fight_after: u32,
    /// A fight that was left alone for so long is tried once more.
    pub calm: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            repairs: 10,
            window: Duration::from_secs(60),
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(300),
            fight_after: 4,
            calm: Duration::from_secs(3600),
        }
    }
}

/// Counts repairs and losses.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    /// The latest repairs, as many as the window may hold.
    attempts: VecDeque<Moment>,
    /// When needed rules were taken away.
    losses: VecDeque<Moment>,
    last_loss_by: Option<String>,
    fight: Option<Moment>,
    /// Repairs in a row that failed.
    failures: u32,
}

impl Guard {
    /// Nothing was done yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = sane(limits);
        Self {
            limits,
            attempts: VecDeque::new(),
            losses: VecDeque::new(),
            last_loss_by: None,
            fight: None,
            failures: 0,
        }
    }

    /// Other limits from now on.
    pub fn configure(&mut self, limits: Limits) {
        self.limits = sane(limits);
    }

    /// From when on the next repair may be made.
    #[must_use]
    pub fn next_repair(&self) -> Moment {
        let Some(last) = self.attempts.back() else { return Duration::ZERO };
        // The repair that has to leave the window before there is room for another.
        let most = usize::try_from(self.limits.repairs).unwrap_or(usize::MAX);
        let leaving = self.attempts.len().checked_sub(most).and_then(|index| self.attempts.get(index));
        let room = leaving.map_or(Duration::ZERO, |leaving| leaving.saturating_add(self.limits.window));
        let recent = self.attempts.iter().filter(|attempt| attempt.saturating_add(self.limits.window) > *last).count();
        room.max(last.saturating_add(self.pause(recent)))
    }

    /// The pause after so many repairs within the window. What failed is not tried again as if it were new.
    fn pause(&self, recent: usize) -> Duration {
        let doublings = u32::try_from(recent.saturating_sub(1)).unwrap_or(u32::MAX).max(self.failures).min(31);
        self.limits.pause.saturating_mul(1 << doublings).min(self.limits.longest_pause)
    }

    /// A repair is made.
    pub fn attempt(&mut self, now: Moment) {
        self.attempts.push_back(now);
        let most = usize::try_from(self.limits.repairs).unwrap_or(usize::MAX);
        while self.attempts.len() > most {
            self.attempts.pop_front();
        }
    }

    /// The repair came to its end.
    pub fn ended(&mut self, well: bool) {
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
    }

    /// Rules that were needed were taken away. Says so if that is a fight now.
    pub fn loss(&mut self, now: Moment, by: String) -> Option<Evidence> {
        self.losses.push_back(now);
        while self.losses.front().is_some_and(|first| first.saturating_add(self.limits.calm) < now) {
            self.losses.pop_front();
        }
        self.last_loss_by = Some(by.clone());
        let times = self.losses.len();
        let most = usize::try_from(self.limits.fight_after).unwrap_or(usize::MAX);
        if times < most {
            return None;
        }
        self.fight = Some(now);
        // More than decide are not kept.
        while self.losses.len() > most {
            self.losses.pop_front();
        }
        Some(Evidence::TakenAway { times, by })
    }

    /// How often of late, and by whom last.
    #[must_use]
    pub fn losses(&self) -> (usize, Option<&str>) {
        (self.losses.len(), self.last_loss_by.as_deref())
    }

    /// When a fight is tried once more.
    #[must_use]
    pub fn end_of_calm(&self) -> Option<Moment> {
        self.fight.map(|fight| fight.saturating_add(self.limits.calm))
    }

    /// The fight was left alone for long enough. One more loss is a fight again.
    pub fn calm(&mut self) {
        let Some(fight) = self.fight.take() else { return };
        let end = fight.saturating_add(self.limits.calm);
        let remembered = usize::try_from(self.limits.fight_after).unwrap_or(usize::MAX).saturating_sub(1);
        self.losses = std::iter::repeat_n(end, remembered.min(self.losses.len())).collect();
    }

    /// Forgets losses and the fight; the repairs made still count.
    pub fn reset(&mut self) {
        self.losses.clear();
        self.last_loss_by = None;
        self.fight = None;
        self.failures = 0;
    }
}

/// Limits of nothing would be a guard that allows nothing, or everything.
fn sane(limits: Limits) -> Limits {
    Limits { repairs: limits.repairs.clamp(1, 10_000), fight_after: limits.fight_after.clamp(1, 10_000), ..limits }
}
