//! VM exits, as a 64-bit guest sees them: it times its loops itself, with a time-stamp counter that does not exit. What it
//! measures is answered by the monitor of real guests, down to the byte that goes to the console.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::arch::global_asm;

use abi::cap::{Perms, Selector};
use abi::layout::PAGE_SIZE;
use abi::vcpu::{EXITS, Exit, Groups, Segment, VcpuState};
use machine::layout::IOAPIC;
use runtime::handler::Handler;
use runtime::lock::Lock;
use runtime::memory::{GuestMemory, OutOfRange, Page};
use runtime::pd::Pd;
use runtime::selector;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, ObjectSpace};
use runtime::vcpu::{VcpuBuilder, real_mode_state};
use runtime::{Outcome, Status, Task, exit};
use vmm::console::Console;
use vmm::guest::Software;
use vmm::monitor::{self, Parts};
use vmm::ram::Ram;

use crate::Named;
use crate::meter::{Counts, Figure, ITERATIONS, Meter, WARM_UP, difference};

// Each path is a loop that runs twice: to warm up, and to be measured. After each time the guest halts with the
// ticks in RAX.
global_asm!(
    ".macro loop_begin",
    "    xor ebp, ebp",
    "    mov r13d, {warm_up}",
    "2:",
    ".endm",
    ".macro loop_end",
    "    dec r13d",
    "    jnz 2b",
    "    rdtsc",
    "    shl rdx, 32",
    "    or rax, rdx",
    "    sub rax, r12",
    "    hlt",
    "    xor ebp, 1",
    "    jz 3f",
    "    mov r13d, {iterations}",
    "    rdtsc",
    "    shl rdx, 32",
    "    or rax, rdx",
    "    mov r12, rax",
    "    jmp 2b",
    "3:",
    ".endm",
    ".pushsection .rodata.guest, \"a\"",
    ".balign 4096",
    "bench_guest:",
    "    mov r14d, {ioapic}",
    "    loop_begin",
    "    loop_end",
    "    loop_begin",
    "    xor eax, eax",
    "    cpuid",
    "    loop_end",
    "    loop_begin",
    "    out 0x80, al",
    "    loop_end",
    // The monitor sends this to the console.
    "    loop_begin",
    "    mov eax, '.'",
    "    mov edx, 0x3f8",
    "    out dx, al",
    "    loop_end",
    // The register that selects a register of the I/O APIC: eight bits wide (82093AA datasheet, 3.1.1).
    "    loop_begin",
    "    mov byte ptr [r14], al",
    "    loop_end",
    ".balign 4096",
    ".popsection",
    ".purgem loop_begin",
    ".purgem loop_end",
    warm_up = const WARM_UP,
    iterations = const ITERATIONS,
    ioapic = const IOAPIC,
);

unsafe extern "C" {
    safe static bench_guest: Page;
}

/// The loops, in the order in which the guest runs them.
const PATHS: [&str; 5] = ["loop", "cpuid", "out80", "uart", "mmio"];

/// Guest-physical addresses.
const CODE: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const LOW_DIRECTORY: u64 = 0x4000;
const HIGH_DIRECTORY: u64 = 0x5000;

/// The exits that are answered here: they begin and end measurements, and none of them is measured.
const OWN_EXITS: [Exit; 2] = [Exit::Startup, Exit::Hlt];

/// What the guest's halts work on.
struct Bench {
    meter: Meter,
    /// The counts at the end of the warm-up, while a path is measured.
    start: Option<Counts>,
    /// How many paths are done.
    done: usize,
    results: &'static Results,
}

struct Results {
    figures: Lock<[Figure; PATHS.len()]>,
    complete: Sm,
}

/// Measures all exits.
///
/// # Errors
/// A sentence that says what went wrong.
pub fn measure(
    task: &Task,
    meter: &Meter,
    memory: GuestMemory,
) -> Result<[Named; PATHS.len()], String> {
    let ram = Ram::new(memory);
    memory
        .write(CODE, &bench_guest.0)
        .and_then(|()| write_page_tables(memory))
        .map_err(|OutOfRange| "the partition has too little memory")?;
    let parts = Parts {
        ram,
        clock: task.clock(),
        epoch: 0,
        features: task.startup().features,
        console: Console::new(task.console()),
        software: Software::of(task)?,
        wake: task.wake(),
    };
    run(task, meter, parts).map_err(|status| format!("cannot run the guest: {status:?}"))
}

fn run(task: &Task, meter: &Meter, parts: Parts) -> Result<[Named; PATHS.len()], Status> {
    let space = parts.ram.share()?;
    let results = Results {
        figures: Lock::new([Figure::default(); PATHS.len()]),
        complete: Sm::create(Pd::OWN, 0)?,
    };
    let results: &'static Results = Box::leak(Box::new(results));
    let handler = Handler::new(Bench { meter: *meter, start: None, done: 0, results })?;

    let portals = real_portals(task, parts, space)?;
    let mut builder = VcpuBuilder::at(space, handler, portals);
    if let Some(msrs) = task.msrs() {
        builder = builder.msrs(msrs);
    }
    builder.on(Exit::Startup, Groups::NONE, start).on(Exit::Hlt, Groups::ACDB, pass_ended).run()?;
    results.complete.down()?;
    let figures = *results.figures.lock();
    Ok(core::array::from_fn(|i| (PATHS[i], figures[i])))
}

/// The portals that a virtual CPU of the real monitor has, for another one, with those of [`OWN_EXITS`] left free.
/// The monitor's own virtual CPU never runs.
fn real_portals(task: &Task, parts: Parts, space: GuestSpace) -> Result<Selector, Status> {
    // Selectors are handed out in order, and the monitor's portals come first.
    let first = selector::FREE.one()? + 1;
    monitor::create(parts, space, task.msrs())?;
    let portals = selector::FREE.range(EXITS)?;
    let own = ObjectSpace::OWN;
    for exit in Exit::ALL.into_iter().filter(|exit| !OWN_EXITS.contains(exit)) {
        own.grant(first + exit as u32, own, portals + exit as u32, Perms::ALL)?;
    }
    Ok(portals)
}

/// Maps what the guest uses to itself: the lowest 2 MiB, and those with the I/O APIC (SDM 3A 4.5).
fn write_page_tables(memory: GuestMemory) -> Result<(), OutOfRange> {
    const TABLE: u64 = 0b11;
    const LARGE_PAGE: u64 = 0b1000_0011;
    const LARGE_SHIFT: u64 = 21;
    for table in [PML4, PDPT, LOW_DIRECTORY, HIGH_DIRECTORY] {
        memory.fill(table, PAGE_SIZE, 0)?;
    }
    let high = IOAPIC >> LARGE_SHIFT;
    memory.store_u64(PML4, PDPT | TABLE)?;
    memory.store_u64(PDPT, LOW_DIRECTORY | TABLE)?;
    memory.store_u64(PDPT + 8 * (high >> 9), HIGH_DIRECTORY | TABLE)?;
    memory.store_u64(LOW_DIRECTORY, LARGE_PAGE)?;
    memory.store_u64(HIGH_DIRECTORY + 8 * (high & 511), high << LARGE_SHIFT | LARGE_PAGE)
}

/// Starts the guest in 64-bit mode.
fn start(_: &mut Bench, state: &mut VcpuState) -> Groups {
    const PE_ET_PG: u64 = 1 << 31 | 0b1_0001;
    const PAE: u64 = 1 << 5;
    const LME_LMA: u64 = 1 << 8 | 1 << 10;
    let groups = real_mode_state(state, 0);
    let flat = Segment { selector: 0x10, attr: 0xc93, limit: u32::MAX, base: 0 };
    state.rip = CODE;
    (state.cr0, state.cr3, state.cr4, state.efer) = (PE_ET_PG, PML4, PAE, LME_LMA);
    state.cs = Segment { selector: 8, attr: 0xa9b, ..flat };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (flat, flat, flat, flat, flat);
    groups
}

/// A loop has ended, for the first or the second time.
fn pass_ended(bench: &mut Bench, state: &mut VcpuState) -> Groups {
    let counts = bench.meter.counts();
    match bench.start.take() {
        None => bench.start = Some(counts),
        Some(start) => {
            let figure = Figure::new(state.gpr.rax, difference(counts, start), ITERATIONS);
            if let Some(place) = bench.results.figures.lock().get_mut(bench.done) {
                *place = figure;
            }
            bench.done += 1;
            if bench.done == PATHS.len() {
                complete(bench);
            }
        }
    }
    // HLT: for a processor that does not tell.
    state.inst_len = 1;
    Groups::DONE
}

/// The guest has run all its loops. It is not needed any more.
fn complete(bench: &Bench) -> ! {
    if bench.results.complete.up().is_err() {
        exit(Outcome::Failed)
    }
    runtime::park()
}
