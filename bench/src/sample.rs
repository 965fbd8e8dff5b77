//! Many measurements of one thing.

use serde::{Deserialize, Serialize};

/// Measurements, in no order.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

/// What is told of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half are not above it.
    pub median: f64,
    /// A quarter is not above it.
    pub lower: f64,
    /// A quarter is not below it.
    pub upper: f64,
    /// How many there are.
    pub count: usize,
}

impl Samples {
    /// One more; what is no number (a division by zero) counts for nothing.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.0.push(value);
        }
    }

    /// The value that this share of the measurements (0 to 1) does not exceed, by the nearest rank.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The median alone.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// Median and quartiles.
    pub fn spread(&self) -> Option<Spread> {
        Some(Spread {
            median: self.quantile(0.5)?,
            lower: self.quantile(0.25)?,
            upper: self.quantile(0.75)?,
            count: self.0.len(),
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_the_nearest_rank() {
        let samples: Samples = (1..=100).rev().map(f64::from).chain([f64::NAN]).collect();
        assert_eq!(samples.quantile(0.5), Some(50.0));
        assert_eq!(samples.quantile(0.99), Some(99.0));
        assert_eq!(samples.quantile(1.0), Some(100.0));
        assert_eq!(samples.spread(), Some(Spread { median: 50.0, lower: 25.0, upper: 75.0, count: 100 }));
        assert_eq!(Samples::default().spread(), None);
    }
}
