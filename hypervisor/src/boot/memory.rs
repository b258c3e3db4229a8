//! Physical memory at boot: which of it becomes the kernel's, and how the kernel maps it.

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::arch::kernel_map::{ACCESSED, ADDRESS, DIRTY, LARGE_PAGE, NO_EXECUTE, PRESENT, WRITE};
use crate::mem::{PAGE, WINDOW, pool};
use crate::panic::refuse;
use crate::println;

const PAGE_U64: u64 = PAGE as u64;
/// Size and alignment of a large page.
const LARGE: u64 = 2 << 20;
/// The pool is this part of memory...
const SHARE: u64 = 24;
/// ...but not less than this...
const LEAST: u64 = 8 << 20;
/// ...and not more than this.
const MOST: u64 = 256 << 20;
/// What must be left for tasks.
const REST: u64 = 16 << 20;

/// All physical memory, as the loader maps it. Only until the root task starts.
pub struct Physical {
    offset: u64,
    end: u64,
}

impl Physical {
    /// The mapping that the loader made.
    pub fn new(info: &BootInfo) -> Self {
        let Some(offset) = info.physical_memory_offset.into_option() else {
            refuse(format_args!("the loader does not map physical memory"));
        };
        let end = info.memory_regions.iter().map(|region| region.end).max().unwrap_or(0);
        Self { offset, end: end.max(4 << 30) }
    }

    /// The address of a physical one.
    pub const fn at(&self, pa: u64) -> *mut u8 {
        pa.wrapping_add(self.offset) as *mut u8
    }

    /// The physical address of one in this mapping.
    pub fn of<T>(&self, pointer: *const T) -> u64 {
        (pointer as u64).wrapping_sub(self.offset)
    }

    /// Reads a table entry.
    fn entry(&self, table: u64, index: usize) -> *mut u64 {
        self.at(table + 8 * (index as u64 & 511)).cast()
    }

    /// The physical address behind an address that `root` maps.
    pub fn translate(&self, root: u64, va: u64) -> Option<u64> {
        let mut table = root;
        for shift in [39, 30, 21, 12] {
            // SAFETY: tables are in memory, which is mapped.
            let entry = unsafe { self.entry(table, (va >> shift) as usize).read() };
            if entry & PRESENT == 0 {
                return None;
            }
            if shift == 12 || (shift < 39 && entry & LARGE_PAGE != 0) {
                let mask = (1_u64 << shift) - 1;
                return Some(entry & ADDRESS & !mask | va & mask);
            }
            table = entry & ADDRESS;
        }
        None
    }
}

impl hypervisor_logic::acpi::PhysRead for Physical {
    fn read(&self, pa: u64, buf: &mut [u8]) -> bool {
        let Some(end) = pa.checked_add(buf.len() as u64) else { return false };
        if end > self.end {
            return false;
        }
        // SAFETY: the loader maps everything up to `end`.
        unsafe { self.at(pa).copy_to(buf.as_mut_ptr(), buf.len()) };
        true
    }
}

/// Where things are.
pub struct Map {
    /// All physical memory.
    pub physical: Physical,
    /// The kernel's pool: base and length.
    pub pool: (u64, u64),
    /// ACPI root pointer, or 0.
    pub rsdp: u64,
    /// Root table that every host space takes its upper half from.
    pub template: u64,
    /// Root table that is loaded until the root task starts.
    pub boot: u64,
    /// Memory below the pool for the root task's image grows down from here...
    pub image_end: u64,
    /// ...to here at most.
    pub image_start: u64,
}

impl Map {
    /// Makes everything that was mapped for the kernel since [`map_pool`], around an address, visible in the loader's tables as well.
    pub fn share(&self, va: u64) {
        let index = (va >> 39) as usize;
        // SAFETY: both are root tables; only unused entries of the loader's change.
        unsafe {
            let entry = self.physical.entry(self.template, index).read();
            self.physical.entry(self.boot, index).write(entry);
        }
    }
}

/// Takes the pool out of the largest free region and maps it in the window.
pub fn take_pool(info: &BootInfo) -> Map {
    let physical = Physical::new(info);
    let usable = |region: &&MemoryRegion| region.kind == MemoryRegionKind::Usable;
    let total: u64 = info.memory_regions.iter().filter(usable).map(|r| r.end - r.start).sum();
    let want = (total / SHARE).clamp(LEAST, MOST).next_multiple_of(LARGE);
    // Below 4 GiB, so that the pool and its tables are within reach of every page-table root.
    let room = |region: &&MemoryRegion| region.end.min(4 << 30).saturating_sub(region.start);
    let best = info.memory_regions.iter().filter(usable).max_by_key(room);
    let Some(region) = best.filter(|region| room(region) >= want + LARGE + REST) else {
        refuse(format_args!(
            "too little memory: {} MiB in one piece are needed, {} MiB are free in all",
            (want + LARGE + REST) >> 20,
            total >> 20,
        ));
    };
    let base = (region.end.min(4 << 30) - want) & !(LARGE - 1);
    // The pool must not cross a 1 GiB border, or it would need a second table below.
    let base = if base >> 30 == (base + want - 1) >> 30 {
        base
    } else {
        ((base + want) >> 30 << 30) - want
    };
    if base < region.start {
        refuse(format_args!(
            "too little memory: no piece of it holds {} MiB below a GiB border",
            want >> 20
        ));
    }
    let (boot, template) = map_pool(&physical, base, want);
    println!("memory: {} MiB free, {} MiB of it for the kernel", total >> 20, want >> 20);
    let rsdp = info.rsdp_addr.into_option().unwrap_or(0);
    Map {
        physical,
        pool: (base, want),
        rsdp,
        template,
        boot,
        image_end: base,
        image_start: region.start.max(1 << 20),
    }
}

/// Maps the pool at its place in the window, in a new root table and in the loader's, which is loaded.
fn map_pool(physical: &Physical, base: u64, len: u64) -> (u64, u64) {
    let boot = x86_64::registers::control::Cr3::read().0.start_address().as_u64();
    let [pointers, directory, template] = [base, base + PAGE_U64, base + 2 * PAGE_U64];
    let table = ACCESSED | WRITE | PRESENT;
    let root_index = (WINDOW >> 39 & 511) as usize;
    let kernel_index = 511;
    // SAFETY: the first three pages of the pool are free memory that the loader maps; nothing else uses them.
    unsafe {
        physical.at(base).write_bytes(0, 3 * PAGE);
        for at in (base..base + len).step_by(LARGE as usize) {
            let leaf = at | NO_EXECUTE | LARGE_PAGE | DIRTY | table;
            physical.entry(directory, (at >> 21) as usize).write(leaf);
        }
        physical.entry(pointers, (base >> 30) as usize).write(directory | table);
        physical.entry(template, root_index).write(pointers | table);
        physical.entry(boot, root_index).write(pointers | table);
        let image = physical.entry(boot, kernel_index).read();
        physical.entry(template, kernel_index).write(image);
        pool::donate(base + 3 * PAGE_U64, len / PAGE_U64 - 3);
    }
    (boot, template)
}
