//! Access to the VMCB of a virtual CPU: plain memory, which the processor reads at VMRUN and writes at the exit.

use hypervisor_logic::svm::fields::{Clean, Field, field as f};

use crate::arch::vcpu;
use crate::object::ec::Ec;

/// A VMCB.
#[derive(Clone, Copy)]
pub struct Vmcb(*mut u8);

impl Vmcb {
    /// The one of a virtual CPU.
    #[inline(always)]
    pub fn of(ec: &Ec) -> Self {
        Self(vcpu::control(ec))
    }

    /// Reads a field.
    #[inline(always)]
    pub fn read<W: Copy>(self, field: Field<W>) -> W {
        // SAFETY: fields hold integers, lie inside the page and are aligned; the virtual CPU is bound to this CPU, which is not in its guest.
        unsafe { self.0.add(field.offset()).cast::<W>().read() }
    }

    /// Writes a field, and makes the processor load it at the next VMRUN. What is written is checked by the processor, or by
    /// the caller if it concerns the host.
    #[inline(always)]
    pub fn write<W: Copy>(self, field: Field<W>, value: W) {
        // SAFETY: as above.
        unsafe { self.0.add(field.offset()).cast::<W>().write(value) };
        if !field.clean().is_empty() {
            self.dirty(field.clean());
        }
    }

    #[inline(always)]
    fn dirty(self, group: Clean) {
        let clean = self.read(f::CLEAN);
        self.write(f::CLEAN, clean & !group.bits());
    }

    /// The guest was left: the processor may use what it has cached, but for what is written from now on.
    #[inline(always)]
    pub fn all_clean(self) {
        self.write(f::CLEAN, Clean::all().bits());
    }

    /// Clears the registers of the guest: whoever wants to go on from here has to set them all.
    pub fn forget_state(self) {
        // SAFETY: the rest of the page, from the state save area on (APM 2 appendix B).
        unsafe { self.0.add(0x400).write_bytes(0, 0xc00) };
        // Not a state that could be entered: NW without CD (APM 2 15.5.1).
        self.write(f::GUEST_CR0, 1 << 29);
        self.write(f::GUEST_EFER, super::EFER_SVME);
    }

    /// Nothing may be taken from a cache: the VMCB is new to this CPU.
    pub fn none_clean(self) {
        self.write(f::CLEAN, 0);
    }
}
