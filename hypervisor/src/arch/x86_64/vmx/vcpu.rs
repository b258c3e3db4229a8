//! What a virtual CPU has on VT-x: its VMCS, and the registers that stay in the processor.

use core::mem::offset_of;

use hypervisor_logic::tags::Assigned;
use hypervisor_logic::vmx::Controls;
use hypervisor_logic::vmx::controls::{Primary, Secondary};
use hypervisor_logic::vmx::fields::field as f;
use x86_64::registers::control::{Cr0, Cr4};

use super::{exception, vmcs};
use crate::arch::cpu::{self, Cpu};
use crate::arch::msr::{self, Msr};
use crate::arch::{Resume, entry, gdt, idt, state};
use crate::mem::virt;
use crate::object::Ref;
use crate::object::ec::{Ec, Frame};
use crate::sync::Guarded;

/// The registers that stay in the processor across exits, and move only when another virtual CPU is loaded.
const RESIDENT: [Msr; 5] = [msr::STAR, msr::LSTAR, msr::CSTAR, msr::FMASK, msr::KERNEL_GS_BASE];

/// CR0 bits that the kernel owns: caching stays on, and numeric errors are reported the native way (SDM 3C 24.8).
pub const CR0_OWNED: u64 = 1 << 30 | 1 << 29 | 1 << 5;
/// CR4 bits that the kernel owns: VMXE and SMXE.
pub const CR4_OWNED: u64 = 1 << 13 | 1 << 14;

/// What a virtual CPU has on VT-x alone.
pub struct Own {
    /// Its VPID, until the CPU's tags run out.
    tag: Guarded<Assigned>,
    /// Whether its VMCS may be in a processor, of the CPU that it is bound to.
    active: Guarded<bool>,
    /// The CPU whose host state is in the VMCS.
    host: Guarded<Option<Ref<Cpu>>>,
    /// Host page-table root in the VMCS.
    host_cr3: Guarded<u64>,
    /// The registers of [`RESIDENT`] and TSC_AUX, while others are loaded.
    resident: Guarded<[u64; 6]>,
    /// CR2 and DR6 as they were when the guest was left.
    pub cr2: Guarded<u64>,
    pub dr6: Guarded<u64>,
    /// Why the processor refused to enter the guest, until it was told.
    pub entry_error: Guarded<u32>,
}

impl Own {
    /// Of a virtual CPU that has not run.
    pub const fn new() -> Self {
        Self {
            tag: Guarded::new(Assigned::NONE),
            active: Guarded::new(false),
            host: Guarded::new(None),
            host_cr3: Guarded::new(0),
            resident: Guarded::new([0; 6]),
            cr2: Guarded::new(0),
            dr6: Guarded::new(state::dr6(0)),
            entry_error: Guarded::new(0),
        }
    }

    /// Whether its VMCS may be in a processor.
    pub fn is_active(&self) -> bool {
        self.active.get()
    }

    /// The processor writes back what it holds of the VMCS (SDM 3C 25.11.1), which is launched anew when it is loaded again.
    pub fn put_down(&self, ec: &Ec) {
        if self.active.replace(false) {
            // SAFETY: it is a VMCS, and this is its CPU.
            unsafe { vmcs::clear(ec.vcpu.control) };
            self.tag.set(Assigned::NONE);
            ec.resume.set(Resume::launch());
        }
    }
}

/// Fills the VMCS of a new virtual CPU: with the root of its guest's tables, and its bitmaps if it has any.
pub fn init(ec: Ref<Ec>, root: u64, msrs: Option<u64>, ports: Option<u64>) {
    let Some(controls) = super::controls() else { return };
    let page = ec.vcpu.control;
    let cpu = cpu::cpu();
    // SAFETY: the page is fresh; the revision goes into its first word.
    unsafe {
        virt(page).cast::<u32>().write(controls.revision);
        vmcs::clear(page);
        vmcs::load(page);
    }
    clear_fields();
    init_controls(controls, root, msrs, ports);
    vmcs::write(f::VMCS_LINK_POINTER, u64::MAX);
    vmcs::write(f::CR0_MASK, CR0_OWNED);
    vmcs::write(f::CR4_MASK, CR4_OWNED);
    vmcs::write(f::GUEST_PAT, 0x0007_0406_0007_0406);
    ec.resume.set(Resume::launch());
    // SAFETY: it is a VMCS, which no CPU needs for now.
    unsafe { vmcs::clear(page) };
    // Back to the one that was loaded.
    if let Some(loaded) = cpu.vcpu.get() {
        // SAFETY: it was current on this CPU before.
        unsafe { vmcs::load(loaded.vcpu.control) };
    }
}

/// The VMCS, which is current, is launched at the next entry, whether it was before or not. Its fields stay (SDM 3C 25.11.3).
pub fn start_over(ec: &Ec) {
    // SAFETY: it is current on this CPU.
    unsafe {
        vmcs::clear(ec.vcpu.control);
        vmcs::load(ec.vcpu.control);
    }
    ec.resume.set(Resume::launch());
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

fn init_controls(controls: &Controls, ept: u64, msrs: Option<u64>, ports: Option<u64>) {
    const WALK_4_WRITE_BACK: u64 = 3 << 3 | 6;
    let mut primary = controls.primary;
    vmcs::write(f::PIN_CONTROLS, controls.pin);
    if let Some(bitmap) = ports
        && controls.io_bitmaps
    {
        primary =
            primary & !Primary::UNCONDITIONAL_IO_EXITING.bits() | Primary::USE_IO_BITMAPS.bits();
        vmcs::write(f::IO_BITMAP_A, bitmap);
        vmcs::write(f::IO_BITMAP_B, bitmap + 4096);
    }
    match msrs {
        Some(bitmap) => vmcs::write(f::MSR_BITMAP, bitmap),
        // Without a bitmap every access exits (SDM 3C 26.1.3).
        None => primary &= !Primary::USE_MSR_BITMAPS.bits(),
    }
    vmcs::write(f::PRIMARY_CONTROLS, primary);
    vmcs::write(f::SECONDARY_CONTROLS, controls.secondary);
    vmcs::write(f::EXIT_CONTROLS, controls.exit);
    vmcs::write(f::ENTRY_CONTROLS, controls.entry);
    vmcs::write(f::EXCEPTION_BITMAP, exception::ALWAYS);
    vmcs::write(f::EPT_POINTER, ept | WALK_4_WRITE_BACK);
    vmcs::write(f::XSS_EXITING_BITMAP, u64::MAX);
}

/// Host state: what belongs to this CPU.
fn init_host(cpu: &Cpu, ec: &Ec) {
    let block = cpu.block();
    // SAFETY: every 64-bit processor has these.
    let (efer, pat) = unsafe { (msr::EFER.read(), msr::PAT.read()) };
    const TASK_SWITCHED: u64 = 1 << 3;
    vmcs::write(f::HOST_CR0, Cr0::read_raw() | TASK_SWITCHED);
    vmcs::write(f::HOST_CR4, Cr4::read_raw());
    vmcs::write(f::HOST_CR3, cpu.cr3.get());
    ec.vcpu.vmx.host_cr3.set(cpu.cr3.get());
    vmcs::write(f::HOST_CS_SELECTOR, gdt::KERNEL_CODE);
    vmcs::write(f::HOST_SS_SELECTOR, gdt::KERNEL_DATA);
    vmcs::write(f::HOST_TR_SELECTOR, gdt::TSS);
    vmcs::write(f::HOST_TR_BASE, core::ptr::from_ref(&block.tss) as u64);
    vmcs::write(f::HOST_GDTR_BASE, core::ptr::from_ref(&block.gdt) as u64);
    vmcs::write(f::HOST_IDTR_BASE, idt::base());
    vmcs::write(f::HOST_EFER, efer);
    vmcs::write(f::HOST_PAT, pat);
    vmcs::write(f::HOST_SYSENTER_CS, u32::from(gdt::KERNEL_CODE));
    vmcs::write(f::HOST_SYSENTER_ESP, cpu.stack_top);
    vmcs::write(f::HOST_SYSENTER_EIP, entry::sysenter_address());
    vmcs::write(f::HOST_RIP, entry::vm_exit_address());
    let registers = offset_of!(Ec, frame) + offset_of!(Frame, gpr) + size_of::<abi::vcpu::Gprs>();
    vmcs::write(f::HOST_RSP, core::ptr::from_ref(ec) as u64 + registers as u64);
}

/// What the guest needs before it is entered, of a virtual CPU that is loaded.
#[inline(always)]
pub fn prepare(cpu: &Cpu, ec: &Ec) {
    if cpu.cr2_dr6_lost.get() {
        load_cr2_dr6(cpu, ec);
    }
    if ec.vcpu.vmx.host_cr3.get() != cpu.cr3.get() {
        // The next exit leads to where its handler was last time; or to wherever the CPU is now.
        follow_host(cpu, ec);
    }
    cpu.task_register_stale.set(true);
}

/// Whether nothing stands between a virtual CPU of VT-x and its guest. Others have no page-table root in a VMCS, so for them it is false: what [`prepare`] would do besides is noted here.
#[inline(always)]
pub fn can_go_on(cpu: &Cpu, ec: &Ec) -> bool {
    cpu.task_register_stale.set(true);
    cpu.vcpu.get() == Some(Ref::of(ec))
        && !ec.vcpu.attention.get()
        && !cpu.cr2_dr6_lost.get()
        && ec.vcpu.vmx.host_cr3.get() == cpu.cr3.get()
}

/// The exit will load the page tables that are loaded now.
#[cold]
fn follow_host(cpu: &Cpu, ec: &Ec) {
    let root = cpu.cr3.get();
    ec.vcpu.vmx.host_cr3.set(root);
    vmcs::write(f::HOST_CR3, root);
}

/// A task's page fault has overwritten the guest's CR2, or a single step its DR6.
#[cold]
fn load_cr2_dr6(cpu: &Cpu, ec: &Ec) {
    cpu.cr2_dr6_lost.set(false);
    set_dr6(ec, ec.vcpu.vmx.dr6.get());
    // SAFETY: CR2 has no effect.
    unsafe {
        core::arch::asm!("mov cr2, {}", in(reg) ec.vcpu.vmx.cr2.get(), options(nomem, nostack, preserves_flags))
    };
}

/// Takes system-call registers away from the virtual CPU that is loaded.
pub fn save(ec: &Ec) {
    ec.vcpu.vmx.resident.set(resident());
}

/// Gives `ec` VMCS and system-call registers.
pub fn load(cpu: &Cpu, ec: &Ec) {
    let own = &ec.vcpu.vmx;
    // SAFETY: it is live, and no other CPU has it; the values were a processor's before, or are the reset values.
    unsafe {
        vmcs::load(ec.vcpu.control);
        set_resident(&own.resident.get());
    }
    own.active.set(true);
    if own.host.get() != Some(Ref::of(cpu)) {
        own.host.set(Some(Ref::of(cpu)));
        init_host(cpu, ec);
    }
    cpu.cr2_dr6_lost.set(true);
    if super::controls().is_some_and(|controls| controls.vpid) {
        tag(cpu, ec);
    }
}

/// Gives the virtual CPU whose VMCS is current a VPID. Tags run out only when another one is loaded, so this is the place to look.
fn tag(cpu: &Cpu, ec: &Ec) {
    if cpu.tags().is_current(ec.vcpu.vmx.tag.get()) {
        return;
    }
    let (tag, flush) = cpu.tags().assign();
    ec.vcpu.vmx.tag.set(tag);
    vmcs::write(f::VPID, tag.tag as u16);
    if flush {
        super::flush_all();
    }
}

fn has_tsc_aux() -> bool {
    super::controls().is_some_and(|c| c.secondary & Secondary::ENABLE_RDTSCP.bits() != 0)
}

/// The system-call registers of the virtual CPU that is loaded, in the order of [`RESIDENT`], then TSC_AUX.
pub fn resident() -> [u64; 6] {
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

/// Writes them.
///
/// # Safety
/// The values are such as [`state::system_call`] gives, or as they were read.
pub unsafe fn set_resident(values: &[u64; 6]) {
    for (value, msr) in values.iter().zip(RESIDENT) {
        // SAFETY: canonical, by the caller's word.
        unsafe { msr.write(*value) };
    }
    if has_tsc_aux() {
        // SAFETY: 32 bits, by the caller's word.
        unsafe { msr::TSC_AUX.write(values[5]) };
    }
}

/// DR6 of the guest that was just left.
#[inline(always)]
pub fn dr6() -> u64 {
    let d6: u64;
    // SAFETY: reads only.
    unsafe {
        core::arch::asm!("mov {}, dr6", out(reg) d6, options(nomem, nostack, preserves_flags));
    }
    d6
}

/// Sets DR6 of the virtual CPU that is loaded.
pub fn set_dr6(ec: &Ec, value: u64) {
    let value = state::dr6(value);
    ec.vcpu.vmx.dr6.set(value);
    // SAFETY: no reserved bit is set that must be clear.
    unsafe {
        core::arch::asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags));
    }
}
