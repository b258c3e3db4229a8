//! Pages for tests: a map from address to contents that notices misuse.

use crate::frames::{Frames, WORDS};
use std::boxed::Box;
use std::collections::{HashMap, HashSet};

/// A limited pool of pages. Every misuse panics: reading or writing a page that is not allocated,
/// freeing one twice.
#[derive(Debug)]
pub struct Pool {
    pages: HashMap<u64, Box<[u64; WORDS]>>,
    freed: HashSet<u64>,
    next: u64,
    limit: usize,
}

impl Pool {
    /// A pool that gives at most `limit` pages at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { pages: HashMap::new(), freed: HashSet::new(), next: 0x1000_0000, limit }
    }

    /// Pages that are allocated.
    #[must_use]
    pub fn used(&self) -> usize {
        self.pages.len()
    }

    /// Changes how many pages can be allocated at a time.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }
}

impl Frames for Pool {
    fn alloc(&mut self) -> Option<u64> {
        if self.pages.len() >= self.limit {
            return None;
        }
        let page = self.next;
        self.next += 4096;
        self.pages.insert(page, Box::new([0; WORDS]));
        Some(page)
    }

    fn free(&mut self, page: u64) {
        assert!(!self.freed.contains(&page), "page {page:#x} is freed twice");
        assert!(self.pages.remove(&page).is_some(), "page {page:#x} was never allocated");
        self.freed.insert(page);
    }

    fn read(&self, page: u64, index: usize) -> u64 {
        self.pages.get(&page).unwrap_or_else(|| panic!("read of page {page:#x}"))[index]
    }

    fn write(&mut self, page: u64, index: usize, value: u64) {
        self.pages.get_mut(&page).unwrap_or_else(|| panic!("write to page {page:#x}"))[index] =
            value;
    }
}
