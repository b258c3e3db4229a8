//! The task's free selectors.

use core::sync::atomic::{AtomicU32, Ordering};

use abi::cap::{NULL, SELECTORS, Selector};
use abi::hypercall::Status;
use alloc::vec::Vec;

use crate::lock::Lock;

/// Hands out selectors: those that were given back, and those that were never used, in ascending order.
#[derive(Debug)]
pub struct SelectorAllocator {
    next: AtomicU32,
    back: Lock<Vec<Selector>>,
}

impl SelectorAllocator {
    /// All selectors from `first` on are free.
    #[must_use]
    pub const fn new(first: Selector) -> Self {
        Self { next: AtomicU32::new(first), back: Lock::new(Vec::new()) }
    }

    /// Selectors below `first` are taken. For the start of a task.
    pub fn start_at(&self, first: Selector) {
        self.next.store(first, Ordering::Relaxed);
    }

    /// One free selector.
    ///
    /// # Errors
    /// [`Status::BadCap`] when there is none left.
    pub fn one(&self) -> Result<Selector, Status> {
        // Who has the lock gives one back just now.
        let back = self.back.try_lock().and_then(|mut back| back.pop());
        back.map_or_else(|| self.range(1), Ok)
    }

    /// Takes a selector back, which holds no capability any more.
    pub fn give(&self, selector: Selector) {
        self.back.lock().push(selector);
    }

    /// The first of `count` free selectors in a row.
    ///
    /// # Errors
    /// [`Status::BadCap`] when there are not that many left.
    pub fn range(&self, count: u32) -> Result<Selector, Status> {
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
                first.checked_add(count).filter(|end| *end <= SELECTORS)
            })
            .map_err(|_| Status::BadCap)
    }
}

/// This task's selectors; set up before `main` runs.
pub static FREE: SelectorAllocator = SelectorAllocator::new(abi::cap::own::FREE);

/// A selector that is kept for the first object of some kind.
#[derive(Debug)]
pub(crate) struct Kept(AtomicU32);

impl Kept {
    /// None is kept.
    pub const fn none() -> Self {
        Self(AtomicU32::new(NULL))
    }

    /// Keeps `selector` from now on.
    pub fn keep(&self, selector: Selector) {
        self.0.store(selector, Ordering::Relaxed);
    }

    /// What is kept, once; afterwards any free selector.
    ///
    /// # Errors
    /// [`Status::BadCap`] when no selector is left.
    pub fn take(&self) -> Result<Selector, Status> {
        match self.0.swap(NULL, Ordering::Relaxed) {
            NULL => FREE.one(),
            kept => Ok(kept),
        }
    }
}

/// Makes something at a free selector and returns the selector.
///
/// # Errors
/// What `create` returns, or [`Status::BadCap`] when no selector is left.
pub(crate) fn fresh(
    create: impl FnOnce(Selector) -> Result<(), Status>,
) -> Result<Selector, Status> {
    let selector = FREE.one()?;
    create(selector).map(|()| selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_selector_is_taken_once() {
        let kept = Kept::none();
        let first = kept.take();
        kept.keep(7);
        assert_eq!(kept.take(), Ok(7));
        let second = kept.take();
        assert!(first.is_ok() && second.is_ok() && first != second && second != Ok(7));
    }

    #[test]
    fn ranges_do_not_overlap_and_end_with_the_object_space() {
        let free = SelectorAllocator::new(SELECTORS - 10);
        assert_eq!(free.one(), Ok(SELECTORS - 10));
        assert_eq!(free.range(8), Ok(SELECTORS - 9));
        assert_eq!(free.range(2), Err(Status::BadCap));
        assert_eq!(free.range(u32::MAX), Err(Status::BadCap));
        assert_eq!(free.one(), Ok(SELECTORS - 1));
        assert_eq!(free.one(), Err(Status::BadCap));
    }
}
