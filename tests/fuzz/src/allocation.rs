//! An allocator with a limit: a parser that believes a length it was told runs into it.
//!
//! `unsafe` is needed to be an allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a single run may have at one time, besides those that were in use when it began.
pub const LIMIT: usize = 64 << 20;

/// The system's allocator, counting.
struct Limited;

static USED: AtomicUsize = AtomicUsize::new(0);
static ALLOWED: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: everything is passed on to the system's allocator, or refused.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed).wrapping_add(layout.size());
        if used > ALLOWED.load(Ordering::Relaxed) {
            USED.fetch_sub(layout.size(), Ordering::Relaxed);
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the rules.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the rules, and every block is the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Limits what is allocated from now on to [`LIMIT`] bytes. An allocation beyond that fails, which
/// ends the process unless the program can do with less.
pub fn limit() {
    ALLOWED.store(USED.load(Ordering::Relaxed).saturating_add(LIMIT), Ordering::Relaxed);
}

/// Takes the limit away.
pub fn unlimited() {
    ALLOWED.store(usize::MAX, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_refuses_what_is_too_much() {
        limit();
        let refused = Vec::<u8>::new().try_reserve_exact(2 * LIMIT).is_err();
        let granted = Vec::<u8>::new().try_reserve_exact(LIMIT / 2).is_ok();
        unlimited();
        assert!(refused && granted);
        assert!(Vec::<u8>::new().try_reserve_exact(2 * LIMIT).is_ok());
    }
}
