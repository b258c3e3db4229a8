//! Physical memory through the loader's identity mapping of the low 4 GiB.

use boot::error::Error;
use boot::memory::PhysicalMemory;
use boot::paging::TableMemory;
use boot::span::{PAGE, Span};

/// One past the last identity-mapped address.
const END: u64 = 4 << 30;

/// Memory that firmware and the boot loader before us filled.
pub struct IdentityMap;

impl PhysicalMemory for IdentityMap {
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
        if address == 0 || address.checked_add(length)? > END {
            return None;
        }
        // SAFETY: the range is mapped and not null, and any bytes are valid. The loader writes
        // only to its own image and to its arena, which lies outside of every module and of the
        // boot information; the structures of PVH are no longer read once the arena is chosen.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length as usize) })
    }
}

/// Page tables in the arena.
pub struct ArenaTables {
    next: u64,
    room: Span,
}

impl ArenaTables {
    /// Tables in `room`.
    ///
    /// # Safety
    /// `room` is page aligned, identity mapped, zero, and used by nothing else.
    pub unsafe fn new(room: Span) -> Self {
        Self { next: room.start, room }
    }

    /// One past the last table made.
    pub fn end(&self) -> u64 {
        self.next
    }

    fn slot(&self, table: u64, index: usize) -> *mut u64 {
        assert!(self.room.contains(Span::new(table, PAGE)) && index < 512);
        (table as *mut u64).wrapping_add(index)
    }
}

impl TableMemory for ArenaTables {
    fn allocate(&mut self) -> Result<u64, Error> {
        let table = Span::new(self.next, PAGE);
        if !self.room.contains(table) {
            return Err(Error::OutOfMemory { bytes: PAGE });
        }
        self.next = table.end;
        Ok(table.start)
    }

    fn entry(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `slot` checked that it lies in the room, which is ours by the promise to `new`.
        unsafe { self.slot(table, index).read() }
    }

    fn set_entry(&mut self, table: u64, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.slot(table, index).write(value) }
    }
}
