//! Telling no more than a reader can take: a bucket of lines that fills again with time.

use std::time::Duration;

use super::Moment;

/// Lets lines through until they are too many.
#[derive(Clone, Debug)]
pub struct Flood {
    most: u32,
    refill: Duration,
    left: u32,
    filled: Moment,
    dropped: u64,
}

impl Flood {
    /// `most` lines at once, and one more after each `refill`.
    #[must_use]
    pub fn new(most: u32, refill: Duration) -> Self {
        Self { most, refill, left: most, filled: Duration::ZERO, dropped: 0 }
    }

    /// May a line be told now? If so, how many were not since the last one.
    pub fn admit(&mut self, now: Moment) -> Option<u64> {
        let passed = now.saturating_sub(self.filled).as_nanos() / self.refill.as_nanos().max(1);
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(self.most);
            self.filled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.dropped))
            }
            None => {
                self.dropped += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut flood = Flood::new(3, Duration::from_secs(1));
        let at = Duration::from_secs;
        let admitted: Vec<Option<u64>> = (0..5).map(|_| flood.admit(at(10))).collect();
        assert_eq!(admitted, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(flood.admit(at(11)), Some(2));
        assert_eq!(flood.admit(at(11)), None);
        assert_eq!(flood.admit(at(1000)), Some(1));
    }
}
