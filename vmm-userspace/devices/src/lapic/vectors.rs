//! A set of interrupt vectors: the 256-bit registers IRR, ISR and TMR (SDM 3A 11.8.4).

use serde::{Deserialize, Serialize};

/// A set of the vectors 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VectorSet([u64; 4]);

impl VectorSet {
    pub(super) const EMPTY: Self = Self([0; 4]);

    const fn place(vector: u8) -> (usize, u64) {
        ((vector >> 6) as usize, 1 << (vector & 63))
    }

    pub(super) fn insert(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        self.0[word] |= bit;
    }

    pub(super) fn remove(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        self.0[word] &= !bit;
    }

    pub(super) const fn contains(&self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        self.0[word] & bit != 0
    }

    /// The vector of the highest priority.
    pub(super) fn highest(&self) -> Option<u8> {
        (0u8..4).rev().zip(self.0.iter().rev()).find_map(|(n, word)| {
            // 63 - leading zeros; `None` for an empty word.
            word.checked_ilog2().map(|bit| n << 6 | bit as u8)
        })
    }

    /// One of the eight 32-bit registers that show the set.
    pub(super) const fn register(&self, n: u8) -> u32 {
        let word = self.0[(n >> 1 & 3) as usize];
        if n & 1 == 0 { word as u32 } else { (word >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(operations in prop::collection::vec(any::<(bool, u8)>(), 0..60)) {
            let (mut set, mut model) = (VectorSet::EMPTY, BTreeSet::new());
            for (insert, vector) in operations {
                if insert {
                    set.insert(vector);
                    model.insert(vector);
                } else {
                    set.remove(vector);
                    model.remove(&vector);
                }
                prop_assert_eq!(set.highest(), model.last().copied());
                for v in 0..=255u8 {
                    prop_assert_eq!(set.contains(v), model.contains(&v));
                    prop_assert_eq!(set.register(v / 32) >> (v % 32) & 1 != 0, model.contains(&v));
                }
            }
        }
    }
}
