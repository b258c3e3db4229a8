//! What a virtual CPU has on AMD-V: its VMCB, its tag, and what the processor does not keep.

use hypervisor_logic::svm::fields::field as f;
use hypervisor_logic::svm::intercepts::{
    ControlRegisters, DEBUG_REGISTERS, Misc1, Misc2, Misc3, VirtualInterrupt, tlb_control,
};
use hypervisor_logic::tags::Assigned;

use super::nmi::Nmi;
use super::vmcb::Vmcb;
use super::{EFER_SVME, event, exception};
use crate::arch::cpu::Cpu;
use crate::arch::interrupts::KICK;
use crate::arch::msr::TSC_AUX;
use crate::arch::{Resume, bitmaps, lapic};
use crate::object::Ref;
use crate::object::ec::Ec;
use crate::sync::Guarded;

/// What a virtual CPU has on AMD-V alone.
pub struct Own {
    /// Its ASID here, until the CPU's tags run out.
    tag: Guarded<Assigned>,
    /// TSC_AUX, while another is loaded.
    tsc_aux: Guarded<u64>,
    /// Its NMIs.
    pub nmi: Nmi,
    /// Whether the VMM waits for the guest to take interrupts.
    pub interrupt_window: Guarded<bool>,
    /// Bits of `VcpuState::intercepts`.
    pub intercepts: Guarded<u32>,
    /// RIP of the instruction whose software interrupt is to be delivered on a processor without next RIP: in the VMCB it is the
    /// address to come back to already, which is here as well.
    pub soft_event: Guarded<Option<[u64; 2]>>,
}

impl Own {
    /// Of a virtual CPU that has not run.
    pub const fn new() -> Self {
        Self {
            tag: Guarded::new(Assigned::NONE),
            tsc_aux: Guarded::new(0),
            nmi: Nmi::new(),
            interrupt_window: Guarded::new(false),
            intercepts: Guarded::new(0),
            soft_event: Guarded::new(None),
        }
    }

    /// What is cached of its guest is out of date, or on another CPU.
    pub fn forget_tag(&self) {
        self.tag.set(Assigned::NONE);
    }
}

/// What exits whatever the VMM asks for.
const MISC1: Misc1 = Misc1::INTR
    .union(Misc1::NMI)
    .union(Misc1::INIT)
    .union(Misc1::RDPMC)
    .union(Misc1::CPUID)
    .union(Misc1::INVD)
    .union(Misc1::HLT)
    .union(Misc1::INVLPGA)
    .union(Misc1::IOIO_PROT)
    .union(Misc1::MSR_PROT)
    .union(Misc1::TASK_SWITCH)
    .union(Misc1::FERR_FREEZE)
    .union(Misc1::SHUTDOWN);
const MISC2: Misc2 = Misc2::VMRUN
    .union(Misc2::VMMCALL)
    .union(Misc2::VMLOAD)
    .union(Misc2::VMSAVE)
    .union(Misc2::STGI)
    .union(Misc2::CLGI)
    .union(Misc2::SKINIT)
    .union(Misc2::WBINVD)
    .union(Misc2::MONITOR)
    .union(Misc2::MWAIT)
    .union(Misc2::XSETBV)
    .union(Misc2::RDPRU);
const MISC3: Misc3 =
    Misc3::INVLPGB.union(Misc3::INVLPGB_ILLEGAL).union(Misc3::MCOMMIT).union(Misc3::TLBSYNC);

/// Fills the VMCB of a new virtual CPU, whose page is zero: with the root of its guest's tables, and its bitmaps if it has any.
pub fn init(ec: Ref<Ec>, root: u64, msrs: Option<u64>, ports: Option<u64>) {
    let vmcb = Vmcb::of(&ec);
    let (all_ports, all_msrs) = bitmaps::deny_all();
    own(&ec);
    vmcb.write(f::INTERCEPT_MISC3, MISC3.bits());
    vmcb.write(f::IOPM_BASE, ports.unwrap_or(all_ports));
    vmcb.write(f::MSRPM_BASE, msrs.unwrap_or(all_msrs));
    vmcb.write(f::NP_ENABLE, 1);
    vmcb.write(f::N_CR3, root);
    vmcb.write(f::GUEST_EFER, EFER_SVME);
    vmcb.write(f::GUEST_PAT, 0x0007_0406_0007_0406);
    ec.resume.set(Resume::svm());
}

/// Sets the intercept words from what the VMM asks for and what the kernel needs now.
pub fn intercept(ec: &Ec) {
    /// CR0.MP and CR0.TS: writes that change nothing else do not count as selective.
    const MP_TS: u64 = 1 << 1 | 1 << 3;
    let vmcb = Vmcb::of(ec);
    let wanted = ec.vcpu.svm.intercepts.get();
    let [cr0, cr4] = ec.vcpu.masks.get();
    let mut registers = ControlRegisters::READ_CR8 | ControlRegisters::WRITE_CR8;
    registers.set(ControlRegisters::WRITE_CR0, cr0 & MP_TS != 0);
    registers.set(ControlRegisters::WRITE_CR4, cr4 != 0);
    let mut misc1 = MISC1;
    misc1.set(Misc1::CR0_SEL_WRITE, cr0 != 0);
    misc1.set(Misc1::RDTSC, wanted & 1 != 0);
    misc1.set(Misc1::PAUSE, wanted & 2 != 0);
    misc1.set(Misc1::IRET, ec.vcpu.svm.nmi.watches_iret());
    misc1.set(Misc1::VINTR, ec.vcpu.svm.interrupt_window.get());
    let debug = if wanted & 4 != 0 { DEBUG_REGISTERS } else { 0 };
    let mut misc2 = MISC2;
    misc2.set(Misc2::RDTSCP, wanted & 1 != 0);
    vmcb.write(f::INTERCEPT_CONTROL_REGISTERS, registers.bits());
    vmcb.write(f::INTERCEPT_DEBUG_REGISTERS, debug);
    vmcb.write(f::INTERCEPT_EXCEPTIONS, ec.vcpu.exceptions.get() | exception::ALWAYS);
    vmcb.write(f::INTERCEPT_MISC1, misc1.bits());
    vmcb.write(f::INTERCEPT_MISC2, misc2.bits());
}

/// Asks for the exit that comes when the guest can take an interrupt, or no longer: a virtual interrupt is pending,
/// and its delivery is intercepted.
pub fn set_interrupt_window(ec: &Ec, on: bool) {
    ec.vcpu.svm.interrupt_window.set(on);
    own(ec);
}

/// Writes the fields that are the kernel's own, whatever they hold.
pub fn own(ec: &Ec) {
    let vmcb = Vmcb::of(ec);
    let mut interrupt = VirtualInterrupt::INTR_MASKING;
    let asked = VirtualInterrupt::IRQ | VirtualInterrupt::IGNORE_TPR;
    interrupt.set(asked, ec.vcpu.svm.interrupt_window.get());
    vmcb.write(f::V_INTR, interrupt.bits());
    intercept(ec);
}

/// Gives a virtual CPU that is loaded a valid tag.
#[inline(always)]
pub fn prepare(cpu: &Cpu, ec: &Ec) {
    if !cpu.tags().is_current(ec.vcpu.svm.tag.get()) {
        new_tag(cpu, ec);
    }
    if super::is_emulated_by_qemu() && event::injects_interrupt(Vmcb::of(ec)) {
        // It remembers the interrupt as an exception that is not delivered yet, and delivers it a second time, whatever the guest's IF,
        // if its own threads interrupt it before the guest is left. With an interrupt that waits, the guest is left at once.
        lapic::send(cpu.apic, lapic::FIXED | u32::from(KICK));
    }
}

/// Whether nothing stands between a virtual CPU and its guest.
#[inline(always)]
pub fn can_go_on(cpu: &Cpu, ec: &Ec) -> bool {
    cpu.vcpu.get() == Some(Ref::of(ec))
        && !ec.vcpu.attention.get()
        && cpu.tags().is_current(ec.vcpu.svm.tag.get())
}

#[cold]
fn new_tag(cpu: &Cpu, ec: &Ec) {
    let (tag, flush) = cpu.tags().assign();
    let vmcb = Vmcb::of(ec);
    ec.vcpu.svm.tag.set(tag);
    vmcb.write(f::ASID, tag.tag);
    // The exit sets it back: it counts for one VMRUN.
    vmcb.write(f::TLB_CONTROL, if flush { tlb_control::ALL } else { tlb_control::NONE });
}

/// Takes TSC_AUX away from the virtual CPU that is loaded: all that VMSAVE does not move.
pub fn save(ec: &Ec) {
    ec.vcpu.svm.tsc_aux.set(tsc_aux(ec));
}

/// Gives `ec` what VMLOAD does not move.
pub fn load(ec: &Ec) {
    set_tsc_aux(ec, ec.vcpu.svm.tsc_aux.get());
    Vmcb::of(ec).none_clean();
}

fn has_tsc_aux() -> bool {
    super::controls().is_some_and(|controls| controls.rdtscp)
}

/// TSC_AUX of `ec`, which is loaded.
pub fn tsc_aux(ec: &Ec) -> u64 {
    if has_tsc_aux() {
        // SAFETY: RDTSCP is there, so this is as well.
        unsafe { TSC_AUX.read() }
    } else {
        ec.vcpu.svm.tsc_aux.get()
    }
}

/// Writes TSC_AUX of `ec`, which is loaded, to a value of 32 bits.
pub fn set_tsc_aux(ec: &Ec, value: u64) {
    ec.vcpu.svm.tsc_aux.set(value);
    if has_tsc_aux() {
        // SAFETY: as above.
        unsafe { TSC_AUX.write(value) };
    }
}
