//! Four-level page tables (SDM 3A 4.5), filled through an interface that a test can implement.

use x86_64::structures::paging::PageTableFlags;

use crate::error::Error;
use crate::span::PAGE;

/// Memory that page tables are made in.
pub trait TableMemory {
    /// Physical address of a fresh table, all entries zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when none is left.
    fn allocate(&mut self) -> Result<u64, Error>;

    /// Entry `index` (below 512) of the table at physical address `table`.
    fn entry(&self, table: u64, index: usize) -> u64;

    /// Replaces entry `index` (below 512) of the table at physical address `table`.
    fn set_entry(&mut self, table: u64, index: usize, value: u64);
}

/// What may be done with a page besides reading it; there is no writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Read,
    /// Writing.
    ReadWrite,
    /// Executing.
    ReadExecute,
}

impl Access {
    const fn flags(self) -> PageTableFlags {
        let present = PageTableFlags::PRESENT;
        match self {
            Self::Read => present.union(PageTableFlags::NO_EXECUTE),
            Self::ReadWrite => {
                present.union(PageTableFlags::WRITABLE).union(PageTableFlags::NO_EXECUTE)
            }
            Self::ReadExecute => present,
        }
    }
}

/// How much one entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB, by a page table.
    Base,
    /// 2 MiB, by a page directory.
    Large,
    /// 1 GiB, by a page-directory-pointer table.
    Huge,
}

impl PageSize {
    /// Bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Position of the lowest bit of the page's number in an address.
    const fn shift(self) -> u32 {
        match self {
            Self::Base => 12,
            Self::Large => 21,
            Self::Huge => 30,
        }
    }
}

/// Bits 51:12 of an entry: the address of the table or page.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// An address space being built.
pub struct AddressSpace<'a, T> {
    tables: &'a mut T,
    root: u64,
}

impl<'a, T: TableMemory> AddressSpace<'a, T> {
    /// One that maps nothing.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when there is no memory for the top table.
    pub fn new(tables: &'a mut T) -> Result<Self, Error> {
        let root = tables.allocate()?;
        Ok(Self { tables, root })
    }

    /// Physical address of the top table, as CR3 wants it.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps `length` bytes from `virtual_address` to those from `physical_address`, in pages of
    /// the given size, to which everything must be aligned.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when tables run out, [`Error::AlreadyMapped`] if a page is taken.
    pub fn map(
        &mut self,
        virtual_address: u64,
        physical_address: u64,
        length: u64,
        size: PageSize,
        access: Access,
    ) -> Result<(), Error> {
        debug_assert!((virtual_address | physical_address | length).is_multiple_of(size.bytes()));
        for offset in (0..length).step_by(size.bytes() as usize) {
            self.map_page(virtual_address + offset, physical_address + offset, size, access)?;
        }
        Ok(())
    }

    fn map_page(
        &mut self,
        virtual_address: u64,
        physical_address: u64,
        size: PageSize,
        access: Access,
    ) -> Result<(), Error> {
        let mut table = self.root;
        let mut shift = 39;
        while shift > size.shift() {
            table = self.next_table(table, index(virtual_address, shift))?;
            shift -= 9;
        }
        let index = index(virtual_address, shift);
        if self.tables.entry(table, index) != 0 {
            return Err(Error::AlreadyMapped);
        }
        let mut flags = access.flags();
        flags.set(PageTableFlags::HUGE_PAGE, size != PageSize::Base);
        self.tables.set_entry(table, index, physical_address | flags.bits());
        Ok(())
    }

    /// The table behind an entry; leaves alone decide about rights.
    fn next_table(&mut self, table: u64, index: usize) -> Result<u64, Error> {
        let entry = self.tables.entry(table, index);
        if entry & PageTableFlags::HUGE_PAGE.bits() != 0 {
            return Err(Error::AlreadyMapped);
        }
        if entry != 0 {
            return Ok(entry & ADDRESS_MASK);
        }
        let next = self.tables.allocate()?;
        debug_assert!(next.is_multiple_of(PAGE));
        let flags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);
        self.tables.set_entry(table, index, next | flags.bits());
        Ok(next)
    }
}

/// The nine address bits from `shift` up.
const fn index(address: u64, shift: u32) -> usize {
    (address >> shift) as usize & 0x1ff
}
