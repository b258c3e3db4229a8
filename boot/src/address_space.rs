//! The virtual address space the kernel starts in, and how many tables it takes.
//!
//! ```text
//! 0x0000_0000_0010_0000 + x   one page of the loader, for the jump (read, execute)
//! 0xffff_c000_0000_0000       all physical memory (read, write)
//! 0xffff_ffff_0001_0000       the kernel's first stack, unmapped pages on both sides
//! 0xffff_ffff_8000_0000 + x   the kernel image, rights by segment
//! ```

use crate::arena::STACK_LENGTH;
use crate::elf::Image;
use crate::error::Error;
use crate::paging::{Access, AddressSpace, PageSize, TableMemory};
use crate::span::{PAGE, Span, align_down, align_up};

/// Virtual address of physical address zero.
pub const PHYSICAL_MEMORY_OFFSET: u64 = 0xffff_c000_0000_0000;

/// Physical addresses from here on have no place in the mapping: 32 TiB.
pub const PHYSICAL_LIMIT: u64 = 1 << 45;

/// Lowest virtual address of the kernel's first stack.
pub const STACK_BOTTOM: u64 = 0xffff_ffff_0001_0000;

/// The least the physical-memory mapping covers: devices of a PC lie below 4 GiB.
const LEAST_MAPPED: u64 = 4 << 30;

/// What the address space must contain, by physical address.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// End of the physical-memory mapping, a multiple of 1 GiB.
    pub physical_end: u64,
    /// Whether the CPU has 1 GiB pages.
    pub huge_pages: bool,
    /// A framebuffer, which may lie beyond `physical_end`.
    pub framebuffer: Option<Span>,
    /// The kernel.
    pub image: &'a Image<'a>,
    /// The loader's page that stays mapped where it is.
    pub trampoline: u64,
}

/// Where the physical-memory mapping ends when RAM ends at `end_of_ram`.
pub fn physical_end(end_of_ram: u64) -> u64 {
    align_up(end_of_ram.clamp(LEAST_MAPPED, PHYSICAL_LIMIT), PageSize::Huge.bytes())
}

impl Plan<'_> {
    /// Pages of the framebuffer that the ordinary mapping leaves out; empty if there are none.
    fn framebuffer_beyond(&self) -> Span {
        let large = PageSize::Large.bytes();
        let span = self.framebuffer.unwrap_or_default();
        let start = align_down(span.start, large).max(self.physical_end);
        Span { start, end: align_up(span.end, large).min(PHYSICAL_LIMIT) }
    }

    /// An upper bound on the tables [`Plan::build`] allocates.
    pub fn tables(&self) -> u64 {
        // Tables that each hold `unit` bytes, for a range that starts anywhere.
        let spanned = |length: u64, unit: u64| length.div_ceil(unit) + 1;
        let (gib, region) = (PageSize::Huge.bytes(), 512 * PageSize::Huge.bytes());
        let directories = if self.huge_pages { 0 } else { self.physical_end / gib };
        let physical = self.physical_end.div_ceil(region) + directories;
        let framebuffer = match self.framebuffer_beyond().length() {
            0 => 0,
            beyond => spanned(beyond, region) + spanned(beyond, gib),
        };
        let image = self.image.span.length();
        let kernel = 1 + spanned(image, gib) + spanned(image, PageSize::Large.bytes());
        let stack = 2;
        let trampoline = 3;
        1 + physical + framebuffer + kernel + stack + trampoline
    }

    /// Fills the tables and returns the physical address of the top one. The kernel image lies
    /// at physical address `image` in one piece, its stack at `stack`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when tables run out.
    pub fn build<T: TableMemory>(
        &self,
        tables: &mut T,
        image: u64,
        stack: u64,
    ) -> Result<u64, Error> {
        let mut space = AddressSpace::new(tables)?;
        let size = if self.huge_pages { PageSize::Huge } else { PageSize::Large };
        space.map(PHYSICAL_MEMORY_OFFSET, 0, self.physical_end, size, Access::ReadWrite)?;
        let beyond = self.framebuffer_beyond();
        space.map(
            PHYSICAL_MEMORY_OFFSET + beyond.start,
            beyond.start,
            beyond.length(),
            PageSize::Large,
            Access::ReadWrite,
        )?;
        for segment in self.image.segments() {
            let pages = segment.span.pages_around();
            let access = match (segment.write, segment.execute) {
                (false, false) => Access::Read,
                (true, _) => Access::ReadWrite,
                (false, true) => Access::ReadExecute,
            };
            let physical = image + (pages.start - self.image.span.start);
            space.map(pages.start, physical, pages.length(), PageSize::Base, access)?;
        }
        space.map(STACK_BOTTOM, stack, STACK_LENGTH, PageSize::Base, Access::ReadWrite)?;
        let trampoline = self.trampoline;
        space.map(trampoline, trampoline, PAGE, PageSize::Base, Access::ReadExecute)?;
        Ok(space.root())
    }
}

#[cfg(test)]
#[path = "tests/address_space.rs"]
mod tests;
