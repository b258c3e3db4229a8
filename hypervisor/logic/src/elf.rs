//! Program headers of 64-bit ELF files (System V ABI, chapter 5; x86-64 psABI 4.1).
//!
//! The loader reads the kernel with this, the kernel the root task, and the root task all others.

use core::ops::Range;

/// A checked view of an executable.
#[derive(Clone, Copy, Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    entry: u64,
    relocatable: bool,
    table: usize,
    entries: usize,
    first: u64,
    end: u64,
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it goes; not necessarily page-aligned.
    pub vaddr: u64,
    /// Its size in memory, at least that of `file`; the rest is zeros.
    pub memsz: u64,
    /// Its start, from the file.
    pub file: &'a [u8],
    /// Whether it can be written.
    pub write: bool,
    /// Whether it can be executed. Never both.
    pub execute: bool,
}

/// Why a file cannot be loaded. Numbers are those of program headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// Not a little-endian 64-bit ELF file for x86-64.
    NotElf,
    /// Neither an executable nor a position-independent one.
    NotExecutable,
    /// A table or a segment reaches beyond the end of the file.
    Truncated,
    /// The segment is smaller in memory than in the file.
    BadSize(usize),
    /// The segment does not lie where the file may go.
    BadAddress(usize),
    /// The segment is both writable and executable.
    WriteExecute(usize),
    /// The segment lies before the end of the one before it, or shares a page with it.
    Overlap(usize),
    /// The entry point is in no executable segment.
    BadEntry,
}

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
/// Ring 3 has the lower half.
const LOWER_HALF: Range<u64> = 0..1 << 47;

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

impl<'a> Elf<'a> {
    /// Checks the whole file of a task; afterwards every segment can be used as it is.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        Self::parse_within(bytes, LOWER_HALF)
    }

    /// The same for a file whose segments have to lie within `addresses`, which end with a page.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn parse_within(bytes: &'a [u8], addresses: Range<u64>) -> Result<Self, ElfError> {
        // Magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT.
        if bytes.get(..7) != Some(b"\x7fELF\x02\x01\x01") || bytes.len() < HEADER {
            return Err(ElfError::NotElf);
        }
        if u16_at(bytes, 18) != Some(EM_X86_64) {
            return Err(ElfError::NotElf);
        }
        let relocatable = match u16_at(bytes, 16) {
            Some(ET_EXEC) => false,
            Some(ET_DYN) => true,
            _ => return Err(ElfError::NotExecutable),
        };
        if u16_at(bytes, 54).map(usize::from) != Some(PROGRAM_HEADER) {
            return Err(ElfError::NotElf);
        }
        let entry = u64_at(bytes, 24).ok_or(ElfError::Truncated)?;
        let table = usize_at(bytes, 32).ok_or(ElfError::Truncated)?;
        let entries = u16_at(bytes, 56).map(usize::from).ok_or(ElfError::Truncated)?;
        let (first, end) = (addresses.start, addresses.end);
        let elf = Self { bytes, entry, relocatable, table, entries, first, end };
        elf.check()?;
        Ok(elf)
    }

    fn check(&self) -> Result<(), ElfError> {
        let mut free = 0;
        let mut entered = false;
        for index in 0..self.entries {
            let Some(segment) = self.segment(index)? else { continue };
            if segment.vaddr < free {
                return Err(ElfError::Overlap(index));
            }
            let end = segment.vaddr.saturating_add(segment.memsz);
            free = end.saturating_add(0xfff) & !0xfff;
            entered |= segment.execute && (segment.vaddr..end).contains(&self.entry);
        }
        if entered { Ok(()) } else { Err(ElfError::BadEntry) }
    }

    fn header(&self, index: usize) -> Option<&'a [u8]> {
        let start = index.checked_mul(PROGRAM_HEADER)?.checked_add(self.table)?;
        self.bytes.get(start..start.checked_add(PROGRAM_HEADER)?)
    }

    /// The part of the file that a program header names.
    fn content(&self, header: &[u8]) -> Option<&'a [u8]> {
        let (start, length) = (usize_at(header, 8)?, usize_at(header, 32)?);
        self.bytes.get(start..start.checked_add(length)?)
    }

    /// The segment of a program header, if that loads anything.
    fn segment(&self, index: usize) -> Result<Option<Segment<'a>>, ElfError> {
        let header = self.header(index).ok_or(ElfError::Truncated)?;
        let word = |at| u64_at(header, at).ok_or(ElfError::Truncated);
        let (vaddr, filesz, memsz) = (word(16)?, word(32)?, word(40)?);
        if u32_at(header, 0) != Some(PT_LOAD) || memsz == 0 {
            return Ok(None);
        }
        if filesz > memsz {
            return Err(ElfError::BadSize(index));
        }
        if vaddr < self.first || vaddr.checked_add(memsz).is_none_or(|end| end > self.end) {
            return Err(ElfError::BadAddress(index));
        }
        let flags = u32_at(header, 4).ok_or(ElfError::Truncated)?;
        let (write, execute) = (flags & PF_W != 0, flags & PF_X != 0);
        if write && execute {
            return Err(ElfError::WriteExecute(index));
        }
        let file = self.content(header).ok_or(ElfError::Truncated)?;
        Ok(Some(Segment { vaddr, memsz, file, write, execute }))
    }

    /// Whether a dynamic section asks for relocations, or cannot be read.
    #[must_use]
    pub fn needs_relocations(&self) -> bool {
        let dynamic = (0..self.entries)
            .filter_map(|index| self.header(index))
            .filter(|header| u32_at(header, 0) == Some(PT_DYNAMIC));
        dynamic.into_iter().any(|header| self.content(header).is_none_or(asks_for_relocations))
    }

    /// The address of the first instruction.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// Whether the file can be loaded at another address, with all of its addresses counting from
    /// there.
    #[must_use]
    pub const fn relocatable(&self) -> bool {
        self.relocatable
    }

    /// The segments, by ascending address; no two share a page.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let elf = *self;
        (0..elf.entries).filter_map(move |index| elf.segment(index).ok().flatten())
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
