//! Guest memory.

use machine::memory::{MemoryMap, NotRam};
use runtime::Status;
use runtime::abi::cap::MemRights;
use runtime::memory::GuestMemory;
use runtime::space::GuestSpace;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// The RAM of a virtual machine: the memory that the root task set aside, seen at the guest's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    map: MemoryMap,
    memory: GuestMemory,
}

impl Ram {
    /// Lays the memory out.
    #[must_use]
    pub const fn new(memory: GuestMemory) -> Self {
        Self { map: MemoryMap::new(memory.len()), memory }
    }

    /// Where it lies for the guest.
    #[must_use]
    pub const fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// A guest space with this memory in it.
    ///
    /// # Errors
    /// [`Status::Quota`] when the task has too little kernel memory for the page tables.
    pub fn share(&self) -> Result<GuestSpace, Status> {
        let space = GuestSpace::create(runtime::pd::Pd::OWN)?;
        for range in self.map.ranges() {
            if let Some(offset) = self.map.offset(range.start).filter(|_| !range.is_empty()) {
                let region = self.memory.region(offset, range.end - range.start);
                space.grant(region.map_err(|_| Status::BadParam)?, range.start, MemRights::RWX)?;
            }
        }
        Ok(space)
    }

    /// Calls `act` with the offset and the range of the buffer of each piece that does not cross a page.
    fn pieces(
        &self,
        gpa: u64,
        len: usize,
        mut act: impl FnMut(u64, core::ops::Range<usize>) -> bool,
    ) -> Result<(), NotRam> {
        let mut done = 0;
        while done < len {
            let at = gpa.wrapping_add(done as u64);
            let room = usize::try_from(PAGE - at % PAGE).unwrap_or(usize::MAX);
            let end = done + room.min(len - done);
            let offset = self.map.offset(at).ok_or(NotRam(at))?;
            if !act(offset, done..end) {
                return Err(NotRam(at));
            }
            done = end;
        }
        Ok(())
    }
}

impl machine::memory::GuestMemory for Ram {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), NotRam> {
        let len = bytes.len();
        self.pieces(gpa, len, |offset, range| {
            bytes.get_mut(range).is_some_and(|piece| self.memory.read(offset, piece).is_ok())
        })
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), NotRam> {
        self.pieces(gpa, bytes.len(), |offset, range| {
            bytes.get(range).is_some_and(|piece| self.memory.write(offset, piece).is_ok())
        })
    }

    #[inline]
    fn load(&self, gpa: u64, size: u8) -> Option<u64> {
        let offset = self.map.offset(gpa)?;
        match size {
            1 => self.memory.load_u8(offset).ok().map(u64::from),
            2 => self.memory.load_u16(offset).ok().map(u64::from),
            4 => self.memory.load_u32(offset).ok().map(u64::from),
            _ => self.memory.load_u64(offset).ok(),
        }
    }

    #[inline]
    fn store(&mut self, gpa: u64, size: u8, value: u64) -> bool {
        let Some(offset) = self.map.offset(gpa) else { return false };
        match size {
            1 => self.memory.store_u8(offset, value as u8),
            2 => self.memory.store_u16(offset, value as u16),
            4 => self.memory.store_u32(offset, value as u32),
            _ => self.memory.store_u64(offset, value),
        }
        .is_ok()
    }
}
