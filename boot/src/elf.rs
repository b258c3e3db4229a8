//! Checking the kernel's ELF file (System V gABI 4.1, chapters 4 and 5; AMD64 psABI).

use core::ops::Range;

use crate::error::Error;
use crate::memory::{u16_at, u32_at, u64_at};
use crate::span::Span;

/// The first four bytes of every ELF file.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

/// The lowest address a kernel may be linked at: the top 2 GiB, which its code model assumes
/// (AMD64 psABI 3.5.1).
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// The most address space a kernel may span, in bytes.
pub const MAX_KERNEL_SPAN: u64 = 64 << 20;

/// The most loadable segments a kernel may have.
pub const MAX_SEGMENTS: usize = 8;

/// A stretch of the kernel with one set of permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Virtual addresses it occupies, not rounded to pages.
    pub span: Span,
    /// The part of the file that is copied to its start; the rest is zero.
    pub file: Range<usize>,
    /// Whether its pages may be written.
    pub writable: bool,
    /// Whether its pages may be executed; never together with `writable`.
    pub executable: bool,
}

/// A kernel that passed every check.
#[derive(Clone, Debug)]
pub struct Image {
    /// Virtual address of the first instruction, inside an executable segment.
    pub entry: u64,
    /// All pages of all segments, with the gaps between them.
    pub span: Span,
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
}

impl Image {
    /// The loadable segments; no two of them share a page.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or(&[])
    }

    /// Checks `file` and lists what must be loaded.
    ///
    /// # Errors
    /// [`Error::BadKernel`] with the first defect found.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        let headers = program_headers(file)?;
        let mut image = Self {
            entry: u64_at(file, 24).ok_or(CUT_OFF)?,
            span: Span { start: u64::MAX, end: 0 },
            segments: Default::default(),
            count: 0,
        };
        for header in headers {
            match u32_at(header, 0).ok_or(CUT_OFF)? {
                PT_LOAD => image.add(segment(file, header)?)?,
                PT_DYNAMIC => no_relocations(file, header)?,
                _ => {}
            }
        }
        if image.span.length() > MAX_KERNEL_SPAN {
            return Err(Error::BadKernel("spans more than 64 MiB"));
        }
        let entry = Span::new(image.entry, 1);
        let in_code = |segment: &Segment| segment.executable && segment.span.contains(entry);
        if !image.segments().iter().any(in_code) {
            return Err(Error::BadKernel("has an entry point outside its code"));
        }
        Ok(image)
    }

    fn add(&mut self, segment: Segment) -> Result<(), Error> {
        if segment.span.is_empty() {
            return Ok(());
        }
        let pages = segment.span.pages_around();
        if self.segments().iter().any(|other| other.span.pages_around().overlaps(pages)) {
            return Err(Error::BadKernel("has two segments in one page"));
        }
        self.span.start = self.span.start.min(pages.start);
        self.span.end = self.span.end.max(pages.end);
        let slot = self.segments.get_mut(self.count);
        *slot.ok_or(Error::BadKernel("has too many segments"))? = segment;
        self.count += 1;
        Ok(())
    }
}

const CUT_OFF: Error = Error::BadKernel("is cut off");
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const DT_NULL: u64 = 0;
/// `DT_PLTRELSZ`, `DT_RELASZ`, `DT_RELSZ` and `DT_RELRSZ`: each the size of a relocation table.
const RELOCATION_SIZES: [u64; 4] = [2, 8, 18, 35];

/// The program headers of a 64-bit little-endian x86-64 executable.
fn program_headers(file: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Error> {
    if !file.starts_with(MAGIC) {
        return Err(Error::BadKernel("is not an ELF file"));
    }
    if file.get(4..6) != Some(&[2, 1]) || u16_at(file, 18) != Some(EM_X86_64) {
        return Err(Error::BadKernel("is not for x86-64"));
    }
    if !matches!(u16_at(file, 16), Some(ET_EXEC | ET_DYN)) {
        return Err(Error::BadKernel("is not an executable"));
    }
    let offset = u64_at(file, 32).ok_or(CUT_OFF)?;
    let size = usize::from(u16_at(file, 54).ok_or(CUT_OFF)?);
    let count = usize::from(u16_at(file, 56).ok_or(CUT_OFF)?);
    if size < 56 {
        return Err(Error::BadKernel("has short program headers"));
    }
    let table = slice(file, offset, (size * count) as u64).ok_or(CUT_OFF)?.1;
    Ok(table.chunks_exact(size))
}

/// A `PT_LOAD` header.
fn segment(file: &[u8], header: &[u8]) -> Result<Segment, Error> {
    let long = |offset| u64_at(header, offset).ok_or(CUT_OFF);
    let flags = u32_at(header, 4).ok_or(CUT_OFF)?;
    let (start, file_size, memory_size) = (long(16)?, long(32)?, long(40)?);
    if memory_size == 0 {
        return Ok(Segment::default());
    }
    if file_size > memory_size {
        return Err(Error::BadKernel("has a segment larger in the file than in memory"));
    }
    let range = slice(file, long(8)?, file_size).ok_or(CUT_OFF)?.0;
    let in_range = start >= KERNEL_BASE && start.checked_add(memory_size).is_some();
    let span = Span::new(start, memory_size);
    // The last page of the address space has no end address that fits 64 bits.
    if !in_range || span.end > u64::MAX - 0xfff {
        return Err(Error::BadKernel("is not linked in the top 2 GiB"));
    }
    let (writable, executable) = (flags & PF_W != 0, flags & PF_X != 0);
    if writable && executable {
        return Err(Error::BadKernel("has a segment that is writable and executable"));
    }
    Ok(Segment { span, file: range, writable, executable })
}

/// Refuses a dynamic section that asks for relocations: they would have to be applied.
fn no_relocations(file: &[u8], header: &[u8]) -> Result<(), Error> {
    let offset = u64_at(header, 8).ok_or(CUT_OFF)?;
    let size = u64_at(header, 32).ok_or(CUT_OFF)?;
    for entry in slice(file, offset, size).ok_or(CUT_OFF)?.1.chunks_exact(16) {
        let (tag, value) = (u64_at(entry, 0).ok_or(CUT_OFF)?, u64_at(entry, 8).ok_or(CUT_OFF)?);
        if tag == DT_NULL {
            break;
        }
        if RELOCATION_SIZES.contains(&tag) && value != 0 {
            return Err(Error::BadKernel("needs relocations: link it statically"));
        }
    }
    Ok(())
}

/// `length` bytes of the file from `offset`, as a range and as bytes.
fn slice(file: &[u8], offset: u64, length: u64) -> Option<(Range<usize>, &[u8])> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    Some((start..end, file.get(start..end)?))
}

#[cfg(test)]
#[path = "tests/elf.rs"]
pub(crate) mod tests;
