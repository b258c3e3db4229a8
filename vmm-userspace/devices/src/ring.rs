//! A bounded queue without a heap.

use serde::{Deserialize, Serialize};

/// First-in first-out queue of at most `N` elements, where `N` is a power of two.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de> + Default + Copy"))]
pub(crate) struct Ring<T, const N: usize> {
    #[serde(with = "crate::array")]
    slots: [T; N],
    head: usize,
    len: usize,
}

impl<T: Copy + Default, const N: usize> Ring<T, N> {
    const MASK: usize = {
        assert!(N.is_power_of_two());
        N - 1
    };

    pub(crate) fn new() -> Self {
        Self { slots: [T::default(); N], head: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free places. Zero in the worst of cases, also when the state came from a forged snapshot.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        N.saturating_sub(self.len)
    }

    /// False if there was no room.
    #[inline]
    pub(crate) fn push(&mut self, element: T) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.slots[self.head.wrapping_add(self.len) & Self::MASK] = element;
        self.len += 1;
        true
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.first()?;
        self.head = self.head.wrapping_add(1) & Self::MASK;
        self.len -= 1;
        Some(first)
    }

    /// The element that [`Ring::pop`] would take.
    #[inline]
    pub(crate) fn first(&self) -> Option<T> {
        (self.len != 0).then(|| self.slots[self.head & Self::MASK])
    }

    /// Same as [`Ring::first`], to be changed in place.
    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        if self.len == 0 { None } else { Some(&mut self.slots[self.head & Self::MASK]) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        (0..self.len.min(N)).map(|i| self.slots[self.head.wrapping_add(i) & Self::MASK])
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Equal if the same elements are queued; where they lie in the buffer is no part of the value.
impl<T: Copy + Default + PartialEq, const N: usize> PartialEq for Ring<T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_bounded_deque(ops in prop::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut ring = Ring::<u8, 16>::new();
            let mut model = VecDeque::new();
            for op in ops {
                match op {
                    Some(byte) => {
                        let fits = model.len() < 16;
                        if fits {
                            model.push_back(byte);
                        }
                        prop_assert_eq!(ring.push(byte), fits);
                    }
                    None => prop_assert_eq!(ring.pop(), model.pop_front()),
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.room(), 16 - model.len());
                prop_assert_eq!(ring.first(), model.front().copied());
                prop_assert!(ring.iter().eq(model.iter().copied()));
            }
        }
    }
}
