//! A task's program: the flat file that the image builder makes of an executable. The kernel loads
//! the root task from it, and the root task all others.
//!
//! ```text
//! 0    "FERPROG1"  entry:u64  count:u64        little-endian
//! 24   count x { address:u64, size:u64, offset:u64, length:u64, rights:u64 }
//! ...  the contents, wherever the table says
//! ```
//!
//! | field | meaning | rule |
//! |---|---|---|
//! | `entry` | address of the first instruction | in a segment that can be executed |
//! | `count` | number of segments | at most [`MAX_SEGMENTS`] |
//! | `address` | where the segment goes | a multiple of 4096, not below the end of the one before |
//! | `size` | its bytes in memory | a multiple of 4096, not 0; ends at or below [`crate::layout::USER_TOP`] |
//! | `offset` | where its content starts, in bytes from the start of the file | |
//! | `length` | bytes of content; what is missing to `size` is zeros | at most `size`, and within the file |
//! | `rights` | how its pages are mapped: the bits of [`crate::cap::MemRights`] | `R`, `RW` or `RX` |

use crate::bundle::word;
use crate::cap::MemRights;
use crate::layout::{PAGE_SIZE, USER_TOP};

/// First eight bytes.
pub const MAGIC: [u8; 8] = *b"FERPROG1";
/// The most segments of a program.
pub const MAX_SEGMENTS: usize = 16;

const HEADER: usize = 24;
const SEGMENT: usize = 40;

/// A checked view of a program in memory.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    bytes: &'a [u8],
    table: &'a [[u8; SEGMENT]],
    entry: u64,
}

/// A part of a program: whole pages with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it goes; a multiple of 4096.
    pub address: u64,
    /// Its size in memory, in bytes; a multiple of 4096, and at least that of `content`.
    pub size: u64,
    /// Its start; the rest is zeros.
    pub content: &'a [u8],
    /// How its pages are mapped; never writable and executable.
    pub rights: MemRights,
}

/// Why a program cannot be loaded. Numbers are those of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// It does not start with [`MAGIC`].
    BadMagic,
    /// The table reaches beyond the end.
    Truncated,
    /// There are more than [`MAX_SEGMENTS`].
    TooMany,
    /// The segment is not made of whole pages.
    BadPages(usize),
    /// The segment does not end below [`crate::layout::USER_TOP`].
    BadAddress(usize),
    /// The segment begins before the end of the one before it.
    Overlap(usize),
    /// The segment's rights are none of `R`, `RW` and `RX`.
    BadRights(usize),
    /// The segment has more content than memory.
    BadLength(usize),
    /// The segment's content reaches beyond the end.
    BadContent(usize),
    /// The entry point is in no executable segment.
    BadEntry,
}

impl<'a> Program<'a> {
    /// Checks the whole file.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; after success every segment can be used as it is.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ProgramError> {
        if bytes.first_chunk() != Some(&MAGIC) {
            return Err(ProgramError::BadMagic);
        }
        let entry = word(bytes, 8).ok_or(ProgramError::Truncated)?;
        let count = word(bytes, 16).ok_or(ProgramError::Truncated)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MAX_SEGMENTS {
            return Err(ProgramError::TooMany);
        }
        let (table, _) = bytes.get(HEADER..).unwrap_or_default().as_chunks();
        let table = table.get(..count).ok_or(ProgramError::Truncated)?;
        let program = Self { bytes, table, entry };
        let (mut free, mut entered) = (0, false);
        for (index, raw) in table.iter().enumerate() {
            let segment = program.segment(index, raw)?;
            if segment.address < free {
                return Err(ProgramError::Overlap(index));
            }
            free = segment.address.saturating_add(segment.size);
            entered |= segment.rights == MemRights::RX && (segment.address..free).contains(&entry);
        }
        if entered { Ok(program) } else { Err(ProgramError::BadEntry) }
    }

    fn segment(&self, index: usize, raw: &[u8]) -> Result<Segment<'a>, ProgramError> {
        let field = |at| word(raw, at).ok_or(ProgramError::Truncated);
        let (address, size, rights) = (field(0)?, field(8)?, field(32)?);
        if !address.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) || size == 0 {
            return Err(ProgramError::BadPages(index));
        }
        if address.checked_add(size).is_none_or(|end| end > USER_TOP) {
            return Err(ProgramError::BadAddress(index));
        }
        let rights = [MemRights::R, MemRights::RW, MemRights::RX]
            .into_iter()
            .find(|known| u64::from(known.0) == rights)
            .ok_or(ProgramError::BadRights(index))?;
        let (offset, length) = (field(16)?, field(24)?);
        if length > size {
            return Err(ProgramError::BadLength(index));
        }
        let content = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        let content = content
            .and_then(|(offset, length)| self.bytes.get(offset..offset.checked_add(length)?))
            .ok_or(ProgramError::BadContent(index))?;
        Ok(Segment { address, size, content, rights })
    }

    /// The address of the first instruction.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The segments, by ascending address; no two share a page.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let this = *self;
        let table = this.table.iter().enumerate();
        table.filter_map(move |(index, raw)| this.segment(index, raw).ok())
    }
}
