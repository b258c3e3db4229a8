//! Which edges of the program a run has taken.
//!
//! The compiler's sanitizer coverage (LLVM, "SanitizerCoverage": inline 8-bit counters) gives every
//! edge of the control-flow graph a byte that counts, and hands the bytes over before `main`.
//!
//! `unsafe` is needed because the counters are memory that belongs to code which the compiler adds.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static START: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Called before `main` for every part of the program, with the same range each time: the linker
/// puts all counters into one section.
///
/// # Safety
/// For the compiler alone: `start..stop` are its counters.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Ordering::Relaxed);
    LENGTH.store(stop.addr() - start.addr(), Ordering::Relaxed);
}

/// How many edges the program has; 0 if it was compiled without coverage.
pub fn edges() -> usize {
    LENGTH.load(Ordering::Relaxed)
}

/// Sets all counters to zero.
pub fn clear() {
    // SAFETY: the range is the compiler's counters, bytes that only count.
    unsafe { ptr::write_bytes(START.load(Ordering::Relaxed), 0, edges()) };
}

/// Copies all counters, so that looking at them does not change them.
pub fn copy_to(snapshot: &mut Vec<u8>) {
    snapshot.resize(edges(), 0);
    // SAFETY: the source is as above, the destination was made as long.
    unsafe {
        let start = START.load(Ordering::Relaxed);
        ptr::copy_nonoverlapping(start, snapshot.as_mut_ptr(), snapshot.len());
    }
}

/// How often an edge was taken, as one bit: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more.
const fn bucket(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1 << 0,
        2 => 1 << 1,
        3 => 1 << 2,
        4..=7 => 1 << 3,
        8..=15 => 1 << 4,
        16..=31 => 1 << 5,
        32..=127 => 1 << 6,
        128.. => 1 << 7,
    }
}

/// What all runs so far have reached.
#[derive(Debug)]
pub struct Seen {
    buckets: Vec<u8>,
    edges: usize,
}

impl Seen {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { buckets: vec![0; edges()], edges: 0 }
    }

    /// How many edges were taken at all.
    pub const fn edges(&self) -> usize {
        self.edges
    }

    /// Adds a run. Whether it took a new edge, or one much more often than any before.
    pub fn add(&mut self, snapshot: &[u8]) -> bool {
        let mut new = false;
        each_taken(snapshot, |index, count| {
            let Some(seen) = self.buckets.get_mut(index) else { return };
            let bit = bucket(count);
            if *seen & bit == 0 {
                self.edges += usize::from(*seen == 0);
                *seen |= bit;
                new = true;
            }
        });
        new
    }

    /// The edges of a run that no run before it has taken.
    pub fn missing(&self, snapshot: &[u8]) -> Vec<usize> {
        let mut missing = Vec::new();
        each_taken(snapshot, |index, _| {
            if self.buckets.get(index) == Some(&0) {
                missing.push(index);
            }
        });
        missing
    }
}

/// Calls `see` with the index and the count of every edge that was taken. Few were.
fn each_taken(snapshot: &[u8], mut see: impl FnMut(usize, u8)) {
    for (index, chunk) in snapshot.chunks(64).enumerate() {
        if chunk.iter().fold(0, |any, count| any | count) == 0 {
            continue;
        }
        for (offset, count) in chunk.iter().enumerate().filter(|(_, count)| **count != 0) {
            see(index * 64 + offset, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_of_the_same_is_new_only_in_another_bucket() {
        let mut seen = Seen { buckets: vec![0; 200], edges: 0 };
        let run = |count| {
            let mut snapshot = vec![0; 200];
            snapshot[130] = count;
            snapshot
        };
        assert!(seen.add(&run(4)) && seen.edges() == 1);
        assert!(!seen.add(&run(7)));
        assert!(seen.add(&run(8)) && seen.edges() == 1);
        assert!(seen.missing(&run(255)).is_empty());
        let mut other = run(1);
        other[7] = 3;
        assert_eq!(seen.missing(&other), [7]);
    }
}
