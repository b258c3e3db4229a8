//! Permission bitmaps in the processor's own format: a set bit means "no".
//!
//! | | VT-x | AMD-V |
//! |---|---|---|
//! | ports | 2 pages (SDM 3C 25.6.4) | 3 pages; bits behind port 0xffff are for accesses that run over it (APM 2 15.10.1) |
//! | MSRs | 1 page: two bitmaps for reading, two for writing (SDM 3C 25.6.9) | 2 pages: two bits a register (APM 2 15.11) |
//!
//! The maps are contiguous. Ports have the same order everywhere, which is also that of the task state.

use core::ops::RangeInclusive;

use abi::hypercall::Status;
use spin::Once;

use super::vendor::{Vendor, vendor};
use crate::mem::{PAGE, pool, virt};
use crate::object::pd::Account;

/// What a map is about.
#[derive(Clone, Copy)]
pub enum Kind {
    /// I/O ports, by number.
    Port,
    /// Model-specific registers, by index.
    Msr,
}

/// Permissions for what a guest, or with ports a task, may use without an exit.
pub struct Bitmap {
    /// Physical address of the map.
    pub base: u64,
    kind: Kind,
}

impl Kind {
    /// Pages of a map, as a power of two.
    fn order(self) -> u32 {
        let wide = u32::from(vendor() == Vendor::Svm);
        match self {
            Self::Port => 1 + wide,
            Self::Msr => wide,
        }
    }
}

/// Makes a fresh block all ones.
fn fill(block: u64, order: u32) -> u64 {
    // SAFETY: the caller has just taken the block, and it has that many pages.
    unsafe { virt(block).write_bytes(0xff, PAGE << order) };
    block
}

impl Bitmap {
    /// A map that allows nothing.
    pub fn new(kind: Kind, account: &Account) -> Result<Self, Status> {
        let order = kind.order();
        Ok(Self { base: fill(account.take_block(order).ok_or(Status::Quota)?, order), kind })
    }

    /// Gives the pages back.
    pub fn free(self, account: &Account) {
        // SAFETY: nothing uses the map any more.
        unsafe { account.give_block(self.base, self.kind.order()) };
    }

    /// The bits for reading and for writing; of a port they are the same. Every access to something that has none exits.
    fn bits(&self, number: u64) -> Option<[u32; 2]> {
        let number = u32::try_from(number).ok()?;
        match self.kind {
            Kind::Port => return u16::try_from(number).ok().map(|port| [port.into(); 2]),
            Kind::Msr if !GUEST_MSRS.iter().any(|range| range.contains(&number)) => return None,
            Kind::Msr => {}
        }
        // Ranges have 0x2000 registers; the first one begins at 0, the second at 0xc000_0000.
        let index = number >> 31 << 13 | number & 0x1fff;
        Some(match vendor() {
            // 1 KiB for each range; the bitmaps for writing are 2 KiB behind those for reading.
            Vendor::Vmx => [index, index + 0x4000],
            // 2 KiB for each range.
            Vendor::Svm => [index * 2, index * 2 + 1],
        })
    }

    /// The byte with a bit, which is inside the map, and the bit in the byte.
    const fn byte(&self, index: u32) -> (*mut u8, u8) {
        (virt(self.base + (index / 8) as u64), 1 << (index % 8))
    }

    /// Whether it is allowed.
    pub fn allows(&self, number: u64) -> bool {
        self.bits(number).is_some_and(|[read, _write]| {
            let (byte, mask) = self.byte(read);
            // SAFETY: the byte belongs to a live map.
            unsafe { byte.read_volatile() & mask == 0 }
        })
    }

    /// Allows it or not, for reading and writing.
    pub fn allow(&self, number: u64, yes: bool) {
        for bit in self.bits(number).into_iter().flatten() {
            let (byte, mask) = self.byte(bit);
            // SAFETY: as above; the processor only reads it.
            unsafe {
                let old = byte.read_volatile();
                byte.write_volatile(if yes { old & !mask } else { old | mask });
            }
        }
    }
}

/// Physical addresses of a port map and an MSR map that allow nothing.
static DENY_ALL: Once<(u64, u64)> = Once::new();

/// Makes the maps of [`deny_all`], if nobody has yet. Returns whether there was memory for them.
pub fn init() -> bool {
    let make = || -> Result<_, ()> {
        let fresh = |order| pool::alloc_block(order).map(|block| fill(block, order)).ok_or(());
        Ok((fresh(Kind::Port.order())?, fresh(Kind::Msr.order())?))
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

/// The registers that a guest may ever be given: those that the kernel keeps for each virtual CPU. They are in the first two
/// ranges of both formats.
pub const GUEST_MSRS: [RangeInclusive<u32>; 3] =
    [0x174..=0x176, 0xc000_0081..=0xc000_0084, 0xc000_0100..=0xc000_0102];
