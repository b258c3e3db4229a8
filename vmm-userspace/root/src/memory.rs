//! Physical memory: finding, seeing and filling it.

use alloc::format;
use alloc::vec::Vec;

use abi::cap::MemRights;
use abi::hip::{Hip, RegionKind};
use abi::layout::PAGE_SIZE;
use protocol::startup::Area;
use root_task::acpi;
use root_task::frames::{Frames, Range};
use root_task::status::Failure;
use runtime::space::HostSpace;

/// Physical address `pa` is seen at `WINDOW + pa` while it is mapped here.
const WINDOW: u64 = 0x4000_0000_0000;
/// Memory below is left to the firmware, whatever it says.
const LOW: u64 = 1 << 20;

/// All memory that no task has yet.
#[derive(Debug)]
pub struct Memory {
    hip: &'static Hip,
    /// What is free.
    pub frames: Frames,
}

/// Frames that were taken to be filled: visible here, zeroed, until dropped.
#[derive(Debug)]
pub struct Fresh {
    range: Range,
}

impl Fresh {
    /// Where it is.
    pub const fn range(&self) -> Range {
        self.range
    }

    /// What is in it.
    pub const fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `Memory::fresh`, whose frames nobody else had; unmapped only by `drop`.
        unsafe {
            core::slice::from_raw_parts_mut(
                (WINDOW + self.range.base) as *mut u8,
                self.range.len as usize,
            )
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Range { base, len } = self.range;
        // A mapping that stays is no harm: the address is used for these frames only.
        // SAFETY: the slices from `bytes` are gone.
        let _ = unsafe { HostSpace::OWN.revoke(WINDOW + base, len, MemRights::RWX) };
    }
}

impl Memory {
    /// What the kernel lists as free.
    pub fn new(hip: &'static Hip) -> Self {
        let mut frames = Frames::new();
        for region in regions(hip).filter(|region| region.2 == RegionKind::Free as u64) {
            let (base, end) = (region.0.max(LOW), region.0.saturating_add(region.1));
            frames.add(Range { base, len: end.saturating_sub(base) });
        }
        Self { hip, frames }
    }

    /// Zeroed frames for `bytes`, from `pool` if that has them, else from all that is free.
    ///
    /// # Errors
    /// When there is no memory, or too little kernel memory to map it.
    pub fn fresh(&mut self, pool: &mut Frames, bytes: u64) -> Result<Fresh, Failure> {
        let range = pool
            .take(bytes, PAGE_SIZE)
            .or_else(|| self.frames.take(bytes, PAGE_SIZE))
            .ok_or_else(|| no_memory(bytes))?;
        let (va, rights) = (WINDOW + range.base, MemRights::RW);
        // SAFETY: the window has an address for every frame, and these frames are new.
        unsafe { HostSpace::OWN.grant_physical(range.base, va, range.len, rights) }
            .map_err(Failure::doing("map new memory"))?;
        let mut fresh = Fresh { range };
        fresh.bytes().fill(0);
        Ok(fresh)
    }

    /// Memory that is not to be changed, visible for ever. `None` if the kernel does not list it:
    /// it may be the kernel's own, or no memory at all.
    pub fn view(&self, pa: u64, len: usize) -> Option<&'static [u8]> {
        let end = pa.checked_add(len as u64)?;
        let mut at = pa;
        // Regions are sorted and do not overlap.
        for (base, len, _) in regions(self.hip) {
            if (base..base.saturating_add(len)).contains(&at) {
                at = base.saturating_add(len);
            }
        }
        if at < end {
            return None;
        }
        let first = pa / PAGE_SIZE * PAGE_SIZE;
        // SAFETY: the window has an address for every frame; read-only, and nobody writes there.
        unsafe {
            let bytes = end - first;
            HostSpace::OWN.grant_physical(first, WINDOW + first, bytes, MemRights::R).ok()?;
            Some(core::slice::from_raw_parts((WINDOW + pa) as *const u8, len))
        }
    }
}

impl Fresh {
    /// Keeps it visible for ever; says where.
    pub fn keep(self) -> Area {
        let Range { base, len } = self.range;
        core::mem::forget(self);
        Area { base: WINDOW + base, len }
    }
}

impl acpi::Memory for Memory {
    fn bytes(&self, pa: u64, len: usize) -> Option<Vec<u8>> {
        self.view(pa, len).map(<[u8]>::to_vec)
    }
}

/// Base, length and kind of all listed memory.
fn regions(hip: &'static Hip) -> impl Iterator<Item = (u64, u64, u64)> {
    let count = usize::try_from(hip.region_count).unwrap_or(usize::MAX);
    hip.regions.iter().take(count).map(|region| (region.base, region.len, region.kind))
}

/// The machine's memory is used up.
pub fn no_memory(bytes: u64) -> Failure {
    let kib = bytes.div_ceil(1024);
    Failure::Other(format!(
        "there are no {kib} KiB of free memory: give the machine more, or the partitions less"
    ))
}
