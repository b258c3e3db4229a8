//! The task's free selectors.

use core::sync::atomic::{AtomicU32, Ordering};

use abi::cap::{SELECTORS, Selector};
use abi::hypercall::Status;

/// Hands out selectors that were never used, in ascending order.
#[derive(Debug)]
pub struct SelectorAllocator {
    next: AtomicU32,
}

impl SelectorAllocator {
    /// All selectors from `first` on are free.
    #[must_use]
    pub const fn new(first: Selector) -> Self {
        Self { next: AtomicU32::new(first) }
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
        self.range(1)
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
