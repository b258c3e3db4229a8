//! From the loader's hand-over to the root task's first instruction.
//!
//! | file | what it does |
//! |---|---|
//! | `memory` | picks the pool and builds the kernel's own page tables |
//! | `machine` | processor features, interrupt controllers, timer |
//! | `processors` | the other CPUs |
//! | `root` | the root task: its domain, its image, what it is told |
//! | `screen` | where messages appear until it starts, and the last ones |

mod machine;
mod memory;
mod processors;
mod root;
mod screen;

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::{BootInfo, entry_point};

use crate::arch::cpu;
use crate::object::Ref;
use crate::object::sc::Sc;
use crate::{arch, log, println};

/// What the kernel asks of a loader: all physical memory mapped somewhere.
static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config.kernel_stack_size = 128 * 1024;
    config
};

entry_point!(main, config = &CONFIG);

/// Entered by the loader, on its stack and page tables.
fn main(info: &'static mut BootInfo) -> ! {
    log::open_serial();
    log::open_screen(screen::open(info));
    println!("Ferrite {} on {}", env!("CARGO_PKG_VERSION"), machine::Brand::read());
    let virtualization = arch::vendor::probe();
    let map = memory::take_pool(info);
    let machine = machine::start(&map, virtualization);
    processors::start(info, &map, &machine);
    log::keep_screen(screen::keep(info, &map));
    let sc = root::prepare(info, &map, &machine);
    let stack_top = cpu::find(0).map_or(0, |cpu| cpu.stack_top);
    // SAFETY: the block was mapped and filled; nothing on the loader's stack is used again.
    unsafe {
        core::arch::asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {launch}",
            "ud2",
            stack = in(reg) stack_top,
            launch = sym launch,
            in("rdi") sc.as_ptr(),
            options(noreturn),
        );
    }
}

/// On the kernel stack: leaves the loader behind and dispatches.
extern "C" fn launch(sc: &Sc) -> ! {
    println!("starting the root task; serial port and screen are user space's from here on");
    log::hand_over();
    let root = sc.ec.cr3.get();
    // SAFETY: the root task's tables have the kernel's half, with this stack and `sc` in the pool.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack)) };
    machine::finish(cpu::block());
    let cpu = cpu::cpu();
    cpu.cr3.set(root);
    crate::sched::make_ready(Ref::of(sc));
    let ec = crate::sched::dispatch(cpu);
    arch::entry::resume(ec)
}
