//! Reading the kernel's ELF file (System V ABI, chapter 5; x86-64 psABI 4.1), and checking that it
//! can be loaded as it is.

use core::ops::Range;

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

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const DT_NULL: u64 = 0;
/// `DT_PLTRELSZ`, `DT_RELASZ`, `DT_RELSZ` and `DT_RELRSZ`: each the size of a relocation table.
const RELOCATION_SIZES: [u64; 4] = [2, 8, 18, 35];

/// A kernel that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Virtual address of the first instruction, inside an executable segment.
    pub entry: u64,
    /// All pages of all segments, with the gaps between them.
    pub span: Span,
    headers: Headers<'a>,
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The virtual addresses it occupies; not necessarily whole pages, and never none.
    pub span: Span,
    /// Its start, from the file, not longer than `span`; the rest is zeros.
    pub file: &'a [u8],
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed. Never both.
    pub execute: bool,
}

/// A file and its program headers.
#[derive(Clone, Copy, Debug)]
struct Headers<'a> {
    file: &'a [u8],
    table: &'a [[u8; PROGRAM_HEADER]],
}

const NOT_ELF: Error = Error::BadKernel("is not a 64-bit ELF file for x86-64");
const CUT_OFF: Error = Error::BadKernel("is cut off");

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

impl<'a> Image<'a> {
    /// Checks `file`.
    ///
    /// # Errors
    /// [`Error::BadKernel`] with the first defect found.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let headers = Headers::parse(file)?;
        let entry = u64_at(file, 24).ok_or(CUT_OFF)?;
        let (mut first, mut free, mut entered) = (None, 0, false);
        for header in headers.table {
            let Some(segment) = headers.segment(header)? else { continue };
            if segment.span.start < free {
                return Err(Error::BadKernel("has segments out of order, or two in one page"));
            }
            let pages = segment.span.pages_around();
            first = first.or(Some(pages.start));
            free = pages.end;
            entered |= segment.execute && (segment.span.start..segment.span.end).contains(&entry);
        }
        if !entered {
            return Err(Error::BadKernel("has an entry point outside its code"));
        }
        if headers.need_relocations() {
            return Err(Error::BadKernel("needs relocations: link it statically"));
        }
        // There is one segment at least: that with the entry point.
        let span = Span { start: first.unwrap_or(free), end: free };
        if span.length() > MAX_KERNEL_SPAN {
            return Err(Error::BadKernel("spans more than 64 MiB"));
        }
        Ok(Self { entry, span, headers })
    }

    /// The loadable segments, by ascending address; no two of them share a page.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let headers = self.headers;
        headers.table.iter().filter_map(move |header| headers.segment(header).ok().flatten())
    }
}

impl<'a> Headers<'a> {
    /// Finds the program headers of an executable.
    fn parse(file: &'a [u8]) -> Result<Self, Error> {
        // Magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT.
        if file.get(..7) != Some(b"\x7fELF\x02\x01\x01") || file.len() < HEADER {
            return Err(NOT_ELF);
        }
        if u16_at(file, 18) != Some(EM_X86_64) {
            return Err(NOT_ELF);
        }
        if !matches!(u16_at(file, 16), Some(ET_EXEC | ET_DYN)) {
            return Err(Error::BadKernel("is not an executable"));
        }
        if u16_at(file, 54).map(usize::from) != Some(PROGRAM_HEADER) {
            return Err(NOT_ELF);
        }
        let start = usize_at(file, 32).ok_or(CUT_OFF)?;
        let count = u16_at(file, 56).ok_or(CUT_OFF)?;
        let (table, _) = file.get(start..).ok_or(CUT_OFF)?.as_chunks();
        let table = table.get(..usize::from(count)).ok_or(CUT_OFF)?;
        Ok(Self { file, table })
    }

    /// The part of the file that a program header names.
    fn content(&self, header: &[u8]) -> Option<&'a [u8]> {
        let (start, length) = (usize_at(header, 8)?, usize_at(header, 32)?);
        self.file.get(start..start.checked_add(length)?)
    }

    /// The segment of a program header, if that loads anything.
    fn segment(&self, header: &[u8]) -> Result<Option<Segment<'a>>, Error> {
        let word = |at| u64_at(header, at).ok_or(CUT_OFF);
        let (start, file_size, size) = (word(16)?, word(32)?, word(40)?);
        if u32_at(header, 0) != Some(PT_LOAD) || size == 0 {
            return Ok(None);
        }
        if file_size > size {
            return Err(Error::BadKernel("has a segment larger in the file than in memory"));
        }
        let end = start.checked_add(size).filter(|end| *end <= ADDRESSES.end);
        let end = end.filter(|_| start >= ADDRESSES.start);
        let end = end.ok_or(Error::BadKernel("is not linked in the top 2 GiB"))?;
        let flags = u32_at(header, 4).ok_or(CUT_OFF)?;
        let (write, execute) = (flags & PF_W != 0, flags & PF_X != 0);
        if write && execute {
            return Err(Error::BadKernel("has a segment that is writable and executable"));
        }
        let file = self.content(header).ok_or(CUT_OFF)?;
        Ok(Some(Segment { span: Span { start, end }, file, write, execute }))
    }

    /// Whether a dynamic section asks for relocations, or cannot be read.
    fn need_relocations(&self) -> bool {
        let mut dynamic = self.table.iter().filter(|header| u32_at(*header, 0) == Some(PT_DYNAMIC));
        dynamic.any(|header| self.content(header).is_none_or(asks_for_relocations))
    }
}

/// Whether a dynamic section names a relocation table that is not empty.
fn asks_for_relocations(section: &[u8]) -> bool {
    section
        .chunks_exact(16)
        .map_while(|entry| u64_at(entry, 0).zip(u64_at(entry, 8)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .any(|(tag, size)| RELOCATION_SIZES.contains(&tag) && size != 0)
}

#[cfg(test)]
#[path = "tests/elf.rs"]
pub(crate) mod tests;
