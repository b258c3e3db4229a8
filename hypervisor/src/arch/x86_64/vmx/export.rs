//! Moving groups of state out of the VMCS, into a UTCB.

use abi::vcpu::{
    ControlAccess, Event, EventKind, Exit, Groups, PortAccess, Segment, TableRegister, VcpuState,
    Window,
};
use hypervisor_logic::vmx::controls::Primary;
use hypervisor_logic::vmx::fields::{Field16, Field32, FieldNatural, field as f};

use super::exit::ENTRY_FAILED;
use super::instruction::{instruction_length, long_mode};
use super::{vcpu, vmcs};
use crate::arch::cpu::Cpu;
use crate::arch::vcpu::{ANY, breakpoints, movers, wants};
use crate::object::ec::Ec;

movers!();

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
    state.cr2 = ec.vcpu.vmx.cr2.get();
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

#[inline(always)]
fn export_qualification(ec: &Ec, state: &mut VcpuState) {
    state.qual[0] = vmcs::read(f::EXIT_QUALIFICATION);
    match ec.vcpu.last_exit.get() {
        PORT => {
            if PortAccess(state.qual[0]).is_string() {
                state.qual[0] |= PortAccess::ADDRESS_VALID;
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
            state.qual[0] = u64::from(as_exception(vmcs::read(f::EXIT_INTERRUPTION_INFO)));
            state.qual[1] = u64::from(vmcs::read(f::EXIT_INTERRUPTION_ERROR));
        }
        Some(Exit::Control | Exit::Debug) => state.qual[0] |= ControlAccess::DECODED,
        Some(Exit::BadState | Exit::Other) => {
            state.qual[1] = state.qual[0];
            state.qual[0] = u64::from(vmcs::read(f::EXIT_REASON) & !ENTRY_FAILED);
            // A refused entry leaves the exit's fields as they were.
            let error = ec.vcpu.vmx.entry_error.replace(0);
            if error != 0 {
                state.qual = [0, 0, u64::from(error)];
            }
        }
        _ => {}
    }
}

/// The interruption information of an exception without what only VT-x tells: bit 12, and that it is due to INT1, INT3 or INTO.
const fn as_exception(info: u32) -> u32 {
    info & !(1 << 12 | 7 << 8) | (EventKind::Exception as u32) << 8
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
        state.cr2 = ec.vcpu.vmx.cr2.get();
    }
    if wants(Groups::DR) {
        state.dr = breakpoints(cpu, ec);
        state.dr6 = vcpu::dr6(cpu, ec);
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

fn table(base: FieldNatural, limit: Field32) -> TableRegister {
    TableRegister { base: vmcs::read(base), limit: u64::from(vmcs::read(limit)) }
}
