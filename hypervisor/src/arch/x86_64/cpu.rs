//! What belongs to one CPU.
//!
//! Each CPU has a block of kernel addresses, aligned to [`STRIDE`], so that any address of its stacks leads to it:
//!
//! ```text
//! 0x0000  Cpu
//! 0x2000  task state with I/O bitmap
//! 0x5000  (hole)
//! 0x6000  kernel stack, 16 KiB, top at STACK_TOP
//! 0xa000  (hole)
//! 0xb000  NMI stack
//! 0xc000  (hole)
//! 0xd000  stack for double faults and machine checks
//! 0xe000  (hole)
//! 0xffb8  GDT, at the very end
//! 0x10000 (hole, 64 KiB)
//! ```
//!
//! The GDT stands before the large hole because VM exits leave its limit at 0xffff (SDM 3C 28.5.2): a task that loads
//! a selector beyond the end finds unmapped memory.

use core::sync::atomic::{AtomicU32, Ordering};

use hypervisor_logic::lock::Demand;
use hypervisor_logic::tags::Tags;

use super::gdt::{self, TaskState};
use super::timer::Timer;
use super::{interrupts, lapic, shootdown};
use crate::mem::{pool, virt};
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::object::sc::Sc;
use crate::object::space::Space;
use crate::sched::errand::Errand;
use crate::sched::ready::ReadyQueue;
use crate::sched::timeout::Timeouts;
use crate::sync::{Guarded, KERNEL};

/// Distance of two CPUs' blocks, and their alignment.
const STRIDE: u64 = 0x2_0000;
/// Where the blocks start.
const BLOCKS: u64 = 0xffff_ff00_0000_0000;
/// Offset of the top of the kernel stack.
pub const STACK_TOP: u64 = 0xa000;
const NMI_TOP: u64 = 0xc000;
const FAULT_TOP: u64 = 0xe000;
/// Offsets of the pages that are mapped.
const PAGES: [u64; 12] = [
    0x0000, 0x1000, 0x2000, 0x3000, 0x4000, 0x6000, 0x7000, 0x8000, 0x9000, 0xb000, 0xd000, 0xf000,
];

/// The state of a CPU.
#[repr(C)]
pub struct Cpu {
    /// The context that runs, or ran when the kernel was entered.
    pub current: Guarded<Ref<Ec>>,
    /// Page-table root that is loaded; while a guest runs, the one its exit loads.
    pub cr3: Guarded<u64>,
    /// The virtual CPU whose control structure, FPU state and system-call registers are loaded.
    pub vcpu: Guarded<Option<Ref<Ec>>>,
    /// The scheduling context that pays; none while idle.
    pub current_sc: Guarded<Option<Ref<Sc>>>,
    /// Whether the one that runs was called by somebody else than the one that pays.
    pub helping: Guarded<bool>,
    /// Whether a scheduling decision is due.
    pub reschedule: Guarded<bool>,
    /// Whether CR2 and DR6 are no longer the loaded virtual CPU's.
    pub cr2_dr6_lost: Guarded<bool>,
    /// Whether the task register's limit may be short.
    pub task_register_stale: Guarded<bool>,
    /// When the current scheduling context began to pay.
    pub since: Guarded<u64>,
    /// When its budget ends.
    pub slice_end: Guarded<u64>,
    /// The port space whose bitmap is in the task state.
    pub ports: Guarded<Option<Ref<Space>>>,
    /// Whether the running thread can use them.
    pub ports_open: Guarded<bool>,
    /// The timer.
    pub timer: Timer,
    /// Physical page of what every exit of AMD-V has to bring back.
    pub host_state: Guarded<u64>,
    /// Tags of this CPU's translations for guests.
    tags: Guarded<Tags>,
    /// Top of the kernel stack.
    pub stack_top: u64,
    /// Who could run.
    pub ready: ReadyQueue,
    /// What is due when.
    pub timeouts: Timeouts,
    /// What another CPU waits for it to forget.
    pub demand: Demand,
    /// What another CPU has asked of it.
    pub errand: Guarded<Option<Errand>>,
    /// The context that waits for interrupts.
    pub idle: Ref<Ec>,
    /// Number of this CPU, from 0.
    pub number: u32,
    /// Identifier of its local APIC.
    pub apic: u32,
}

/// The fixed places of a CPU's block.
#[repr(C)]
pub struct Block {
    /// Its state.
    pub cpu: Cpu,
    pad0: [u8; 0x2000 - size_of::<Cpu>()],
    /// Its task state.
    pub tss: TaskState,
    pad1: [u8; 0x1_0000 - 0x2000 - size_of::<TaskState>() - gdt::ENTRIES * 8],
    /// Its descriptors.
    pub gdt: [Guarded<u64>; gdt::ENTRIES],
}

impl Block {
    /// The I/O bitmap in the task state.
    pub fn io_bitmap(&self) -> *mut u8 {
        core::ptr::addr_of!(self.tss.io_bitmap).cast_mut().cast()
    }
}

/// The CPU that executes this.
#[inline(always)]
pub fn cpu() -> &'static Cpu {
    &block().cpu
}

/// The block of the CPU that executes this.
#[inline(always)]
pub fn block() -> &'static Block {
    let rsp: u64;
    // SAFETY: only reads RSP. Kernel code runs on a stack of its CPU's block from the moment `install` was called, and blocks stay.
    unsafe {
        core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags));
        &*((rsp & !(STRIDE - 1)) as *const Block)
    }
}

/// Enters the kernel where the entry path has not: waits for its lock, and does meanwhile what the holder waits for.
pub fn enter() -> &'static Cpu {
    let cpu = cpu();
    KERNEL.acquire(|| shootdown::meet(cpu));
    cpu
}

/// The same on an entry path that has to wait, with its ticket.
pub extern "C" fn wait(ticket: u32) {
    let cpu = cpu();
    KERNEL.wait(ticket, || shootdown::meet(cpu));
}

/// How many CPUs have a block: those with a lower number.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// How many CPUs there are.
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The CPU with that number.
pub fn find(number: u64) -> Option<Ref<Cpu>> {
    let number = u32::try_from(number).ok().filter(|number| *number < count())?;
    // SAFETY: its block was filled, and stays.
    Some(unsafe { Ref::from_address(address(number)) })
}

/// All of them.
pub fn all() -> impl Iterator<Item = Ref<Cpu>> {
    (0..count()).filter_map(|number| find(number.into()))
}

/// Address of the block of CPU `number`.
const fn address(number: u32) -> u64 {
    BLOCKS + number as u64 * STRIDE
}

impl Cpu {
    /// The tags of this CPU.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn tags(&self) -> &mut Tags {
        // SAFETY: whoever is here holds the lock, and no caller keeps the reference.
        unsafe { &mut *self.tags.as_ptr() }
    }

    /// Its block.
    pub fn block(&self) -> &Block {
        // SAFETY: every `Cpu` is the beginning of a block.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// Whether it is the one that executes this.
    #[inline(always)]
    pub fn is_here(&self) -> bool {
        core::ptr::eq(self, cpu())
    }

    /// Makes it enter the kernel, if it is another one.
    pub fn kick(&self) {
        if !self.is_here() {
            lapic::send(self.apic, lapic::FIXED | u32::from(interrupts::KICK));
        }
    }

    /// Nobody runs but the context that waits for interrupts.
    pub fn idle(&self) -> Ref<Ec> {
        self.current.set(self.idle);
        self.idle
    }
}

/// Maps and fills the block of the next CPU, whose local APIC is `apic`. `map` maps one page of kernel memory. `None`: too little
/// memory. Its idle context has to be written before it runs.
pub fn install(
    apic: u32,
    timer: Timer,
    cr3: u64,
    mut map: impl FnMut(u64, u64) -> Option<()>,
) -> Option<Ref<Cpu>> {
    let number = count();
    let base = address(number);
    for offset in PAGES {
        map(base + offset, pool::alloc()?)?;
    }
    // A CPU that did not start may have had a block here.
    super::space::flush_host();
    // SAFETY: a page of its own, for a context that stays.
    let idle = unsafe { Ref::from_address(virt(pool::alloc()?) as u64) };
    let host_state = pool::alloc()?;
    let block = base as *mut Block;
    // SAFETY: the pages were just mapped, and nobody else knows of them. The holes between the fields are not written.
    unsafe {
        (&raw mut (*block).cpu).write(Cpu {
            current: Guarded::new(idle),
            cr3: Guarded::new(cr3),
            vcpu: Guarded::new(None),
            current_sc: Guarded::new(None),
            helping: Guarded::new(false),
            reschedule: Guarded::new(false),
            cr2_dr6_lost: Guarded::new(false),
            task_register_stale: Guarded::new(false),
            since: Guarded::new(0),
            slice_end: Guarded::new(u64::MAX),
            ports: Guarded::new(None),
            ports_open: Guarded::new(false),
            timer,
            host_state: Guarded::new(host_state),
            tags: Guarded::new(Tags::new(super::vendor::tags())),
            stack_top: base + STACK_TOP,
            ready: ReadyQueue::new(),
            timeouts: Timeouts::new(),
            demand: Demand::new(),
            errand: Guarded::new(None),
            idle,
            number,
            apic,
        });
        (&raw mut (*block).tss).write(TaskState::new(
            base + STACK_TOP,
            base + NMI_TOP,
            base + FAULT_TOP,
        ));
        let descriptors = gdt::descriptors((&raw const (*block).tss) as u64);
        (&raw mut (*block).gdt).write(descriptors.map(Guarded::new));
    }
    // SAFETY: it was just filled, and stays.
    Some(unsafe { Ref::from_address(base) })
}

/// The CPU whose block was installed last runs from now on.
pub fn announce(cpu: &Cpu) {
    COUNT.store(cpu.number + 1, Ordering::Relaxed);
}

const _: () = assert!(size_of::<Block>() == 0x1_0000);
