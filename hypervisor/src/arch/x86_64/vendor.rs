//! Which of the two virtualization extensions runs the guests, and what depends on it.
//!
//! Everything that names a vendor is in `vmx` and `svm`; both offer the same functions, and what the rest of the kernel
//! needs of them goes through here or through [`super::vcpu`]. Where a virtual CPU is at hand its
//! [`Kind`](crate::object::ec::Kind) tells the vendor, at the price of the comparison that tells virtual CPUs from threads.

use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu::{Block, Cpu};
use super::{svm, vmx};
use crate::panic::refuse;

/// A virtualization extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Vendor {
    /// VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// Whether it is [`Vendor::Svm`].
static SVM: AtomicBool = AtomicBool::new(false);

/// The extension of this machine.
#[inline(always)]
pub fn vendor() -> Vendor {
    if SVM.load(Ordering::Relaxed) { Vendor::Svm } else { Vendor::Vmx }
}

/// What matters of the extension to the rest of the kernel.
pub struct Virtualization {
    /// Its name.
    pub name: &'static str,
    /// log2 of the largest page that guest tables can have.
    pub largest_page: u32,
    /// Whether a guest's XSETBV exits: without that no guest is offered XSAVE.
    pub guards_xcr0: bool,
    /// Whether exits due to an instruction tell its length.
    pub tells_lengths: bool,
    /// Whether exits due to an access to guest memory tell its linear address.
    pub tells_addresses: bool,
}

/// Finds out which extension can be used, and how; without one this is the end.
pub fn probe() -> Virtualization {
    use hypervisor_logic::refusal::Refusal::Absent;
    let found = match vmx::probe() {
        Err(Absent(_)) => svm::probe().inspect(|_| SVM.store(true, Ordering::Relaxed)),
        found => found,
    };
    found.unwrap_or_else(|refusal| match refusal {
        Absent(_) => refuse(format_args!("no VT-x and no AMD-V")),
        refusal => refuse(format_args!("{refusal}")),
    })
}

/// How many tags translations for guests can have, with that of the host.
pub fn tags() -> u32 {
    match vendor() {
        Vendor::Vmx => vmx::tags(),
        Vendor::Svm => svm::tags(),
    }
}

/// Turns the extension on, on this CPU. Returns whether that worked.
pub fn enable() -> bool {
    match vendor() {
        Vendor::Vmx => vmx::enable(),
        Vendor::Svm => svm::enable(),
    }
}

/// With the CPU's own tables loaded: the system-call entry, and a clean start for guests.
///
/// # Safety
/// `block` is this CPU's, filled, and its tables are loaded.
pub unsafe fn finish(block: &'static Block) {
    // SAFETY: by the caller's word.
    unsafe {
        match vendor() {
            Vendor::Vmx => vmx::finish(block),
            Vendor::Svm => svm::finish(block),
        }
    }
}

/// Guest tables have lost something: drops what this CPU has cached of them.
pub fn flush_guest(cpu: &Cpu) {
    match vendor() {
        Vendor::Vmx => vmx::flush_guest(),
        Vendor::Svm => svm::flush_guest(cpu),
    }
}
