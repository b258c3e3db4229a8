//! Permission bitmaps in the processor's own format: a set bit means "no".

use abi::hypercall::Status;

use crate::mem::virt;
use crate::object::pd::Account;

/// I/O permissions: two pages, one bit a port (SDM 3C 25.6.4; the task state uses the same order).
pub struct PortBitmap {
    /// Physical addresses of the pages for ports 0-0x7fff and 0x8000-0xffff.
    pub pages: [u64; 2],
}

/// MSR permissions: one page with four bitmaps (SDM 3C 25.6.9).
pub struct MsrBitmap {
    /// Physical address.
    pub page: u64,
}

/// A page of ones.
fn full_page(account: &Account) -> Result<u64, Status> {
    let page = account.take_page().ok_or(Status::Quota)?;
    // SAFETY: the page is fresh and ours.
    unsafe { virt(page).write_bytes(0xff, 4096) };
    Ok(page)
}

fn bit(page: u64, index: u32) -> (*mut u8, u8) {
    let byte = (index / 8) as usize & 0xfff;
    // SAFETY: stays inside the page.
    (unsafe { virt(page).add(byte) }, 1 << (index % 8))
}

fn is_set(page: u64, index: u32) -> bool {
    let (byte, mask) = bit(page, index);
    // SAFETY: the page belongs to a live bitmap.
    unsafe { byte.read_volatile() & mask != 0 }
}

fn set(page: u64, index: u32, value: bool) {
    let (byte, mask) = bit(page, index);
    // SAFETY: as above; the processor only reads it.
    unsafe {
        let old = byte.read_volatile();
        byte.write_volatile(if value { old | mask } else { old & !mask });
    }
}

impl PortBitmap {
    /// No ports.
    pub fn new(account: &Account) -> Result<Self, Status> {
        let first = full_page(account)?;
        match full_page(account) {
            Ok(second) => Ok(Self { pages: [first, second] }),
            Err(status) => {
                // SAFETY: it was just taken.
                unsafe { account.give_page(first) };
                Err(status)
            }
        }
    }

    /// Gives the pages back.
    pub fn free(self, account: &Account) {
        for page in self.pages {
            // SAFETY: nothing uses the bitmap any more.
            unsafe { account.give_page(page) };
        }
    }

    const fn at(&self, port: u16) -> (u64, u32) {
        (self.pages[(port >> 15) as usize], port as u32 & 0x7fff)
    }

    /// Whether the port is allowed.
    pub fn allows(&self, port: u16) -> bool {
        let (page, index) = self.at(port);
        !is_set(page, index)
    }

    /// Allows the port or not.
    pub fn allow(&self, port: u16, yes: bool) {
        let (page, index) = self.at(port);
        set(page, index, !yes);
    }
}

impl MsrBitmap {
    /// No registers.
    pub fn new(account: &Account) -> Result<Self, Status> {
        Ok(Self { page: full_page(account)? })
    }

    /// Gives the page back.
    pub fn free(self, account: &Account) {
        // SAFETY: nothing uses the bitmap any more.
        unsafe { account.give_page(self.page) };
    }

    /// Bit of the read bitmap; the write bitmap is 2 KiB behind it.
    const fn index(register: u32) -> Option<u32> {
        match register {
            0..=0x1fff => Some(register),
            0xc000_0000..=0xc000_1fff => Some(register - 0xc000_0000 + 0x2000),
            _ => None,
        }
    }

    /// Whether the register is allowed.
    pub fn allows(&self, register: u32) -> bool {
        Self::index(register).is_some_and(|index| !is_set(self.page, index))
    }

    /// Allows the register or not, for reading and writing.
    pub fn allow(&self, register: u32, yes: bool) {
        if let Some(index) = Self::index(register) {
            set(self.page, index, !yes);
            set(self.page, index + 0x4000, !yes);
        }
    }
}

/// The registers that a guest may ever be given: those that the kernel keeps for each virtual CPU.
pub const GUEST_MSRS: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
];
