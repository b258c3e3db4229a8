//! Access to the current VMCS.

use hypervisor_logic::vmx::fields::{Field, ReadWrite, Width};

/// Makes the VMCS in `page` current on this CPU.
///
/// # Safety
/// The page is a VMCS region, and no other CPU has it current or active.
pub unsafe fn load(page: u64) {
    // SAFETY: by the caller's word; cannot fail for a region that was cleared.
    unsafe { core::arch::asm!("vmptrld [{}]", in(reg) &page, options(nostack)) };
}

/// Clears the VMCS in `page`: not current, not active, not launched.
///
/// # Safety
/// As for [`load`].
pub unsafe fn clear(page: u64) {
    // SAFETY: by the caller's word.
    unsafe { core::arch::asm!("vmclear [{}]", in(reg) &page, options(nostack)) };
}

/// Reads a field of the current VMCS. Without one, or where the processor lacks the field, the value is undefined.
#[inline(always)]
pub fn read<W: Width, A>(field: Field<W, A>) -> W {
    #[cfg(feature = "counters")]
    crate::arch::counters::count(crate::arch::counters::VMREAD);
    let value: u64;
    // SAFETY: reading a field has no effect but on the flags.
    unsafe {
        core::arch::asm!("vmread {}, {}", out(reg) value, in(reg) field.encoding(), options(nomem, nostack));
    }
    W::from_raw(value)
}

/// Writes a field of the current VMCS; no effect where the processor lacks it.
#[inline(always)]
pub fn write<W: Width>(field: Field<W, ReadWrite>, value: W) {
    #[cfg(feature = "counters")]
    crate::arch::counters::count(crate::arch::counters::VMWRITE);
    // SAFETY: guest fields are checked by the processor at entry; host fields and controls are only written by
    // `vcpu`, with values that keep the kernel sound.
    unsafe {
        core::arch::asm!("vmwrite {}, {}", in(reg) field.encoding(), in(reg) Into::<u64>::into(value), options(nostack));
    }
}
