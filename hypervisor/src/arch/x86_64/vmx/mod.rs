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

use hypervisor_logic::vmx::{Controls, Refusal, VmxCapabilities, field, negotiate};
use spin::Once;
use x86_64::registers::control::{Cr0, Cr4};

use super::msr::{FEATURE_CONTROL, Msr};
use crate::mem::{pool, virt};

static CONTROLS: Once<Controls> = Once::new();

/// What was negotiated at boot.
pub fn controls() -> Option<&'static Controls> {
    CONTROLS.get()
}

/// Finds out whether VT-x can be used, and how.
pub fn probe() -> Result<&'static Controls, Refusal> {
    let vmx = core::arch::x86_64::__cpuid(1).ecx & 1 << 5 != 0;
    // SAFETY: only registers that the processor reports are read.
    let capabilities = VmxCapabilities::read(vmx, |msr| unsafe { Msr(msr).read() });
    let controls = negotiate(&capabilities)?;
    Ok(CONTROLS.call_once(|| controls))
}

/// Enters VMX operation on this CPU (SDM 3C 24.7). Returns whether it did.
pub fn enable(controls: &Controls) -> bool {
    let Some(region) = pool::alloc() else { return false };
    // SAFETY: the region is a fresh page; the revision goes into its first word (SDM 3C 25.11.5). CR0 and CR4
    // get what VMX operation demands, which 64-bit mode with paging has anyway, and CR4.VMXE.
    unsafe {
        virt(region).cast::<u32>().write(controls.revision);
        if let Some(value) = controls.unlock {
            FEATURE_CONTROL.write(value);
        }
        Cr0::write_raw(Cr0::read_raw() & controls.cr0_fixed1 | controls.cr0_fixed0);
        Cr4::write_raw(Cr4::read_raw() & controls.cr4_fixed1 | controls.cr4_fixed0);
        let failed: u8;
        core::arch::asm!("vmxon [{}]", "setna {}", in(reg) &region, out(reg_byte) failed, options(nostack));
        failed == 0
    }
}

/// Drops everything that is cached of guest memory and of virtual processors, on this CPU (SDM 3C 29.4.3).
pub fn flush_all() {
    flush_guest();
    if controls().is_some_and(|controls| controls.vpid) {
        let descriptor = [0_u64; 2];
        // SAFETY: all-context INVVPID; negotiation has made sure of it.
        unsafe {
            core::arch::asm!("invvpid {}, [{}]", in(reg) 2_u64, in(reg) &descriptor, options(nostack));
        }
    }
}

/// Drops the translations of the loaded virtual CPU's linear addresses.
pub fn flush_vpid() {
    let vpid = vmcs::read(field::VPID);
    if vpid != 0 {
        let descriptor = [u64::from(vpid), 0];
        // SAFETY: single-context INVVPID; negotiation has made sure of it.
        unsafe {
            core::arch::asm!("invvpid {}, [{}]", in(reg) 1_u64, in(reg) &descriptor, options(nostack));
        }
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

/// A tag for the translations of a new virtual CPU; 0, which means none, when they are used up.
pub fn new_vpid() -> u16 {
    use core::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    if !controls().is_some_and(|controls| controls.vpid) {
        return 0;
    }
    let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1));
    next.unwrap_or(0)
}
