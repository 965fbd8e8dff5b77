//! Selectors that compare some bits of a number (firewall marks, flow labels): which of them can match together?

/// A selector: the bits of `mask` have to be those of `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) value: u32,
    pub(super) mask: u32,
}

impl Bits {
    fn fits(self, number: u32) -> bool {
        (self.value ^ number) & self.mask == 0
    }
}

/// Steps of the search at the most, for one set of selectors.
const STEPS: usize = 100_000;

/// One number for each set of these selectors that some number matches while it does not match the others; 0 first.
/// Nothing if that takes too long to find out.
pub(super) fn representatives(selectors: &[Bits]) -> Option<Vec<u32>> {
    let mut distinct: Vec<Bits> = Vec::new();
    for selector in selectors {
        let normal = Bits { value: selector.value & selector.mask, mask: selector.mask };
        if !distinct.contains(&normal) {
            distinct.push(normal);
        }
    }
    let mut search = Search { selectors: &distinct, misses: Vec::new(), found: vec![0], steps: 0 };
    search.divide(0, Bits { value: 0, mask: 0 })?;
    Some(search.found)
}

struct Search<'s> {
    selectors: &'s [Bits],
    /// Selectors that must not match.
    misses: Vec<Bits>,
    found: Vec<u32>,
    steps: usize,
}

impl Search<'_> {
    /// Divides the numbers that have the bits of `fixed` and match none of `misses` by the selectors from `next` on.
    fn divide(&mut self, next: usize, fixed: Bits) -> Option<()> {
        let Some(number) = self.number(fixed)? else { return Some(()) };
        let Some(selector) = self.selectors.get(next).copied() else {
            self.found.push(number);
            return Some(());
        };
        self.misses.push(selector);
        self.divide(next + 1, fixed)?;
        self.misses.pop();
        if (fixed.value ^ selector.value) & fixed.mask & selector.mask == 0 {
            let both = Bits { value: fixed.value | selector.value, mask: fixed.mask | selector.mask };
            self.divide(next + 1, both)?;
        }
        Some(())
    }

    /// A number that has the bits of `fixed` and matches none of `misses`, if there is one. The outer `None` is that the
    /// search takes too long.
    fn number(&mut self, fixed: Bits) -> Option<Option<u32>> {
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
        if !self.misses.iter().any(|miss| miss.fits(fixed.value)) {
            return Some(Some(fixed.value));
        }
        // Each of the misses has to differ in a bit of its mask that is still free, if it does not differ in a fixed one.
        let open = self.misses.iter().filter(|miss| (miss.value ^ fixed.value) & miss.mask & fixed.mask == 0).copied();
        let Some(tightest) = open.min_by_key(|miss| (miss.mask & !fixed.mask).count_ones()) else {
            return Some(Some(fixed.value));
        };
        for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| tightest.mask & !fixed.mask & bit != 0) {
            let other = Bits { value: fixed.value | (!tightest.value & bit), mask: fixed.mask | bit };
            if let Some(number) = self.number(other)? {
                return Some(Some(number));
            }
        }
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn sets(selectors: &[Bits], numbers: impl Iterator<Item = u32>) -> HashSet<Vec<bool>> {
        numbers.map(|number| selectors.iter().map(|selector| selector.fits(number)).collect()).collect()
    }

    #[test]
    fn every_set_of_matches_that_eight_bits_can_make_is_found() {
        // All numbers of eight bits are the truth that the search is held against.
        let mut seed = 1_u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) & 0xff
        };
        for _ in 0..500 {
            let count = next() % 6;
            let selectors: Vec<Bits> = (0..count).map(|_| Bits { value: next(), mask: next() & next() }).collect();
            let found = representatives(&selectors).expect("little work");
            assert_eq!(sets(&selectors, found.into_iter()), sets(&selectors, 0..256), "{selectors:?}");
        }
    }

    #[test]
    fn whole_marks_exclude_each_other() {
        let selectors = [0xca6c, 0x80000, 0x1_bd00].map(|value| Bits { value, mask: u32::MAX });
        let found = representatives(&selectors).expect("little work");
        assert_eq!(sets(&selectors, found.into_iter()).len(), 4);
    }

    #[test]
    fn too_many_sets_are_told() {
        let selectors: Vec<Bits> = (0..32).map(|bit| Bits { value: 1 << bit, mask: 1 << bit }).collect();
        assert_eq!(representatives(&selectors), None);
    }
}
