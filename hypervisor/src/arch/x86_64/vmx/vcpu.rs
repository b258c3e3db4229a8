//! Virtual CPUs on VT-x: creation, loading, recall.

use core::mem::offset_of;

use abi::hypercall::Status;
use abi::vcpu::Exit;
use hypervisor_logic::vmx::Controls;
use hypervisor_logic::vmx::controls::{Primary, Secondary};
use hypervisor_logic::vmx::fields::field as f;
use x86_64::registers::control::{Cr0, Cr4};

use super::{exception, vmcs};
use crate::arch::cpu::{self, Cpu};
use crate::arch::msr::{self, Msr};
use crate::arch::trap::print_registers;
use crate::arch::{Resume, entry, fpu, gdt, idt};
use crate::mem::virt;
use crate::object::Ref;
use crate::object::ec::{Ec, Frame, Retry};
use crate::object::pd::Pd;
use crate::object::space::{Space, Table};
use crate::sched::Next;
use crate::sched::timeout::Owner;
use crate::sync::Local;
use crate::{ipc, println, sched};

/// The registers that stay in the processor across exits, and move only when another virtual CPU is loaded.
const RESIDENT: [Msr; 5] = [msr::STAR, msr::LSTAR, msr::CSTAR, msr::FMASK, msr::KERNEL_GS_BASE];

/// CR0 bits that the kernel owns: caching stays on, and numeric errors are reported the native way (SDM 3C 24.8).
pub const CR0_OWNED: u64 = 1 << 30 | 1 << 29 | 1 << 5;
/// CR4 bits that the kernel owns: VMXE and SMXE.
pub const CR4_OWNED: u64 = 1 << 13 | 1 << 14;

/// The part of an execution context that only a virtual CPU uses.
pub struct Vcpu {
    /// Its VMCS.
    pub vmcs: u64,
    /// FPU and vector state while others have the registers.
    fpu: u64,
    /// Its MSR space, if it has one.
    pub msrs: Option<Ref<Space>>,
    /// Host page-table root in the VMCS.
    pub host_cr3: Local<u64>,
    /// Whether it must leave its guest before the next instruction.
    pub recalled: Local<bool>,
    /// Absolute deadline.
    pub deadline: Local<u64>,
    /// XCR0.
    pub xcr0: Local<u64>,
    /// What the VMM owns of CR0 and CR4.
    pub masks: Local<[u64; 2]>,
    /// Exceptions that the VMM wants.
    pub exceptions: Local<u32>,
    /// Debug registers 0 to 3 and 6.
    pub debug: Local<[u64; 5]>,
    /// The registers of [`RESIDENT`] and TSC_AUX, while others are loaded.
    resident: Local<[u64; 6]>,
    /// CR2 as it was when the guest was left.
    pub cr2: Local<u64>,
    /// VM-instruction error of an entry that was refused, else 0.
    pub entry_error: Local<u32>,
    /// Last exit that went to the VMM.
    pub last_exit: Local<u8>,
}

impl Vcpu {
    /// Of a thread.
    pub const fn none() -> Self {
        Self::with(0, 0, None)
    }

    const fn with(vmcs: u64, fpu: u64, msrs: Option<Ref<Space>>) -> Self {
        Self {
            vmcs,
            fpu,
            msrs,
            host_cr3: Local::new(0),
            recalled: Local::new(false),
            deadline: Local::new(u64::MAX),
            xcr0: Local::new(1),
            masks: Local::new([0; 2]),
            exceptions: Local::new(0),
            debug: Local::new([0, 0, 0, 0, 0xffff_0ff0]),
            resident: Local::new([0; 6]),
            cr2: Local::new(0),
            entry_error: Local::new(0),
            last_exit: Local::new(Exit::Startup as u8),
        }
    }

    /// Takes the pages that a virtual CPU needs, on the account of `pd`.
    pub fn new(pd: &Pd, msrs: Option<Ref<Space>>) -> Result<Self, Status> {
        let vmcs = pd.account.take_page().ok_or(Status::Quota)?;
        let Some(fpu) = pd.account.take_page() else {
            // SAFETY: it was just taken.
            unsafe { pd.account.give_page(vmcs) };
            return Err(Status::Quota);
        };
        fpu::init_area(fpu);
        Ok(Self::with(vmcs, fpu, msrs))
    }

    /// Gives the pages back, of a virtual CPU that never ran.
    pub fn free(self, pd: &Pd) {
        // SAFETY: nothing refers to them yet.
        unsafe {
            pd.account.give_page(self.vmcs);
            pd.account.give_page(self.fpu);
        }
    }
}

/// Fills the VMCS of a new virtual CPU: everything but the guest state, which the VMM sets at its startup.
pub fn init(ec: Ref<Ec>, guest: &Space, ports: Option<&Space>) -> Result<(), Status> {
    let controls = super::controls().ok_or(Status::BadFeature)?;
    let Table::Guest(table) = &guest.table else { return Err(Status::BadCap) };
    let page = ec.vcpu.vmcs;
    let cpu = cpu::cpu();
    // SAFETY: the page is fresh; the revision goes into its first word.
    unsafe {
        virt(page).cast::<u32>().write(controls.revision);
        vmcs::clear(page);
        vmcs::load(page);
    }
    clear_fields();
    init_controls(&ec, controls, table.root, ports, super::new_vpid());
    init_host(&ec);
    vmcs::write(f::VMCS_LINK_POINTER, u64::MAX);
    vmcs::write(f::CR0_MASK, CR0_OWNED);
    vmcs::write(f::CR4_MASK, CR4_OWNED);
    vmcs::write(f::GUEST_PAT, 0x0007_0406_0007_0406);
    ec.kernel_stack.set(cpu.stack_top());
    ec.resume.set(Resume::launch());
    ec.retry.set(Retry::Event(ec.events.wrapping_add(Exit::Startup as u32)));
    // Back to the one that was loaded.
    if let Some(loaded) = cpu.vcpu.get() {
        // SAFETY: it was current on this CPU before.
        unsafe { vmcs::load(loaded.vcpu.vmcs) };
    }
    Ok(())
}

/// A cleared VMCS holds nothing in particular (SDM 3C 25.11.3): the fields that nothing else writes become zero.
fn clear_fields() {
    vmcs::write(f::PAGE_FAULT_ERROR_MASK, 0);
    vmcs::write(f::PAGE_FAULT_ERROR_MATCH, 0);
    vmcs::write(f::CR3_TARGET_COUNT, 0);
    vmcs::write(f::EXIT_MSR_STORE_COUNT, 0);
    vmcs::write(f::EXIT_MSR_LOAD_COUNT, 0);
    vmcs::write(f::ENTRY_MSR_LOAD_COUNT, 0);
    vmcs::write(f::ENTRY_INTERRUPTION_INFO, 0);
    vmcs::write(f::TSC_OFFSET, 0);
    vmcs::write(f::CR0_READ_SHADOW, 0);
    vmcs::write(f::CR4_READ_SHADOW, 0);
    vmcs::write(f::GUEST_ACTIVITY, 0);
    vmcs::write(f::GUEST_INTERRUPTIBILITY, 0);
    vmcs::write(f::GUEST_PENDING_DEBUG, 0);
    vmcs::write(f::GUEST_DEBUGCTL, 0);
    for selector in
        [f::HOST_DS_SELECTOR, f::HOST_ES_SELECTOR, f::HOST_FS_SELECTOR, f::HOST_GS_SELECTOR]
    {
        vmcs::write(selector, 0);
    }
    vmcs::write(f::HOST_FS_BASE, 0);
    vmcs::write(f::HOST_GS_BASE, 0);
}

fn init_controls(ec: &Ec, controls: &Controls, ept: u64, ports: Option<&Space>, vpid: u16) {
    const WALK_4_WRITE_BACK: u64 = 3 << 3 | 6;
    let mut primary = controls.primary;
    vmcs::write(f::PIN_CONTROLS, controls.pin);
    if let Some(Space { table: Table::Port(bitmap), .. }) = ports
        && controls.io_bitmaps
    {
        primary =
            primary & !Primary::UNCONDITIONAL_IO_EXITING.bits() | Primary::USE_IO_BITMAPS.bits();
        vmcs::write(f::IO_BITMAP_A, bitmap.pages[0]);
        vmcs::write(f::IO_BITMAP_B, bitmap.pages[1]);
    }
    match ec.vcpu.msrs.as_deref() {
        Some(Space { table: Table::Msr(bitmap), .. }) => vmcs::write(f::MSR_BITMAP, bitmap.page),
        // Without a bitmap every access exits (SDM 3C 26.1.3).
        _ => primary &= !Primary::USE_MSR_BITMAPS.bits(),
    }
    vmcs::write(f::PRIMARY_CONTROLS, primary);
    let mut secondary = controls.secondary;
    if vpid == 0 {
        secondary &= !Secondary::ENABLE_VPID.bits();
    }
    vmcs::write(f::SECONDARY_CONTROLS, secondary);
    vmcs::write(f::EXIT_CONTROLS, controls.exit);
    vmcs::write(f::ENTRY_CONTROLS, controls.entry);
    vmcs::write(f::EXCEPTION_BITMAP, exception::ALWAYS);
    vmcs::write(f::EPT_POINTER, ept | WALK_4_WRITE_BACK);
    vmcs::write(f::VPID, vpid);
    vmcs::write(f::XSS_EXITING_BITMAP, u64::MAX);
}

/// Host state: what belongs to this CPU.
fn init_host(ec: &Ec) {
    let block = cpu::block();
    let cpu = &block.cpu;
    // SAFETY: every 64-bit processor has these.
    let (efer, pat) = unsafe { (msr::EFER.read(), msr::PAT.read()) };
    const TASK_SWITCHED: u64 = 1 << 3;
    vmcs::write(f::HOST_CR0, Cr0::read_raw() | TASK_SWITCHED);
    vmcs::write(f::HOST_CR4, Cr4::read_raw());
    vmcs::write(f::HOST_CR3, cpu.cr3.get());
    ec.vcpu.host_cr3.set(cpu.cr3.get());
    vmcs::write(f::HOST_CS_SELECTOR, gdt::KERNEL_CODE);
    vmcs::write(f::HOST_SS_SELECTOR, gdt::KERNEL_DATA);
    vmcs::write(f::HOST_TR_SELECTOR, gdt::TSS);
    vmcs::write(f::HOST_TR_BASE, core::ptr::from_ref(&block.tss) as u64);
    vmcs::write(f::HOST_GDTR_BASE, core::ptr::from_ref(&block.gdt) as u64);
    vmcs::write(f::HOST_IDTR_BASE, idt::base());
    vmcs::write(f::HOST_EFER, efer);
    vmcs::write(f::HOST_PAT, pat);
    vmcs::write(f::HOST_SYSENTER_CS, u32::from(gdt::KERNEL_CODE));
    vmcs::write(f::HOST_SYSENTER_ESP, cpu.stack_top());
    vmcs::write(f::HOST_SYSENTER_EIP, entry::sysenter_address());
    vmcs::write(f::HOST_RIP, entry::vm_exit_address());
    let registers = offset_of!(Ec, frame) + offset_of!(Frame, gpr) + size_of::<abi::vcpu::Gprs>();
    vmcs::write(f::HOST_RSP, core::ptr::from_ref(ec) as u64 + registers as u64);
}

/// Makes `ec` the virtual CPU that is loaded, and decides whether it enters its guest or has to report first.
#[inline(always)]
pub fn load(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    if cpu.vcpu.get() != Some(ec) {
        swap(cpu, ec);
    }
    if ec.vcpu.recalled.get() {
        ec.vcpu.recalled.set(false);
        ec.vcpu.last_exit.set(Exit::Recall as u8);
        return ipc::event(cpu, ec, ec.events.wrapping_add(Exit::Recall as u32));
    }
    if cpu.cr2_lost.get() {
        load_cr2(cpu, &ec);
    }
    if ec.vcpu.host_cr3.get() != cpu.cr3.get() {
        // The next exit leads to where its handler was last time; or to wherever the CPU is now.
        follow_host(cpu, &ec);
    }
    cpu.task_register_stale.set(true);
    Some(ec)
}

/// Whether nothing stands between a virtual CPU and its guest: what [`load`] would do besides is noted here.
#[inline(always)]
pub fn can_go_on(cpu: &Cpu, ec: &Ec) -> bool {
    cpu.task_register_stale.set(true);
    cpu.vcpu.get() == Some(Ref::of(ec))
        && !ec.vcpu.recalled.get()
        && !cpu.cr2_lost.get()
        && ec.vcpu.host_cr3.get() == cpu.cr3.get()
}

/// The exit will load the page tables that are loaded now.
#[cold]
fn follow_host(cpu: &Cpu, ec: &Ec) {
    let root = cpu.cr3.get();
    ec.vcpu.host_cr3.set(root);
    vmcs::write(f::HOST_CR3, root);
}

/// A task's page fault has overwritten the guest's CR2.
#[cold]
fn load_cr2(cpu: &Cpu, ec: &Ec) {
    cpu.cr2_lost.set(false);
    // SAFETY: CR2 has no effect.
    unsafe {
        core::arch::asm!("mov cr2, {}", in(reg) ec.vcpu.cr2.get(), options(nomem, nostack, preserves_flags))
    };
}

/// Takes the registers away from the virtual CPU that has them and gives them to `ec`.
#[cold]
fn swap(cpu: &Cpu, ec: Ref<Ec>) {
    let old = cpu.vcpu.replace(Some(ec));
    // SAFETY: both are live and bound to this CPU; the values were this processor's before, or are the reset values.
    unsafe {
        vmcs::load(ec.vcpu.vmcs);
        if let Some(old) = old {
            old.vcpu.resident.set(save_resident());
            old.vcpu.debug.set(save_debug());
        }
        load_resident(&ec.vcpu.resident.get());
        load_debug(&ec.vcpu.debug.get());
    }
    cpu.cr2_lost.set(true);
    fpu::switch(old.map(|old| old.vcpu.fpu), ec.vcpu.fpu, ec.vcpu.xcr0.get());
}

fn has_tsc_aux() -> bool {
    super::controls().is_some_and(|c| c.secondary & Secondary::ENABLE_RDTSCP.bits() != 0)
}

unsafe fn save_resident() -> [u64; 6] {
    let mut values = [0; 6];
    for (value, msr) in values.iter_mut().zip(RESIDENT) {
        // SAFETY: every 64-bit processor has these registers.
        *value = unsafe { msr.read() };
    }
    if has_tsc_aux() {
        // SAFETY: RDTSCP is there, so this is as well.
        values[5] = unsafe { msr::TSC_AUX.read() };
    }
    values
}

unsafe fn load_resident(values: &[u64; 6]) {
    for (value, msr) in values.iter().zip(RESIDENT) {
        // SAFETY: canonical, by `set_resident`.
        unsafe { msr.write(*value) };
    }
    if has_tsc_aux() {
        // SAFETY: 32 bits, by `set_resident`.
        unsafe { msr::TSC_AUX.write(values[5]) };
    }
}

/// Reads the system-call registers of `ec`, in the order STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE, TSC_AUX.
pub fn resident(cpu: &Cpu, ec: &Ec) -> [u64; 6] {
    if cpu.vcpu.get() == Some(Ref::of(ec)) {
        // SAFETY: they are in the processor.
        unsafe { save_resident() }
    } else {
        ec.vcpu.resident.get()
    }
}

/// Writes the system-call registers of `ec`, which is loaded. Addresses are made canonical, TSC_AUX is cut to 32 bits.
pub fn set_resident(ec: &Ec, values: [u64; 6]) {
    let canonical = |value: u64| ((value as i64) << 16 >> 16) as u64;
    let [star, lstar, cstar, fmask, gs, aux] = values;
    let values = [
        star,
        canonical(lstar),
        canonical(cstar),
        fmask & 0xffff_ffff,
        canonical(gs),
        aux & 0xffff_ffff,
    ];
    ec.vcpu.resident.set(values);
    // SAFETY: checked above.
    unsafe { load_resident(&values) };
}

unsafe fn save_debug() -> [u64; 5] {
    let (d0, d1, d2, d3, d6): (u64, u64, u64, u64, u64);
    // SAFETY: reads only.
    unsafe {
        core::arch::asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6",
            out(reg) d0, out(reg) d1, out(reg) d2, out(reg) d3, out(reg) d6, options(nomem, nostack, preserves_flags));
    }
    [d0, d1, d2, d3, d6]
}

unsafe fn load_debug(values: &[u64; 5]) {
    // SAFETY: DR7 enables none of them while the kernel runs (SDM 3C 28.5.1), DR6 is masked by `set_debug`.
    unsafe {
        core::arch::asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}",
            in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3], in(reg) values[4],
            options(nomem, nostack, preserves_flags));
    }
}

/// Debug registers 0 to 3 and 6 of `ec`.
pub fn debug(cpu: &Cpu, ec: &Ec) -> [u64; 5] {
    if cpu.vcpu.get() == Some(Ref::of(ec)) {
        // SAFETY: they are in the processor.
        unsafe { save_debug() }
    } else {
        ec.vcpu.debug.get()
    }
}

/// Writes debug registers 0 to 3 and 6 of `ec`, which is loaded.
pub fn set_debug(ec: &Ec, mut values: [u64; 5]) {
    values[4] = values[4] & 0xe00f | 0xffff_0ff0;
    ec.vcpu.debug.set(values);
    // SAFETY: DR6 has no reserved bit set that must be clear.
    unsafe { load_debug(&values) };
}

/// Makes `ec` the loaded one, to read or write its state.
#[inline(always)]
pub fn ensure_loaded(cpu: &Cpu, ec: &Ec) {
    if cpu.vcpu.get() != Some(Ref::of(ec)) {
        swap(cpu, Ref::of(ec));
    }
}

/// Makes a virtual CPU leave its guest. It is bound to this CPU, which is in the kernel, so it is not in its guest now.
pub fn recall(ec: Ref<Ec>) {
    ec.vcpu.recalled.set(true);
}

/// The deadline of a virtual CPU has passed, and is used up.
pub fn deadline_passed(ec: Ref<Ec>) {
    ec.vcpu.deadline.set(u64::MAX);
    recall(ec);
}

/// Sets the deadline of a virtual CPU.
pub fn set_deadline(cpu: &Cpu, ec: Ref<Ec>, deadline: u64) {
    if ec.vcpu.deadline.replace(deadline) != deadline
        && cpu.timeouts.arm(&ec.timeout, Owner::Ec(ec), deadline)
    {
        sched::refresh_timer(cpu);
    }
}

/// Tells people about an exit that nobody takes.
pub fn report(cpu: &Cpu, ec: &Ec, why: &str) {
    ensure_loaded(cpu, ec);
    println!(
        "a virtual CPU of domain {:#x} is ended: {why} (exit {:?}, reason {:#x}, qualification {:#x})",
        Ref::of(&*ec.pd).address(),
        Exit::ALL.get(usize::from(ec.vcpu.last_exit.get())),
        vmcs::read(f::EXIT_REASON),
        vmcs::read(f::EXIT_QUALIFICATION),
    );
    println!(
        "  rip {:#x}:{:#018x} rsp {:#018x} rflags {:#x} cr0 {:#x} cr3 {:#x} cr4 {:#x}",
        vmcs::read(f::GUEST_CS_SELECTOR),
        vmcs::read(f::GUEST_RIP),
        vmcs::read(f::GUEST_RSP),
        vmcs::read(f::GUEST_RFLAGS),
        vmcs::read(f::GUEST_CR0),
        vmcs::read(f::GUEST_CR3),
        vmcs::read(f::GUEST_CR4),
    );
    print_registers(&ec.regs().gpr);
}
