//! x86-64: what the neutral code needs from the processor.

pub mod bitmaps;
#[cfg(feature = "counters")]
pub mod counters;
pub mod cpu;
pub mod entry;
pub mod fpu;
pub mod gdt;
pub mod idt;
pub mod interrupts;
pub mod ioapic;
pub mod kernel_map;
pub mod lapic;
pub mod machine_check;
pub mod msr;
pub mod port;
pub mod shootdown;
pub mod space;
pub mod state;
pub mod svm;
pub mod timer;
pub mod trap;
pub mod vcpu;
pub mod vendor;
pub mod vmx;

pub use entry::Resume;
pub use vcpu::{
    StateMover, Vcpu, complete_instruction, complete_late, deadline_passed, export_state,
    import_state, mover, recall,
};
pub use vendor::{Vendor, flush_guest, vendor};

use crate::object::Ref;
use crate::object::ec::{Ec, Kind};
use crate::sched::Next;
use cpu::Cpu;

/// The time-stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC only reads.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        x86_64_crate::instructions::interrupts::disable();
        x86_64_crate::instructions::hlt();
    }
}

/// The flags a thread may have: arithmetic flags, direction, trap, alignment check and identification, with interrupts on.
pub const fn user_flags(flags: u64) -> u64 {
    const USER: u64 = 0x24_0dd5;
    flags & USER | 0x202
}

/// Loads what `ec` needs on the CPU before its exit path runs. Returns the context to resume: a handler, if `ec` is a virtual CPU that
/// has to leave its guest again at once.
#[inline(always)]
pub fn load_context(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    match ec.kind {
        Kind::Vcpu(vendor) => vcpu::load(vendor, cpu, ec),
        _ => Some(space::load(cpu, ec)),
    }
}

/// Tells people what happened to a context whose event nobody takes.
pub fn report_event(cpu: &Cpu, ec: &Ec, why: &str) {
    if ec.kind.is_vcpu() {
        vcpu::report(cpu, ec, why);
    } else {
        trap::report(ec, why);
    }
}

use ::x86_64 as x86_64_crate;
