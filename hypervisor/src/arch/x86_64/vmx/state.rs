//! Moving groups of state between the VMCS and a UTCB.
//!
//! The masks of hot portals have movers of their own, in which every test of the mask is decided at compile time; all others
//! share one that tests. Of the replies, the usual one has a way of its own.

use abi::utcb::Utcb;
use abi::vcpu::{
    Event, Exit, Groups, PortAccess, Segment, TableRegister, VcpuState, Window, blocking,
};
use hypervisor_logic::vmx::controls::{EntryControls, Primary};
use hypervisor_logic::vmx::fields::{Field16, Field32, FieldNatural, field as f};

use super::exit::ENTRY_FAILED;
use super::vcpu::{self, CR0_OWNED, CR4_OWNED};
use super::{exception, vmcs};
use crate::arch::cpu::Cpu;
use crate::arch::fpu;
use crate::object::Ref;
use crate::object::ec::Ec;

/// Moves the groups of one mask out of a virtual CPU. The mask itself is for the mover that serves all.
pub type StateMover = fn(&Cpu, &Ec, u64, &mut VcpuState);

macro_rules! hot_exports {
    ($mask:expr, [$($hot:expr),* $(,)?]) => {
        $(if $mask == $hot.0 {
            return |cpu, ec, _, state| export::<{ $hot.0 }>(cpu, ec, $hot.0, state);
        })*
    };
}

/// A mask for which nothing is known at compile time.
const ANY: u64 = u64::MAX;

const IO: Groups = Groups::ACDB.union(Groups::QUAL);
const MMIO: Groups = Groups::GPRS
    .union(Groups::RIP)
    .union(Groups::RFLAGS)
    .union(Groups::QUAL)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS);

/// The mover for a mask.
pub fn mover(mask: u64) -> StateMover {
    hot_exports!(mask, [Groups::NONE, Groups::ACDB, Groups::QUAL, IO, MMIO]);
    |cpu, ec, mask, state| export::<ANY>(cpu, ec, mask, state)
}

/// Fills the UTCB of a handler with what its portal asks for.
#[inline(always)]
pub fn export_state(cpu: &Cpu, ec: &Ec, mover: StateMover, mask: u64, utcb: *mut Utcb) {
    vcpu::ensure_loaded(cpu, ec);
    // SAFETY: the handler has a UTCB for life; a state fits its words, any bit pattern is valid.
    mover(cpu, ec, mask, unsafe { &mut *utcb.cast::<VcpuState>() });
}

/// Takes the groups that a reply names out of the UTCB of its handler.
pub fn import_state(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) {
    vcpu::ensure_loaded(cpu, ec);
    // SAFETY: as above.
    import(cpu, ec, mask, unsafe { &*utcb.cast::<VcpuState>() });
}

/// The usual reply: the instruction is done, nothing but RAX to RBX has changed, and the guest can go on at once. Returns whether
/// that was so; if not, nothing has been done.
#[inline(always)]
pub fn complete_instruction(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) -> bool {
    if mask & !Groups::ACDB.0 != Groups::DONE.0 || !vcpu::can_go_on(cpu, ec) {
        return false;
    }
    // SAFETY: as above.
    let state = unsafe { &*utcb.cast::<VcpuState>() };
    let old = vmcs::read(f::GUEST_RIP);
    let len = if has_length(ec) {
        u64::from(vmcs::read(f::EXIT_INSTRUCTION_LENGTH))
    } else {
        state.inst_len
    };
    let rip = old.wrapping_add(len);
    let flags = vmcs::read(f::GUEST_RFLAGS);
    if (rip ^ old) >> 32 != 0
        || flags & TRAP != 0
        || vmcs::read(f::GUEST_INTERRUPTIBILITY) & (blocking::STI | blocking::MOV_SS) != 0
    {
        return false;
    }
    vmcs::write(f::GUEST_RIP, rip);
    // What exits like a fault leaves RF set (SDM 3C 28.3.3).
    if flags & RESUME != 0 {
        vmcs::write(f::GUEST_RFLAGS, flags & !RESUME);
    }
    if mask & Groups::ACDB.0 != 0 {
        let gpr = &mut ec.regs().gpr;
        gpr.rax = state.gpr.rax;
        gpr.rcx = state.gpr.rcx;
        gpr.rdx = state.gpr.rdx;
        gpr.rbx = state.gpr.rbx;
    }
    true
}

/// RFLAGS.TF.
const TRAP: u64 = 1 << 8;
/// RFLAGS.RF.
const RESUME: u64 = 1 << 16;

#[inline(always)]
const fn wants<const KNOWN: u64>(mask: u64, group: Groups) -> bool {
    let mask = if KNOWN == ANY { mask } else { KNOWN };
    mask & group.0 != 0
}

#[inline(always)]
fn export<const KNOWN: u64>(cpu: &Cpu, ec: &Ec, mask: u64, state: &mut VcpuState) {
    let gpr = &ec.regs().gpr;
    if wants::<KNOWN>(mask, Groups::ACDB) {
        state.gpr.rax = gpr.rax;
        state.gpr.rcx = gpr.rcx;
        state.gpr.rdx = gpr.rdx;
        state.gpr.rbx = gpr.rbx;
    }
    if wants::<KNOWN>(mask, Groups::BSD) {
        state.gpr.rbp = gpr.rbp;
        state.gpr.rsi = gpr.rsi;
        state.gpr.rdi = gpr.rdi;
    }
    if wants::<KNOWN>(mask, Groups::RSP) {
        state.gpr.rsp = vmcs::read(f::GUEST_RSP);
    }
    if wants::<KNOWN>(mask, Groups::R8_R15) {
        state.gpr.r8 = gpr.r8;
        state.gpr.r9 = gpr.r9;
        state.gpr.r10 = gpr.r10;
        state.gpr.r11 = gpr.r11;
        state.gpr.r12 = gpr.r12;
        state.gpr.r13 = gpr.r13;
        state.gpr.r14 = gpr.r14;
        state.gpr.r15 = gpr.r15;
    }
    if wants::<KNOWN>(mask, Groups::RIP) {
        state.rip = vmcs::read(f::GUEST_RIP);
        state.inst_len = instruction_length(ec);
    }
    if wants::<KNOWN>(mask, Groups::RFLAGS) {
        state.rflags = vmcs::read(f::GUEST_RFLAGS);
    }
    if wants::<KNOWN>(mask, Groups::QUAL) {
        export_qualification(ec, state);
    }
    if wants::<KNOWN>(mask, Groups::CR) {
        export_cr(ec, state);
    }
    if wants::<KNOWN>(mask, Groups::EFER_PAT) {
        state.efer = vmcs::read(f::GUEST_EFER);
        state.pat = vmcs::read(f::GUEST_PAT);
    }
    if wants::<KNOWN>(mask, Groups::CS_SS) {
        state.cs = segment(
            f::GUEST_CS_SELECTOR,
            f::GUEST_CS_BASE,
            f::GUEST_CS_LIMIT,
            f::GUEST_CS_ACCESS_RIGHTS,
        );
        state.ss = segment(
            f::GUEST_SS_SELECTOR,
            f::GUEST_SS_BASE,
            f::GUEST_SS_LIMIT,
            f::GUEST_SS_ACCESS_RIGHTS,
        );
    }
    if KNOWN == ANY {
        export_rest(cpu, ec, mask, state);
    }
}

fn export_cr(ec: &Ec, state: &mut VcpuState) {
    let (m0, m4) = (vmcs::read(f::CR0_MASK), vmcs::read(f::CR4_MASK));
    state.cr0 = vmcs::read(f::GUEST_CR0) & !m0 | vmcs::read(f::CR0_READ_SHADOW) & m0;
    state.cr4 = vmcs::read(f::GUEST_CR4) & !m4 | vmcs::read(f::CR4_READ_SHADOW) & m4;
    state.cr3 = vmcs::read(f::GUEST_CR3);
    state.cr2 = ec.vcpu.cr2.get();
    // Outside of PAE paging the entries mean nothing (SDM 3A 4.4.1).
    const PAE: u64 = 1 << 5;
    if state.cr4 & PAE != 0 && !long_mode() {
        state.pdpte = [
            vmcs::read(f::GUEST_PDPTE0),
            vmcs::read(f::GUEST_PDPTE1),
            vmcs::read(f::GUEST_PDPTE2),
            vmcs::read(f::GUEST_PDPTE3),
        ];
    }
}

/// Exits that do not tell the length of an instruction (SDM 3C 28.2.5), or are not due to one.
const NO_LENGTH: u32 = {
    let mut set = 0;
    let mut rest: &[Exit] = &[
        Exit::Startup,
        Exit::Recall,
        Exit::BadState,
        Exit::TripleFault,
        Exit::Exception,
        Exit::InterruptWindow,
        Exit::NmiWindow,
        Exit::Memory,
        Exit::Init,
        Exit::Other,
    ];
    while let [exit, tail @ ..] = rest {
        set |= 1 << *exit as u32;
        rest = tail;
    }
    set
};

/// Whether the processor told the length of the instruction that exited.
#[inline(always)]
fn has_length(ec: &Ec) -> bool {
    NO_LENGTH >> (ec.vcpu.last_exit.get() & 31) & 1 == 0
}

/// The length of the instruction that exited, or 0. Of the exceptions, those of INT3, INTO and INT1 have one.
#[inline(always)]
fn instruction_length(ec: &Ec) -> u64 {
    const SOFTWARE: core::ops::RangeInclusive<u32> = 4..=6;
    let software = || {
        ec.vcpu.last_exit.get() == Exit::Exception as u8
            && SOFTWARE.contains(&(vmcs::read(f::EXIT_INTERRUPTION_INFO) >> 8 & 7))
    };
    if has_length(ec) || software() { u64::from(vmcs::read(f::EXIT_INSTRUCTION_LENGTH)) } else { 0 }
}

#[inline(always)]
fn export_qualification(ec: &Ec, state: &mut VcpuState) {
    state.qual[0] = vmcs::read(f::EXIT_QUALIFICATION);
    match ec.vcpu.last_exit.get() {
        PORT => {
            if PortAccess(state.qual[0]).is_string() {
                state.qual[1] = vmcs::read(f::GUEST_LINEAR_ADDRESS);
            }
        }
        MEMORY => {
            state.qual[1] = vmcs::read(f::GUEST_PHYSICAL_ADDRESS);
            state.qual[2] = vmcs::read(f::GUEST_LINEAR_ADDRESS);
        }
        other => export_rare_qualification(ec, other, state),
    }
}

const PORT: u8 = Exit::Port as u8;
const MEMORY: u8 = Exit::Memory as u8;

#[cold]
fn export_rare_qualification(ec: &Ec, exit: u8, state: &mut VcpuState) {
    match Exit::ALL.get(usize::from(exit)) {
        Some(Exit::Exception) => {
            // A page fault's qualification is its address, a debug exception's is what DR6 would show.
            state.qual[2] = state.qual[0];
            state.qual[0] = u64::from(vmcs::read(f::EXIT_INTERRUPTION_INFO) & !(1 << 12));
            state.qual[1] = u64::from(vmcs::read(f::EXIT_INTERRUPTION_ERROR));
        }
        Some(Exit::BadState | Exit::Other) => {
            state.qual[1] = state.qual[0];
            state.qual[0] = u64::from(vmcs::read(f::EXIT_REASON) & !ENTRY_FAILED);
            // A refused entry leaves the exit's fields as they were.
            let error = ec.vcpu.entry_error.replace(0);
            if error != 0 {
                state.qual = [0, 0, u64::from(error)];
            }
        }
        _ => {}
    }
}

fn export_rest(cpu: &Cpu, ec: &Ec, mask: u64, state: &mut VcpuState) {
    let wants = |group| wants::<ANY>(mask, group);
    if wants(Groups::EVENT) {
        state.event = Event {
            info: vmcs::read(f::ENTRY_INTERRUPTION_INFO),
            error: vmcs::read(f::ENTRY_EXCEPTION_ERROR),
        };
        // The processor clears the valid bit once it has delivered.
    }
    if wants(Groups::WINDOW) {
        let primary = Primary::from_bits_retain(vmcs::read(f::PRIMARY_CONTROLS));
        let ask = |asked, window: Window| if asked { window.0 } else { 0 };
        state.window = Window(
            ask(primary.contains(Primary::INTERRUPT_WINDOW_EXITING), Window::INTERRUPT)
                | ask(primary.contains(Primary::NMI_WINDOW_EXITING), Window::NMI),
        );
    }
    if wants(Groups::BLOCKING) {
        state.blocking = vmcs::read(f::GUEST_INTERRUPTIBILITY);
    }
    if wants(Groups::CONTROL) {
        let primary = Primary::from_bits_retain(vmcs::read(f::PRIMARY_CONTROLS));
        state.exceptions = ec.vcpu.exceptions.get();
        state.intercepts = u32::from(primary.contains(Primary::RDTSC_EXITING))
            | u32::from(primary.contains(Primary::PAUSE_EXITING)) << 1
            | u32::from(primary.contains(Primary::MOV_DR_EXITING)) << 2;
        [state.cr0_mask, state.cr4_mask] = ec.vcpu.masks.get();
    }
    if wants(Groups::TSC) {
        state.tsc_offset = vmcs::read(f::TSC_OFFSET);
    }
    if wants(Groups::DEADLINE) {
        state.deadline = ec.vcpu.deadline.get();
    }
    if wants(Groups::CR2) {
        state.cr2 = ec.vcpu.cr2.get();
    }
    if wants(Groups::DR) {
        let [d0, d1, d2, d3, d6] = vcpu::debug(cpu, ec);
        state.dr = [d0, d1, d2, d3];
        state.dr6 = d6;
        state.dr7 = vmcs::read(f::GUEST_DR7);
    }
    if wants(Groups::DS_ES) {
        state.ds = segment(
            f::GUEST_DS_SELECTOR,
            f::GUEST_DS_BASE,
            f::GUEST_DS_LIMIT,
            f::GUEST_DS_ACCESS_RIGHTS,
        );
        state.es = segment(
            f::GUEST_ES_SELECTOR,
            f::GUEST_ES_BASE,
            f::GUEST_ES_LIMIT,
            f::GUEST_ES_ACCESS_RIGHTS,
        );
    }
    if wants(Groups::FS_GS) {
        state.fs = segment(
            f::GUEST_FS_SELECTOR,
            f::GUEST_FS_BASE,
            f::GUEST_FS_LIMIT,
            f::GUEST_FS_ACCESS_RIGHTS,
        );
        state.gs = segment(
            f::GUEST_GS_SELECTOR,
            f::GUEST_GS_BASE,
            f::GUEST_GS_LIMIT,
            f::GUEST_GS_ACCESS_RIGHTS,
        );
    }
    if wants(Groups::TABLES) {
        state.tr = segment(
            f::GUEST_TR_SELECTOR,
            f::GUEST_TR_BASE,
            f::GUEST_TR_LIMIT,
            f::GUEST_TR_ACCESS_RIGHTS,
        );
        state.ldtr = segment(
            f::GUEST_LDTR_SELECTOR,
            f::GUEST_LDTR_BASE,
            f::GUEST_LDTR_LIMIT,
            f::GUEST_LDTR_ACCESS_RIGHTS,
        );
        state.gdtr = table(f::GUEST_GDTR_BASE, f::GUEST_GDTR_LIMIT);
        state.idtr = table(f::GUEST_IDTR_BASE, f::GUEST_IDTR_LIMIT);
    }
    if wants(Groups::SYSENTER) {
        state.sysenter_cs = u64::from(vmcs::read(f::GUEST_SYSENTER_CS));
        state.sysenter_esp = vmcs::read(f::GUEST_SYSENTER_ESP);
        state.sysenter_eip = vmcs::read(f::GUEST_SYSENTER_EIP);
    }
    if wants(Groups::SYSCALL) {
        [state.star, state.lstar, state.cstar, state.fmask, state.kernel_gs_base, state.tsc_aux] =
            vcpu::resident(cpu, ec);
    }
    if wants(Groups::XSAVE) {
        state.xcr0 = ec.vcpu.xcr0.get();
        state.xss = 0;
    }
}

/// Moves behind the instruction that exited.
fn next_instruction(ec: &Ec, state: &VcpuState) {
    let old = vmcs::read(f::GUEST_RIP);
    let told = instruction_length(ec);
    let mut rip = old.wrapping_add(if told == 0 { state.inst_len } else { told });
    if (rip ^ old) >> 32 != 0 && !in_64_bit_mode() {
        rip &= 0xffff_ffff;
    }
    vmcs::write(f::GUEST_RIP, rip);
}

/// What the processor does at the end of an instruction: blocking ends, a single step traps (SDM 3B 18.3.1.4).
fn finish_instruction() {
    let state = vmcs::read(f::GUEST_INTERRUPTIBILITY);
    if state & (blocking::STI | blocking::MOV_SS) != 0 {
        vmcs::write(f::GUEST_INTERRUPTIBILITY, state & !(blocking::STI | blocking::MOV_SS));
    }
    let flags = vmcs::read(f::GUEST_RFLAGS);
    if flags & RESUME != 0 {
        vmcs::write(f::GUEST_RFLAGS, flags & !RESUME);
    }
    if flags & TRAP != 0 {
        single_step();
    }
}

#[cold]
fn in_64_bit_mode() -> bool {
    const LONG: u32 = 1 << 13;
    vmcs::read(f::GUEST_CS_ACCESS_RIGHTS) & LONG != 0 && long_mode()
}

fn long_mode() -> bool {
    EntryControls::from_bits_retain(vmcs::read(f::ENTRY_CONTROLS))
        .contains(EntryControls::IA32E_MODE_GUEST)
}

/// The guest single-steps: the trap behind the instruction is pending (SDM 3C 25.4.2).
#[cold]
fn single_step() {
    const BRANCHES: u64 = 1 << 1;
    const PENDING_STEP: u64 = 1 << 14;
    // With IA32_DEBUGCTL.BTF only branches trap, and no instruction that exits is one.
    if vmcs::read(f::GUEST_DEBUGCTL) & BRANCHES == 0 {
        vmcs::write(f::GUEST_PENDING_DEBUG, vmcs::read(f::GUEST_PENDING_DEBUG) | PENDING_STEP);
    }
}

fn import(cpu: &Cpu, ec: &Ec, mask: u64, state: &VcpuState) {
    let wants = |group| wants::<ANY>(mask, group);
    let gpr = &mut ec.regs().gpr;
    if wants(Groups::ACDB) {
        gpr.rax = state.gpr.rax;
        gpr.rcx = state.gpr.rcx;
        gpr.rdx = state.gpr.rdx;
        gpr.rbx = state.gpr.rbx;
    }
    if wants(Groups::BSD) {
        gpr.rbp = state.gpr.rbp;
        gpr.rsi = state.gpr.rsi;
        gpr.rdi = state.gpr.rdi;
    }
    if wants(Groups::RSP) {
        vmcs::write(f::GUEST_RSP, state.gpr.rsp);
    }
    if wants(Groups::R8_R15) {
        gpr.r8 = state.gpr.r8;
        gpr.r9 = state.gpr.r9;
        gpr.r10 = state.gpr.r10;
        gpr.r11 = state.gpr.r11;
        gpr.r12 = state.gpr.r12;
        gpr.r13 = state.gpr.r13;
        gpr.r14 = state.gpr.r14;
        gpr.r15 = state.gpr.r15;
    }
    if wants(Groups::RIP) {
        vmcs::write(f::GUEST_RIP, state.rip);
    }
    if wants(Groups::RFLAGS) {
        vmcs::write(f::GUEST_RFLAGS, state.rflags);
    }
    if wants(Groups::EVENT) {
        import_event(state);
    }
    if wants(Groups::WINDOW) {
        let window = Primary::INTERRUPT_WINDOW_EXITING.union(Primary::NMI_WINDOW_EXITING);
        let mut primary = Primary::from_bits_retain(vmcs::read(f::PRIMARY_CONTROLS)) - window;
        primary.set(Primary::INTERRUPT_WINDOW_EXITING, state.window.0 & Window::INTERRUPT.0 != 0);
        primary.set(Primary::NMI_WINDOW_EXITING, state.window.0 & Window::NMI.0 != 0);
        vmcs::write(f::PRIMARY_CONTROLS, primary.bits());
    }
    if wants(Groups::BLOCKING) {
        vmcs::write(
            f::GUEST_INTERRUPTIBILITY,
            state.blocking & (blocking::STI | blocking::MOV_SS | blocking::NMI),
        );
    }
    if wants(Groups::CONTROL) {
        import_control(ec, state);
    }
    if wants(Groups::TSC) {
        vmcs::write(f::TSC_OFFSET, state.tsc_offset);
    }
    if wants(Groups::DEADLINE) {
        vcpu::set_deadline(cpu, Ref::of(ec), state.deadline);
    }
    if wants(Groups::CR) {
        import_cr(state);
        // What MOV to a control register flushes, this flushes as well.
        super::flush_vpid();
    }
    if wants(Groups::CR) || wants(Groups::CR2) {
        ec.vcpu.cr2.set(state.cr2);
        cpu.cr2_lost.set(true);
    }
    if wants(Groups::DR) {
        let [d0, d1, d2, d3] = state.dr;
        vcpu::set_debug(ec, [d0, d1, d2, d3, state.dr6]);
        vmcs::write(f::GUEST_DR7, state.dr7);
    }
    if wants(Groups::EFER_PAT) {
        import_efer(state);
    }
    import_segments(mask, state);
    if wants(Groups::SYSENTER) {
        vmcs::write(f::GUEST_SYSENTER_CS, state.sysenter_cs as u32);
        vmcs::write(f::GUEST_SYSENTER_ESP, state.sysenter_esp);
        vmcs::write(f::GUEST_SYSENTER_EIP, state.sysenter_eip);
    }
    if wants(Groups::SYSCALL) {
        vcpu::set_resident(
            ec,
            [
                state.star,
                state.lstar,
                state.cstar,
                state.fmask,
                state.kernel_gs_base,
                state.tsc_aux,
            ],
        );
    }
    if wants(Groups::XSAVE) && fpu::valid_xcr0(state.xcr0) {
        ec.vcpu.xcr0.set(state.xcr0);
        fpu::set_xcr0(state.xcr0);
    }
    if wants(Groups::DONE) {
        if !wants(Groups::RIP) {
            next_instruction(ec, state);
        }
        finish_instruction();
    }
}

fn import_event(state: &VcpuState) {
    vmcs::write(f::ENTRY_INTERRUPTION_INFO, state.event.info);
    if state.event.is_valid() {
        vmcs::write(f::ENTRY_EXCEPTION_ERROR, state.event.error);
        if state.event.kind() >= 4 {
            vmcs::write(f::ENTRY_INSTRUCTION_LENGTH, state.inst_len as u32);
        }
    }
}

fn import_control(ec: &Ec, state: &VcpuState) {
    let mut primary = Primary::from_bits_retain(vmcs::read(f::PRIMARY_CONTROLS));
    primary.set(Primary::RDTSC_EXITING, state.intercepts & 1 != 0);
    primary.set(Primary::PAUSE_EXITING, state.intercepts & 2 != 0);
    primary.set(Primary::MOV_DR_EXITING, state.intercepts & 4 != 0);
    vmcs::write(f::PRIMARY_CONTROLS, primary.bits());
    let wanted = state.exceptions & !exception::KEPT;
    ec.vcpu.exceptions.set(wanted);
    vmcs::write(f::EXCEPTION_BITMAP, wanted | exception::ALWAYS);
    // What changes hands keeps the value that the guest sees.
    let (m0, m4) = (vmcs::read(f::CR0_MASK), vmcs::read(f::CR4_MASK));
    let cr0 = vmcs::read(f::GUEST_CR0) & !m0 | vmcs::read(f::CR0_READ_SHADOW) & m0;
    let cr4 = vmcs::read(f::GUEST_CR4) & !m4 | vmcs::read(f::CR4_READ_SHADOW) & m4;
    vmcs::write(f::CR0_READ_SHADOW, cr0);
    vmcs::write(f::CR4_READ_SHADOW, cr4);
    vmcs::write(f::CR0_MASK, state.cr0_mask | CR0_OWNED);
    vmcs::write(f::CR4_MASK, state.cr4_mask | CR4_OWNED);
    ec.vcpu.masks.set([state.cr0_mask, state.cr4_mask]);
}

/// Of what the guest sees in CR0 and CR4, the bits that the kernel owns are what VMX operation demands.
fn import_cr(state: &VcpuState) {
    const NUMERIC_ERROR: u64 = 1 << 5;
    const VMXE: u64 = 1 << 13;
    vmcs::write(f::GUEST_CR0, state.cr0 & !CR0_OWNED | NUMERIC_ERROR);
    vmcs::write(f::CR0_READ_SHADOW, state.cr0);
    vmcs::write(f::GUEST_CR4, state.cr4 & !CR4_OWNED | VMXE);
    vmcs::write(f::CR4_READ_SHADOW, state.cr4);
    vmcs::write(f::GUEST_CR3, state.cr3);
    let [p0, p1, p2, p3] = state.pdpte;
    vmcs::write(f::GUEST_PDPTE0, p0);
    vmcs::write(f::GUEST_PDPTE1, p1);
    vmcs::write(f::GUEST_PDPTE2, p2);
    vmcs::write(f::GUEST_PDPTE3, p3);
}

/// Whether the guest is in IA-32e mode is a control of its own, which must agree with EFER.LMA (SDM 3C 27.3.1.1).
fn import_efer(state: &VcpuState) {
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    vmcs::write(f::GUEST_EFER, state.efer);
    vmcs::write(f::GUEST_PAT, state.pat);
    let mut entry = EntryControls::from_bits_retain(vmcs::read(f::ENTRY_CONTROLS));
    entry.set(EntryControls::IA32E_MODE_GUEST, state.efer & LONG_MODE_ACTIVE != 0);
    vmcs::write(f::ENTRY_CONTROLS, entry.bits());
}

fn import_segments(mask: u64, state: &VcpuState) {
    let wants = |group| wants::<ANY>(mask, group);
    if wants(Groups::CS_SS) {
        set_segment(
            state.cs,
            f::GUEST_CS_SELECTOR,
            f::GUEST_CS_BASE,
            f::GUEST_CS_LIMIT,
            f::GUEST_CS_ACCESS_RIGHTS,
        );
        set_segment(
            state.ss,
            f::GUEST_SS_SELECTOR,
            f::GUEST_SS_BASE,
            f::GUEST_SS_LIMIT,
            f::GUEST_SS_ACCESS_RIGHTS,
        );
    }
    if wants(Groups::DS_ES) {
        set_segment(
            state.ds,
            f::GUEST_DS_SELECTOR,
            f::GUEST_DS_BASE,
            f::GUEST_DS_LIMIT,
            f::GUEST_DS_ACCESS_RIGHTS,
        );
        set_segment(
            state.es,
            f::GUEST_ES_SELECTOR,
            f::GUEST_ES_BASE,
            f::GUEST_ES_LIMIT,
            f::GUEST_ES_ACCESS_RIGHTS,
        );
    }
    if wants(Groups::FS_GS) {
        set_segment(
            state.fs,
            f::GUEST_FS_SELECTOR,
            f::GUEST_FS_BASE,
            f::GUEST_FS_LIMIT,
            f::GUEST_FS_ACCESS_RIGHTS,
        );
        set_segment(
            state.gs,
            f::GUEST_GS_SELECTOR,
            f::GUEST_GS_BASE,
            f::GUEST_GS_LIMIT,
            f::GUEST_GS_ACCESS_RIGHTS,
        );
    }
    if wants(Groups::TABLES) {
        set_segment(
            state.tr,
            f::GUEST_TR_SELECTOR,
            f::GUEST_TR_BASE,
            f::GUEST_TR_LIMIT,
            f::GUEST_TR_ACCESS_RIGHTS,
        );
        set_segment(
            state.ldtr,
            f::GUEST_LDTR_SELECTOR,
            f::GUEST_LDTR_BASE,
            f::GUEST_LDTR_LIMIT,
            f::GUEST_LDTR_ACCESS_RIGHTS,
        );
        vmcs::write(f::GUEST_GDTR_BASE, state.gdtr.base);
        vmcs::write(f::GUEST_GDTR_LIMIT, state.gdtr.limit as u32);
        vmcs::write(f::GUEST_IDTR_BASE, state.idtr.base);
        vmcs::write(f::GUEST_IDTR_LIMIT, state.idtr.limit as u32);
    }
}

/// Access rights have the attribute's low byte where it is, then a gap of four bits (SDM 3C 25.4.1).
#[inline(always)]
fn segment(selector: Field16, base: FieldNatural, limit: Field32, rights: Field32) -> Segment {
    let rights = vmcs::read(rights);
    Segment {
        selector: vmcs::read(selector),
        attr: (rights & 0xff | rights >> 4 & 0x1f00) as u16,
        limit: vmcs::read(limit),
        base: vmcs::read(base),
    }
}

fn set_segment(
    segment: Segment,
    selector: Field16,
    base: FieldNatural,
    limit: Field32,
    rights: Field32,
) {
    let attr = u32::from(segment.attr);
    vmcs::write(selector, segment.selector);
    vmcs::write(base, segment.base);
    vmcs::write(limit, segment.limit);
    vmcs::write(rights, attr & 0xff | (attr & 0x1f00) << 4);
}

fn table(base: FieldNatural, limit: Field32) -> TableRegister {
    TableRegister { base: vmcs::read(base), limit: u64::from(vmcs::read(limit)) }
}
