//! A vector of fixed capacity.

/// Up to `N` values in place.
#[derive(Clone, Copy, Debug)]
pub struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

/// The list has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<T: Copy, const N: usize> List<T, N> {
    /// An empty list; `filler` occupies the unused places.
    pub const fn new(filler: T) -> Self {
        Self { items: [filler; N], len: 0 }
    }

    /// Empties it.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a value.
    ///
    /// # Errors
    /// [`Full`] if there are `N` already.
    pub fn push(&mut self, value: T) -> Result<(), Full> {
        *self.items.get_mut(self.len).ok_or(Full)? = value;
        self.len = self.len.wrapping_add(1);
        Ok(())
    }
}

impl<T, const N: usize> core::ops::Deref for List<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or_default()
    }
}
