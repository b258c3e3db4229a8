//! VT-x (SDM 3C 24-31).
//!
//! | file | what it does |
//! |---|---|
//! | `vmcs` | reads and writes the current VMCS |
//! | `vcpu` | what a virtual CPU has here: creation, loading, recall |
//! | `exit` | from an exit to an event |
//! | `exception` | exceptions that always exit |
//! | `export` | moves groups of state out of the VMCS |
//! | `import` | moves groups of state into the VMCS |
//! | `instruction` | the end of the instruction that exited |

pub mod exception;
pub mod exit;
pub mod export;
pub mod import;
pub mod instruction;
pub mod vcpu;
pub mod vmcs;

use hypervisor_logic::vmx::{Controls, Refusal, VmxCapabilities, field, negotiate, unlock};
use spin::Once;
use x86_64::registers::control::{Cr0, Cr4};

use super::cpu::Block;
use super::msr::{self, CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1, FEATURE_CONTROL, Msr};
use super::vendor::Virtualization;
use super::{entry, gdt};
use crate::mem::{pool, virt};

static CONTROLS: Once<Controls> = Once::new();

/// What was negotiated at boot.
pub fn controls() -> Option<&'static Controls> {
    CONTROLS.get()
}

/// Finds out whether VT-x can be used, and how.
pub fn probe() -> Result<Virtualization, Refusal> {
    let vmx = core::arch::x86_64::__cpuid(1).ecx & 1 << 5 != 0;
    // SAFETY: only registers that the processor reports are read.
    let capabilities = VmxCapabilities::read(vmx, |msr| unsafe { Msr(msr).read() });
    let controls = negotiate(&capabilities)?;
    let controls = CONTROLS.call_once(|| controls);
    Ok(Virtualization {
        name: "VT-x",
        largest_page: match controls {
            Controls { ept_1g: true, .. } => 30,
            Controls { ept_2m: true, .. } => 21,
            _ => 12,
        },
        guards_xcr0: true,
        tells_lengths: true,
        tells_addresses: true,
    })
}

/// Enters VMX operation on this CPU (SDM 3C 24.7). Returns whether it did.
pub fn enable() -> bool {
    let (Some(controls), Some(region)) = (controls(), pool::alloc()) else { return false };
    // SAFETY: the region is a fresh page; the revision goes into its first word (SDM 3C 25.11.5). CR0 and CR4
    // get what VMX operation demands, which 64-bit mode with paging has anyway, and CR4.VMXE.
    unsafe {
        virt(region).cast::<u32>().write(controls.revision);
        match unlock(FEATURE_CONTROL.read()) {
            Ok(None) => {}
            Ok(Some(value)) => FEATURE_CONTROL.write(value),
            Err(_) => return false,
        }
        Cr0::write_raw(Cr0::read_raw() & CR0_FIXED1.read() | CR0_FIXED0.read());
        Cr4::write_raw(Cr4::read_raw() & CR4_FIXED1.read() | CR4_FIXED0.read());
        let failed: u8;
        core::arch::asm!("vmxon [{}]", "setna {}", in(reg) &region, out(reg_byte) failed, options(nostack));
        failed == 0
    }
}

/// Sets the system-call entry, and drops what firmware may have left of guests.
///
/// # Safety
/// The CPU is `block`'s, and its tables are loaded.
pub unsafe fn finish(block: &Block) {
    // SAFETY: the entry point is that of the kernel, the stack that of the CPU.
    unsafe {
        msr::SYSENTER_CS.write(u64::from(gdt::KERNEL_CODE));
        msr::SYSENTER_ESP.write(block.cpu.stack_top);
        msr::SYSENTER_EIP.write(entry::sysenter_address());
    }
    flush_all();
}

/// Drops everything that is cached of guest memory and of virtual processors, on this CPU (SDM 3C 29.4.3).
fn flush_all() {
    flush_guest();
    if controls().is_some_and(|controls| controls.vpid) {
        const ALL_CONTEXTS: u64 = 2;
        invalidate_vpid(ALL_CONTEXTS, 0);
    }
}

/// INVVPID, of a kind that negotiation has made sure of.
fn invalidate_vpid(kind: u64, vpid: u16) {
    let descriptor = [u64::from(vpid), 0];
    // SAFETY: what is dropped is read again when it is needed.
    unsafe {
        core::arch::asm!("invvpid {}, [{}]", in(reg) kind, in(reg) &descriptor, options(nostack));
    }
}

/// Drops the translations of the loaded virtual CPU's linear addresses.
pub fn flush_vpid() {
    if controls().is_some_and(|controls| controls.vpid) {
        const SINGLE_CONTEXT: u64 = 1;
        invalidate_vpid(SINGLE_CONTEXT, vmcs::read(field::VPID));
    }
}

/// Drops all translations of guest-physical addresses on this CPU.
pub fn flush_guest() {
    let descriptor = [0_u64; 2];
    // SAFETY: all-context INVEPT; negotiation has made sure of it.
    unsafe {
        core::arch::asm!("invept {}, [{}]", in(reg) 2_u64, in(reg) &descriptor, options(nostack))
    };
}

/// VPIDs.
pub fn tags() -> u32 {
    if controls().is_some_and(|controls| controls.vpid) { 1 << 16 } else { 1 }
}
