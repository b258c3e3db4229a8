//! Permission bitmaps in the processor's own format: a set bit means "no".
//!
//! | | VT-x | AMD-V |
//! |---|---|---|
//! | ports | 2 pages (SDM 3C 25.6.4) | 3 pages; bits behind port 0xffff are for accesses that run over it (APM 2 15.10.1) |
//! | MSRs | 1 page: two bitmaps for reading, two for writing (SDM 3C 25.6.9) | 2 pages: two bits a register (APM 2 15.11) |
//!
//! The maps are contiguous. Ports have the same order everywhere, which is also that of the task state.

use abi::hypercall::Status;
use spin::Once;

use super::vendor::{Vendor, vendor};
use crate::mem::{PAGE, pool, virt};
use crate::object::pd::Account;

/// I/O permissions, one bit a port.
pub struct PortBitmap {
    /// Physical address of the map.
    pub base: u64,
}

/// MSR permissions.
pub struct MsrBitmap {
    /// Physical address of the map.
    pub base: u64,
}

/// Pages of a port map, as a power of two.
fn port_order() -> u32 {
    match vendor() {
        Vendor::Vmx => 1,
        Vendor::Svm => 2,
    }
}

/// Pages of an MSR map, as a power of two.
fn msr_order() -> u32 {
    match vendor() {
        Vendor::Vmx => 0,
        Vendor::Svm => 1,
    }
}

/// Makes a fresh block all ones.
fn fill(block: u64, order: u32) -> u64 {
    // SAFETY: the caller has just taken the block, and it has that many pages.
    unsafe { virt(block).write_bytes(0xff, PAGE << order) };
    block
}

/// A map of ones.
fn new_map(account: &Account, order: u32) -> Result<u64, Status> {
    Ok(fill(account.take_block(order).ok_or(Status::Quota)?, order))
}

/// The byte with bit number `index` of a map, which is inside it, and the bit in the byte.
const fn bit(base: u64, index: u32) -> (*mut u8, u8) {
    (virt(base + (index / 8) as u64), 1 << (index % 8))
}

fn is_set(base: u64, index: u32) -> bool {
    let (byte, mask) = bit(base, index);
    // SAFETY: the byte belongs to a live map.
    unsafe { byte.read_volatile() & mask != 0 }
}

fn set(base: u64, index: u32, value: bool) {
    let (byte, mask) = bit(base, index);
    // SAFETY: as above; the processor only reads it.
    unsafe {
        let old = byte.read_volatile();
        byte.write_volatile(if value { old | mask } else { old & !mask });
    }
}

impl PortBitmap {
    /// No ports.
    pub fn new(account: &Account) -> Result<Self, Status> {
        Ok(Self { base: new_map(account, port_order())? })
    }

    /// Gives the pages back.
    pub fn free(self, account: &Account) {
        // SAFETY: nothing uses the bitmap any more.
        unsafe { account.give_block(self.base, port_order()) };
    }

    /// Whether the port is allowed.
    pub fn allows(&self, port: u16) -> bool {
        !is_set(self.base, port.into())
    }

    /// Allows the port or not.
    pub fn allow(&self, port: u16, yes: bool) {
        set(self.base, port.into(), !yes);
    }
}

impl MsrBitmap {
    /// No registers.
    pub fn new(account: &Account) -> Result<Self, Status> {
        Ok(Self { base: new_map(account, msr_order())? })
    }

    /// Gives the pages back.
    pub fn free(self, account: &Account) {
        // SAFETY: nothing uses the bitmap any more.
        unsafe { account.give_block(self.base, msr_order()) };
    }

    /// The bits for reading and for writing a register. Every access to a register that has none exits.
    fn bits(register: u32) -> Option<[u32; 2]> {
        let vendor = vendor();
        let (range, first) = match register {
            0..=0x1fff => (0, 0),
            0xc000_0000..=0xc000_1fff => (1, 0xc000_0000),
            0xc001_0000..=0xc001_1fff if vendor == Vendor::Svm => (2, 0xc001_0000),
            _ => return None,
        };
        let index = range * 0x2000 + (register - first);
        Some(match vendor {
            // 1 KiB for each range; the bitmaps for writing are 2 KiB behind those for reading.
            Vendor::Vmx => [index, index + 0x4000],
            // 2 KiB for each range.
            Vendor::Svm => [index * 2, index * 2 + 1],
        })
    }

    /// Whether the register is allowed.
    pub fn allows(&self, register: u32) -> bool {
        Self::bits(register).is_some_and(|[read, _write]| !is_set(self.base, read))
    }

    /// Allows the register or not, for reading and writing.
    pub fn allow(&self, register: u32, yes: bool) {
        for bit in Self::bits(register).into_iter().flatten() {
            set(self.base, bit, !yes);
        }
    }
}

/// Physical addresses of a port map and an MSR map that allow nothing.
static DENY_ALL: Once<(u64, u64)> = Once::new();

/// Makes the maps of [`deny_all`], if nobody has yet. Returns whether there was memory for them.
pub fn init() -> bool {
    let make = || -> Result<_, ()> {
        let io = pool::alloc_block(port_order()).ok_or(())?;
        let msr = pool::alloc_block(msr_order()).ok_or(())?;
        Ok((fill(io, port_order()), fill(msr, msr_order())))
    };
    DENY_ALL.try_call_once(make).is_ok()
}

/// Physical addresses of a port map and an MSR map that allow nothing, for virtual CPUs that have none of their own: AMD-V
/// reads them wherever they are, VT-x can do without.
pub fn deny_all() -> (u64, u64) {
    /// Beyond what any processor can address: VMRUN refuses it (APM 2 15.5.1).
    const NOWHERE: u64 = !0xfff;
    DENY_ALL.get().copied().unwrap_or((NOWHERE, NOWHERE))
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
