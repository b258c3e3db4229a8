//! The space of all physical memory: the source of every grant in the end.

use crate::frames::Frames;
use crate::list::{Full, List};
use crate::paging::{Cursor, Extent, Run, Source};
use abi::cap::MemRights;

/// Places for borders between ranges: each range takes up to two.
const BORDERS: usize = 256;

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

/// From this page up to the next border memory is of that kind.
#[derive(Clone, Copy, Debug)]
struct Border {
    page: u64,
    kind: Kind,
}

/// All physical memory below a limit, less what the kernel keeps.
#[derive(Debug)]
pub struct PhysicalSpace {
    /// Sorted by page; the first is page 0, the last is where memory ends.
    borders: List<Border, BORDERS>,
}

impl PhysicalSpace {
    /// The space of a processor with addresses of `bits` bits (CPUID.80000008H:EAX\[7:0\]), at most
    /// 52. All of it counts as device memory until [`Self::add_ram`] says otherwise.
    pub fn new(bits: u32) -> Self {
        let end = 1_u64 << bits.clamp(12, 52).wrapping_sub(12);
        let mut borders = List::new(Border { page: 0, kind: Kind::Kept });
        // Two fit.
        let _ = borders.push(Border { page: 0, kind: Kind::Device });
        let _ = borders.push(Border { page: end, kind: Kind::Kept });
        Self { borders }
    }

    /// Says that `len` bytes from `base` on are memory; only whole pages count.
    ///
    /// # Errors
    /// [`Full`]: there are more ranges than fit, and this one was not taken.
    pub fn add_ram(&mut self, base: u64, len: u64) -> Result<(), Full> {
        let first = base.div_ceil(4096);
        self.mark(first, base.saturating_add(len) >> 12, Kind::Ram)
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
        if first >= end {
            return Ok(());
        }
        // Either both borders fit or none is made.
        if self.borders.len().saturating_add(2) > BORDERS {
            return Err(Full);
        }
        let from = self.split(first)?;
        let to = self.split(end)?;
        for border in self.borders.get_mut(from..to).unwrap_or_default() {
            border.kind = border.kind.max(kind);
        }
        Ok(())
    }

    /// The number of the border at `page`, which is made if there is none.
    fn split(&mut self, page: u64) -> Result<usize, Full> {
        let at = self.borders.partition_point(|border| border.page < page);
        if self.borders.get(at).is_some_and(|border| border.page == page) {
            return Ok(at);
        }
        let kind = self.kind_before(at).unwrap_or(Kind::Kept);
        self.borders.insert(at, Border { page, kind })?;
        Ok(at)
    }

    /// What is in front of the border of that number.
    fn kind_before(&self, number: usize) -> Option<Kind> {
        self.borders.get(number.checked_sub(1)?).map(|border| border.kind)
    }
}

impl Source for PhysicalSpace {
    const CHOOSES_CACHING: bool = true;

    fn at(&self, _: &impl Frames, _: &mut Cursor, page: u64, limit: u64) -> Run {
        let above = self.borders.partition_point(|border| border.page <= page);
        let (Some(kind), Some(end)) = (self.kind_before(above), self.borders.get(above)) else {
            return Run::Absent(limit.max(1));
        };
        let pages = end.page.wrapping_sub(page);
        let rights = match kind {
            Kind::Kept => return Run::Absent(pages),
            Kind::Ram => MemRights::RWX,
            Kind::Device => MemRights::RW.union(MemRights::UNCACHED),
        };
        Run::Present(Extent { pa: page << 12, pages, rights })
    }
}
