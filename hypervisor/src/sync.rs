//! Sharing between kernel code paths.
//!
//! The kernel runs with interrupts disabled and is never re-entered on a CPU, so whatever belongs
//! to one CPU needs no lock: it sits in a [`Local`].

use core::cell::Cell;

/// A cell that only the CPU it belongs to touches.
#[repr(transparent)]
pub struct Local<T>(Cell<T>);

// SAFETY: a `Local` is part of an object that is bound to one CPU, and the kernel is not re-entered
// on a CPU (interrupts stay disabled in ring 0, but where it is open to them on purpose and
// holds nothing; the NMI handler touches none but its own counter).
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// A cell holding `value`.
    pub const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.0.set(value);
    }

    /// Replaces the value and returns the old one.
    #[inline(always)]
    pub fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }

    /// A pointer to the value.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Copy> Local<T> {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.0.get()
    }
}
