//! The space of all physical memory: the source of every grant in the end.

use crate::frames::Frames;
use crate::list::{Full, List};
use crate::paging::{Cursor, Extent, Run, Source};
use abi::cap::MemRights;

/// Ranges that can be told apart from device memory.
const RANGES: usize = 256;

/// What a range of physical memory is to a grant. A later kind outranks an earlier one where ranges
/// overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Registers, or nothing: read and write, never executed, never cached.
    Device,
    /// Memory.
    Ram,
    /// The kernel's own: not there.
    Kept,
}

/// The pages from `first` on and before `end` are of that kind.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    end: u64,
    kind: Kind,
}

/// All physical memory below a limit, less what the kernel keeps.
#[derive(Debug)]
pub struct PhysicalSpace {
    /// The page where memory ends.
    end: u64,
    /// In no order; there are some dozens.
    ranges: List<Range, RANGES>,
}

impl PhysicalSpace {
    /// The space of a processor with addresses of `bits` bits (CPUID.80000008H:EAX\[7:0\]), at most
    /// 52. All of it counts as device memory until [`Self::add_ram`] says otherwise.
    pub fn new(bits: u32) -> Self {
        let ranges = List::new(Range { first: 0, end: 0, kind: Kind::Device });
        Self { end: 1 << bits.clamp(12, 52).wrapping_sub(12), ranges }
    }

    /// Says that `len` bytes from `base` on are memory; only whole pages count.
    ///
    /// # Errors
    /// [`Full`]: there are more ranges than fit, and this one was not taken.
    pub fn add_ram(&mut self, base: u64, len: u64) -> Result<(), Full> {
        self.mark(base.div_ceil(4096), base.saturating_add(len) >> 12, Kind::Ram)
    }

    /// Takes `len` bytes from `base` on out of the space, with every page that they touch. It does
    /// not matter whether the memory around was added before or is later.
    ///
    /// # Errors
    /// [`Full`]: there are more ranges than fit. The range can still be granted: fatal for a
    /// kernel.
    pub fn keep(&mut self, base: u64, len: u64) -> Result<(), Full> {
        self.mark(base >> 12, base.saturating_add(len).div_ceil(4096), Kind::Kept)
    }

    fn mark(&mut self, first: u64, end: u64, kind: Kind) -> Result<(), Full> {
        if first < end { self.ranges.push(Range { first, end, kind }) } else { Ok(()) }
    }
}

impl Source for PhysicalSpace {
    const CHOOSES_CACHING: bool = true;

    fn at(&self, _: &impl Frames, _: &mut Cursor, page: u64, limit: u64) -> Run {
        if page >= self.end {
            return Err(limit.max(1));
        }
        let (mut kind, mut end) = (Kind::Device, self.end);
        for range in self.ranges.iter() {
            if range.first > page {
                end = end.min(range.first);
            } else if range.end > page {
                (kind, end) = (kind.max(range.kind), end.min(range.end));
            }
        }
        let pages = end.wrapping_sub(page);
        let rights = match kind {
            Kind::Kept => return Err(pages),
            Kind::Ram => MemRights::RWX,
            Kind::Device => MemRights::RW.union(MemRights::UNCACHED),
        };
        Ok(Extent { pa: page << 12, pages, rights })
    }
}
