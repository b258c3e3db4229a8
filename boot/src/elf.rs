//! Checking the kernel's ELF file: what any executable has to keep (`hypervisor_logic::elf`), and
//! what only a kernel has to.

use core::ops::Range;

use hypervisor_logic::elf::{Elf, ElfError, Segment};

use crate::error::Error;
use crate::span::{PAGE, Span};

/// The first four bytes of every ELF file.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

/// The lowest address a kernel may be linked at: the top 2 GiB, which its code model assumes
/// (AMD64 psABI 3.5.1).
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// The most address space a kernel may span, in bytes.
pub const MAX_KERNEL_SPAN: u64 = 64 << 20;

/// All of them but the last page: that one has no end address that fits 64 bits.
const ADDRESSES: Range<u64> = KERNEL_BASE..0u64.wrapping_sub(PAGE);

/// A kernel that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Virtual address of the first instruction, inside an executable segment.
    pub entry: u64,
    /// All pages of all segments, with the gaps between them.
    pub span: Span,
    elf: Elf<'a>,
}

/// The virtual addresses a segment occupies, not rounded to pages.
pub const fn span(segment: &Segment<'_>) -> Span {
    Span::new(segment.vaddr, segment.memsz)
}

impl<'a> Image<'a> {
    /// Checks `file`.
    ///
    /// # Errors
    /// [`Error::BadKernel`] with the first defect found.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let elf = Elf::parse_within(file, ADDRESSES).map_err(|e| Error::BadKernel(defect(e)))?;
        if elf.needs_relocations() {
            return Err(Error::BadKernel("needs relocations: link it statically"));
        }
        // Segments come in the order of their addresses, and there is one with the entry point.
        let pages = |segment: Segment<'_>| span(&segment).pages_around();
        let start = elf.segments().map(pages).map(|pages| pages.start).min().unwrap_or(0);
        let end = elf.segments().map(pages).map(|pages| pages.end).max().unwrap_or(0);
        if end - start > MAX_KERNEL_SPAN {
            return Err(Error::BadKernel("spans more than 64 MiB"));
        }
        Ok(Self { entry: elf.entry(), span: Span { start, end }, elf })
    }

    /// The loadable segments, by ascending address; no two of them share a page.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        self.elf.segments()
    }
}

/// What is wrong, in the words of [`Error::BadKernel`].
const fn defect(error: ElfError) -> &'static str {
    match error {
        ElfError::NotElf => "is not a 64-bit ELF file for x86-64",
        ElfError::NotExecutable => "is not an executable",
        ElfError::Truncated => "is cut off",
        ElfError::BadSize(_) => "has a segment larger in the file than in memory",
        ElfError::BadAddress(_) => "is not linked in the top 2 GiB",
        ElfError::WriteExecute(_) => "has a segment that is writable and executable",
        ElfError::Overlap(_) => "has segments out of order, or two in one page",
        ElfError::BadEntry => "has an entry point outside its code",
    }
}

#[cfg(test)]
#[path = "tests/elf.rs"]
pub(crate) mod tests;
