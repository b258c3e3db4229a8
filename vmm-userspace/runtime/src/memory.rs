//! Memory that is more than Rust objects: pages for guests, guest memory, channels.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::cap::MemRights;
use abi::hip::LogRing;
use abi::layout::PAGE_SIZE;
use protocol::console::{ConsoleChannel, LogChannel};
use protocol::startup::Area;

/// A page of bytes, at an address of its own.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE_SIZE as usize]);

/// Whole pages of this task's memory that others may see or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    base: u64,
    len: u64,
    rights: MemRights,
}

impl Region {
    /// Pages that nobody ever writes.
    #[must_use]
    pub fn constant(pages: &'static [Page]) -> Self {
        let (base, len) = (pages.as_ptr() as u64, size_of_val(pages) as u64);
        Self { base, len, rights: MemRights::RX }
    }

    /// Memory from `base` on, `len` bytes, both multiples of the page size.
    ///
    /// # Safety
    /// Others may access that memory with these rights at any time, for ever: no Rust reference
    /// may exist to what they can write.
    #[must_use]
    pub const unsafe fn new(base: u64, len: u64, rights: MemRights) -> Self {
        Self { base, len, rights }
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn base(self) -> u64 {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// What others may do with it.
    #[must_use]
    pub const fn rights(self) -> MemRights {
        self.rights
    }
}

impl From<&'static Page> for Region {
    fn from(page: &'static Page) -> Self {
        Self::constant(core::slice::from_ref(page))
    }
}

/// An access beyond the end of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// The memory that the root task set aside for this task's guest. The guest may change it at any
/// time, so there are no references into it: bytes are copied in and out.
#[derive(Clone, Copy, Debug)]
pub struct GuestMemory {
    base: u64,
    len: u64,
}

macro_rules! word {
    ($load:ident, $store:ident, $type:ty, $class:ident, $mov:literal, $value:literal, $name:literal) => {
        #[doc = concat!("Loads ", $name, " in one access, at any alignment.")]
        ///
        /// # Errors
        /// [`OutOfRange`] if not all of it lies in guest memory.
        #[inline]
        pub fn $load(self, offset: u64) -> Result<$type, OutOfRange> {
            let address = self.check(offset, size_of::<$type>() as u64)?;
            let value;
            // SAFETY: in range; to the compiler this is an opaque operation on foreign memory.
            unsafe {
                asm!(
                    concat!("mov {value", $value, "}, ", $mov, " ptr [{address}]"),
                    value = out($class) value,
                    address = in(reg) address,
                    options(nostack, preserves_flags, readonly),
                );
            }
            Ok(value)
        }

        #[doc = concat!("Stores ", $name, " in one access, at any alignment.")]
        ///
        /// # Errors
        /// [`OutOfRange`] if not all of it lies in guest memory; nothing is stored then.
        #[inline]
        pub fn $store(self, offset: u64, value: $type) -> Result<(), OutOfRange> {
            let address = self.check(offset, size_of::<$type>() as u64)?;
            // SAFETY: in range; to the compiler this is an opaque operation on foreign memory.
            unsafe {
                asm!(
                    concat!("mov ", $mov, " ptr [{address}], {value", $value, "}"),
                    value = in($class) value,
                    address = in(reg) address,
                    options(nostack, preserves_flags),
                );
            }
            Ok(())
        }
    };
}

impl GuestMemory {
    /// Guest memory in that area of this task's memory.
    ///
    /// # Safety
    /// The area must be mapped for reading and writing and used for nothing else.
    #[must_use]
    pub const unsafe fn new(area: Area) -> Self {
        Self { base: area.base, len: area.len }
    }

    /// Bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    #[inline]
    const fn check(self, offset: u64, len: u64) -> Result<u64, OutOfRange> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.base + offset),
            _ => Err(OutOfRange),
        }
    }

    /// The part of it from `offset` on, to be granted to a guest space.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory, or it is not whole pages.
    pub fn region(self, offset: u64, len: u64) -> Result<Region, OutOfRange> {
        let base = self.check(offset, len)?;
        if !base.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(OutOfRange);
        }
        Ok(Region { base, len, rights: MemRights::RWX })
    }

    /// Copies out.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory; nothing is copied then.
    pub fn read(self, offset: u64, buffer: &mut [u8]) -> Result<(), OutOfRange> {
        let address = self.check(offset, buffer.len() as u64)?;
        // SAFETY: in range, and the buffer is not in guest memory, where no reference exists.
        unsafe { copy(address, buffer.as_mut_ptr() as u64, buffer.len()) };
        Ok(())
    }

    /// Copies in.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory; nothing is copied then.
    pub fn write(self, offset: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let address = self.check(offset, bytes.len() as u64)?;
        // SAFETY: in range, and the bytes are not in guest memory, where no reference exists.
        unsafe { copy(bytes.as_ptr() as u64, address, bytes.len()) };
        Ok(())
    }

    /// Sets all bytes of a range.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory; nothing is changed then.
    pub fn fill(self, offset: u64, len: u64, byte: u8) -> Result<(), OutOfRange> {
        let address = self.check(offset, len)?;
        // SAFETY: in range; an opaque operation on foreign memory.
        unsafe {
            asm!(
                "rep stosb",
                inout("rdi") address => _,
                inout("rcx") len => _,
                in("al") byte,
                options(nostack, preserves_flags),
            );
        }
        Ok(())
    }

    word!(load_u8, store_u8, u8, reg_byte, "byte", "", "a byte");
    word!(load_u16, store_u16, u16, reg, "word", ":x", "two bytes");
    word!(load_u32, store_u32, u32, reg, "dword", ":e", "four bytes");
    word!(load_u64, store_u64, u64, reg, "qword", ":r", "eight bytes");

    /// Replaces the four bytes at `offset`, a multiple of four, if they are `current`; says
    /// whether they were.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory, or it is not aligned.
    pub fn compare_exchange_u32(
        self,
        offset: u64,
        current: u32,
        new: u32,
    ) -> Result<bool, OutOfRange> {
        let address = self.check(offset, 4)?;
        if !address.is_multiple_of(4) {
            return Err(OutOfRange);
        }
        // SAFETY: in range and aligned; foreign memory that is accessed atomically here.
        let word = unsafe { AtomicU32::from_ptr(address as *mut u32) };
        Ok(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// Replaces the eight bytes at `offset`, a multiple of eight, if they are `current`; says
    /// whether they were.
    ///
    /// # Errors
    /// [`OutOfRange`] if not all of it lies in guest memory, or it is not aligned.
    pub fn compare_exchange_u64(
        self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<bool, OutOfRange> {
        let address = self.check(offset, 8)?;
        if !address.is_multiple_of(8) {
            return Err(OutOfRange);
        }
        // SAFETY: in range and aligned; foreign memory that is accessed atomically here.
        let word = unsafe { AtomicU64::from_ptr(address as *mut u64) };
        Ok(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }
}

/// Copies memory of which one side belongs to somebody else.
///
/// # Safety
/// Both ranges must be mapped, the destination for writing, and this task's side must be its to
/// read or write.
unsafe fn copy(from: u64, to: u64, len: usize) {
    // SAFETY: vouched for by the caller; opaque to the compiler, so that foreign changes to the
    // other side are no data race in its eyes.
    unsafe {
        asm!(
            "rep movsb",
            inout("rsi") from => _,
            inout("rdi") to => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
}

/// What may lie in memory shared with others.
///
/// # Safety
/// The type must consist of atomics alone.
pub unsafe trait Shared {}

// SAFETY: rings are atomics.
unsafe impl Shared for ConsoleChannel {}
// SAFETY: rings are atomics.
unsafe impl Shared for LogChannel {}
// SAFETY: all of it is atomics but a word that is never touched.
unsafe impl Shared for LogRing {}

/// What lies in a shared area, if the area is large enough for it.
///
/// # Safety
/// The area must be mapped for reading and, unless the type is only read, for writing, for ever.
#[must_use]
pub unsafe fn shared<T: Shared>(area: Area) -> Option<&'static T> {
    let fits =
        area.len >= size_of::<T>() as u64 && area.base.is_multiple_of(align_of::<T>() as u64);
    // SAFETY: large enough, aligned, mapped, and valid for every content.
    fits.then(|| unsafe { &*(area.base as *const T) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest_memory(bytes: &mut [Page]) -> GuestMemory {
        let area = Area { base: bytes.as_mut_ptr() as u64, len: size_of_val(bytes) as u64 };
        // SAFETY: the tests use the bytes through this handle only.
        unsafe { GuestMemory::new(area) }
    }

    #[test]
    fn accesses_end_at_the_end() {
        let mut pages = vec![Page([0; 4096]); 2];
        let memory = guest_memory(&mut pages);
        assert_eq!(memory.store_u64(8184, 0x1122_3344_5566_7788), Ok(()));
        assert_eq!(memory.load_u32(8188), Ok(0x1122_3344));
        assert_eq!(memory.load_u16(8190), Ok(0x1122));
        assert_eq!(memory.load_u8(8191), Ok(0x11));
        assert_eq!(memory.load_u64(8185), Err(OutOfRange));
        assert_eq!(memory.load_u8(8192), Err(OutOfRange));
        assert_eq!(memory.store_u32(u64::MAX - 1, 0), Err(OutOfRange));
        assert_eq!(memory.write(8190, b"abc"), Err(OutOfRange));
        assert_eq!(memory.load_u16(8190), Ok(0x1122));
        assert_eq!(memory.region(4096, 8192), Err(OutOfRange));
        assert_eq!(memory.region(1, 4096), Err(OutOfRange));
        assert_eq!(memory.region(4096, 4096).map(Region::len), Ok(4096));
    }

    #[test]
    fn bytes_go_in_and_out() {
        let mut pages = vec![Page([0; 4096]); 1];
        let memory = guest_memory(&mut pages);
        assert_eq!(memory.fill(10, 4, 0xaa), Ok(()));
        assert_eq!(memory.write(12, b"guest"), Ok(()));
        let mut buffer = [0; 8];
        assert_eq!(memory.read(9, &mut buffer), Ok(()));
        assert_eq!(&buffer, b"\0\xaa\xaaguest");
        assert_eq!(memory.load_u32(13), Ok(u32::from_le_bytes(*b"uest")));
    }

    #[test]
    fn exchanges_happen_only_if_the_value_is_as_expected() {
        let mut pages = vec![Page([0; 4096]); 1];
        let memory = guest_memory(&mut pages);
        assert_eq!(memory.compare_exchange_u64(8, 0, 7), Ok(true));
        assert_eq!(memory.compare_exchange_u64(8, 0, 9), Ok(false));
        assert_eq!(memory.load_u64(8), Ok(7));
        assert_eq!(memory.compare_exchange_u32(8, 7, 5), Ok(true));
        assert_eq!(memory.compare_exchange_u32(6, 0, 5), Err(OutOfRange));
        assert_eq!(memory.compare_exchange_u64(4096, 0, 5), Err(OutOfRange));
    }
}
