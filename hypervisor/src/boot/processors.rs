//! The CPUs besides the first: each is woken as MultiProcessor initialization has it (SDM 3A 9.4.4), comes from real mode to its
//! kernel stack in one leap, and waits there for the lock of the kernel.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegionKind;
use hypervisor_logic::frames::Frames;

use super::machine::{self, Machine};
use super::memory::{Map, Physical};
use crate::arch::kernel_map::{ACCESSED, DIRTY, LARGE_PAGE, PRESENT, WRITE};
use crate::arch::{self, cpu, lapic, space};
use crate::mem::tables::Kernel;
use crate::mem::{PAGE, pool};
use crate::{println, sched};

/// CPUs that are supported: as many as a set of them has bits.
const MAX: u32 = 64;

global_asm!(
    ".balign 8",
    "startup:",
    ".code16",
    "cli",
    "mov ax, cs",
    "mov ds, ax",
    "mov eax, 0x20",
    "mov cr4, eax",
    // MOV EAX, moffs32: the assembler has no way to write such an address.
    ".byte 0x66, 0xa1",
    ".word startup_root - startup",
    "mov cr3, eax",
    // EFER: long mode, no-execute.
    "mov ecx, 0xc0000080",
    "mov eax, 0x900",
    "xor edx, edx",
    "wrmsr",
    // LGDT m16&32.
    ".byte 0x0f, 0x01, 0x16",
    ".word startup_gdtr - startup",
    // Protection and paging at once: the next instruction is at the same address in the new tables.
    "mov eax, cr0",
    "or eax, 0x80010001",
    "mov cr0, eax",
    // JMP m16:32.
    ".byte 0x66, 0xff, 0x2e",
    ".word startup_far - startup",
    ".code64",
    "startup_long:",
    "mov rsp, [rip + startup_stack]",
    "xor ebp, ebp",
    "call qword ptr [rip + startup_main]",
    "ud2",
    ".balign 8",
    "startup_gdt:",
    ".quad 0, 0x00af9b000000ffff",
    "startup_gdtr:",
    ".word 15",
    // The addresses of these three are where the page is.
    "startup_gdt_address:",
    ".long startup_gdt - startup",
    "startup_far:",
    ".long startup_long - startup",
    ".word 8",
    ".balign 8",
    "startup_root:",
    ".quad 0",
    "startup_stack:",
    ".quad 0",
    "startup_main:",
    ".quad {main}",
    "startup_end:",
    main = sym main,
);

/// The page that a CPU starts at, as the loader maps it.
struct Page {
    address: u64,
    at: *mut u8,
}

/// The offset of a label in the page.
macro_rules! offset {
    ($label:ident) => {{
        unsafe extern "C" {
            fn startup();
            fn $label();
        }
        ($label as *const () as usize).wrapping_sub(startup as *const () as usize)
    }};
}

impl Page {
    /// Copies the code to a free page below 1 MiB, if there is one.
    fn new(info: &BootInfo, physical: &Physical) -> Option<Self> {
        const VIDEO_MEMORY: u64 = 0xa_0000;
        let address = info
            .memory_regions
            .iter()
            .filter(|region| region.kind == MemoryRegionKind::Usable)
            .filter_map(|region| {
                let page = region.end.min(VIDEO_MEMORY).checked_sub(PAGE as u64)? & !0xfff;
                (page >= region.start && page != 0).then_some(page)
            })
            .max()?;
        let page = Self { address, at: physical.at(address) };
        unsafe extern "C" {
            fn startup();
        }
        // SAFETY: free memory that the loader maps, and code that is shorter than a page.
        unsafe { page.at.copy_from(startup as *const u8, offset!(startup_end)) };
        page.set(offset!(startup_gdt_address), address as u32 + offset!(startup_gdt) as u32);
        page.set(offset!(startup_far), address as u32 + offset!(startup_long) as u32);
        Some(page)
    }

    fn set<T>(&self, offset: usize, value: T) {
        // SAFETY: as above; the offset is that of a label before the end.
        unsafe { self.at.add(offset).cast::<T>().write_unaligned(value) };
    }
}

/// A root table with the kernel's half and the first 2 MiB of memory at their own addresses; and the tables for that.
fn low_root(template: u64) -> Option<[u64; 3]> {
    let tables = [pool::alloc()?, pool::alloc()?, pool::alloc()?];
    let [root, pointers, directory] = tables;
    for index in 256..512 {
        Kernel.write(root, index, Kernel.read(template, index));
    }
    let table = ACCESSED | WRITE | PRESENT;
    Kernel.write(root, 0, pointers | table);
    Kernel.write(pointers, 0, directory | table);
    Kernel.write(directory, 0, LARGE_PAGE | DIRTY | table);
    Some(tables)
}

/// The number of the CPU that has come up last.
static UP: AtomicU32 = AtomicU32::new(0);

/// Starts all other CPUs that the firmware names.
pub fn start(info: &BootInfo, map: &Map, machine: &Machine) {
    let me = lapic::id();
    let mut others =
        machine.local_apics.iter().filter(|apic| apic.enabled && apic.apic_id != me).peekable();
    if others.peek().is_none() {
        return;
    }
    let Some(page) = Page::new(info, &map.physical) else {
        println!("no page below 1 MiB is free: only the first CPU is used");
        return;
    };
    let tables = low_root(map.template).unwrap_or_else(|| machine::out_of_memory());
    page.set(offset!(startup_root), tables[0]);
    for apic in others {
        if cpu::count() >= MAX {
            println!("more than {MAX} CPUs: the rest is not used");
            break;
        }
        let cpu = machine.install(map, apic.apic_id);
        page.set(offset!(startup_stack), cpu.stack_top);
        if wake(apic.apic_id, page.address, cpu.number, machine.calibration.tsc_hz) {
            cpu::announce(&cpu);
        } else {
            println!("the CPU with local APIC {} does not start: it is not used", apic.apic_id);
        }
    }
    for table in tables {
        // SAFETY: whoever has started has left them.
        unsafe { pool::free(table) };
    }
    println!("{} CPUs", cpu::count());
}

/// Wakes a CPU. Returns whether it came.
fn wake(apic: u32, page: u64, number: u32, tsc_hz: u64) -> bool {
    let is_up_within = |microseconds: u64| {
        let until = arch::tsc() + tsc_hz / 1_000_000 * microseconds;
        while arch::tsc() < until && UP.load(Ordering::Acquire) != number {
            core::hint::spin_loop();
        }
        UP.load(Ordering::Acquire) == number
    };
    lapic::send(apic, lapic::INIT);
    is_up_within(10_000);
    // The second is for processors that miss the first.
    for patience in [200, 1_000_000] {
        lapic::send(apic, lapic::STARTUP | (page >> 12) as u32);
        if is_up_within(patience) {
            return true;
        }
    }
    // It may not come later, either.
    lapic::send(apic, lapic::INIT);
    false
}

/// A CPU has arrived on its kernel stack.
extern "C" fn main() -> ! {
    let block = cpu::block();
    space::load_root(&block.cpu, space::template());
    if !machine::start_another() {
        arch::halt_forever();
    }
    machine::finish(block);
    UP.store(block.cpu.number, Ordering::Release);
    // The first one keeps the lock until there is something to do.
    let cpu = cpu::enter();
    arch::entry::resume(sched::dispatch(cpu))
}
