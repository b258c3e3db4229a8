//! AMD-V (APM 2 chapter 15).
//!
//! | file | what it does |
//! |---|---|
//! | `vmcb` | reads and writes a VMCB, and keeps its clean bits |
//! | `vcpu` | what a virtual CPU has here: creation, loading, tags |
//! | `event` | events to inject, and those that were cut short |
//! | `exit` | from an exit to an event |
//! | `exception` | exceptions that always exit |
//! | `nmi` | NMIs of guests: the processor does not tell when they are blocked |
//! | `export` | moves groups of state out of the VMCB |
//! | `import` | moves groups of state into the VMCB |
//! | `instruction` | the end of the instruction that exited |
//!
//! VMRUN and what surrounds it is in [`super::entry`].

pub mod event;
pub mod exception;
pub mod exit;
pub mod export;
pub mod import;
pub mod instruction;
pub mod nmi;
pub mod vcpu;
pub mod vmcb;

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, Ordering};

use hypervisor_logic::svm::{Controls, Refusal, SvmCapabilities, negotiate};
use spin::Once;

use super::cpu::{Block, Cpu};
use super::msr::{self, Msr};
use super::vendor::Virtualization;
use super::{bitmaps, entry, gdt};
use crate::mem::pool;
use crate::panic::refuse;

/// VM_CR.
const VM_CR: Msr = Msr(0xc001_0114);
/// VM_HSAVE_PA.
const VM_HSAVE_PA: Msr = Msr(0xc001_0117);
/// EFER.SVME.
pub const EFER_SVME: u64 = 1 << 12;
/// EFER.SCE.
const EFER_SCE: u64 = 1 << 0;

static CONTROLS: Once<Controls> = Once::new();

/// What was negotiated at boot.
pub fn controls() -> Option<&'static Controls> {
    CONTROLS.get()
}

/// Finds out whether AMD-V can be used, and how.
pub fn probe() -> Result<Virtualization, Refusal> {
    let capabilities = SvmCapabilities::read(
        |leaf| {
            let r = __cpuid(leaf);
            [r.eax, r.ebx, r.ecx, r.edx]
        },
        // SAFETY: only registers that the processor reports are read.
        |msr| unsafe { Msr(msr).read() },
    );
    let controls = negotiate(&capabilities)?;
    let controls = CONTROLS.call_once(|| controls);
    QEMU.store(says_qemu(), Ordering::Relaxed);
    Ok(Virtualization {
        name: "AMD-V",
        largest_page: if controls.pages_1g { 30 } else { 21 },
        guards_xcr0: !is_emulated_by_qemu(),
        tells_lengths: controls.next_rip,
        tells_addresses: false,
    })
}

static QEMU: AtomicBool = AtomicBool::new(false);

/// Whether this is QEMU's own emulation, which differs from a processor (seen in 7.2): it has no intercept of XSETBV, saves the
/// wrong registers when it refuses a guest, does not bring back the kernel's CR0 from some, forgets interrupts that come during an
/// exit, and may deliver an injected one twice.
#[inline(always)]
fn is_emulated_by_qemu() -> bool {
    QEMU.load(Ordering::Relaxed)
}

/// QEMU's own emulation names itself.
fn says_qemu() -> bool {
    const NAME: [[u8; 4]; 3] = [*b"TCGT", *b"CGTC", *b"GTCG"];
    let name = __cpuid(0x4000_0000);
    is_virtual() && [name.ebx, name.ecx, name.edx] == NAME.map(u32::from_le_bytes)
}

/// Whether the processor says that it is not a real one.
fn is_virtual() -> bool {
    __cpuid(1).ecx & 1 << 31 != 0
}

/// Makes LFENCE wait for what is before it, which guests are told that it does. Processors before family 10h always do (Software
/// Techniques for Managing Speculation on AMD Processors, G-2).
fn serialize_lfence() {
    const DE_CFG: Msr = Msr(0xc001_1029);
    const LFENCE_SERIALIZES: u64 = 1 << 1;
    let signature = __cpuid(1).eax;
    let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
    if family >= 0x10 && family != 0x11 && !is_virtual() {
        // SAFETY: those families have the register; a virtual one may not.
        unsafe { DE_CFG.write(DE_CFG.read() | LFENCE_SERIALIZES) };
    }
}

/// Turns SVM on, on this CPU (APM 2 15.4). Returns whether there was memory for it.
pub fn enable() -> bool {
    /// An INIT becomes an exception instead of resetting the CPU under the kernel (APM 2 15.28).
    const R_INIT: u64 = 1 << 1;
    let (Some(controls), Some(save_area)) = (controls(), pool::alloc()) else { return false };
    if !bitmaps::init() {
        return false;
    }
    serialize_lfence();
    // SAFETY: negotiation has found the registers; the page is fresh and stays the processor's. A locked VM_CR ignores the write of
    // R_INIT.
    unsafe {
        let vm_cr = controls.vm_cr.unwrap_or_else(|| VM_CR.read());
        VM_CR.write(vm_cr | R_INIT);
        if let Err(refusal) = controls.confirm(VM_CR.read()) {
            refuse(format_args!("{refusal}"));
        }
        msr::EFER.write(msr::EFER.read() | EFER_SVME);
        VM_HSAVE_PA.write(save_area);
    }
    true
}

/// Sets the system-call entry, and saves what every exit has to bring back.
///
/// # Safety
/// The CPU is `block`'s, and its tables are loaded.
pub unsafe fn finish(block: &'static Block) {
    /// Flags that a system call clears: AC, NT, DF, IF, TF, and whatever else a task can set.
    const CLEARED: u64 = 0x25_7fd5;
    /// Selector from which SYSRET takes ring-3 code, 16 above, and the stack segment, 8 above: 0x28 and 0x20.
    const SYSRET_BASE: u64 = (gdt::KERNEL_DATA as u64 + 8) | 3;
    let host = block.cpu.host_state.get();
    // SAFETY: the entry point is that of the kernel. GS bases are 0 but while the entry looks for its stack.
    unsafe {
        msr::STAR.write(u64::from(gdt::KERNEL_CODE) << 32 | SYSRET_BASE << 48);
        msr::LSTAR.write(entry::syscall_address());
        msr::FMASK.write(CLEARED);
        msr::KERNEL_GS_BASE.write(core::ptr::from_ref(&block.cpu) as u64);
        msr::CSTAR.write(0);
        msr::EFER.write(msr::EFER.read() | EFER_SCE);
        core::arch::asm!("vmsave rax", in("rax") host, options(nostack, preserves_flags));
    }
}

/// Guest tables have lost something: every virtual CPU gets a new tag before it runs again on this CPU.
pub fn flush_guest(cpu: &Cpu) {
    cpu.tags().renew();
}

/// ASIDs.
pub fn tags() -> u32 {
    controls().map_or(1, |controls| controls.asids)
}
