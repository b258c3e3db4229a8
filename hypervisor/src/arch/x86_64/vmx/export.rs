//! Moving groups of state out of the VMCS, into a UTCB.

use abi::vcpu::{
    ControlAccess, Event, EventKind, Exit, Groups, PortAccess, Segment, TableRegister, VcpuState,
    Window,
};
use hypervisor_logic::vmx::controls::Primary;
use hypervisor_logic::vmx::fields::{SegmentFields, TableFields, field as f};

use super::exit::ENTRY_FAILED;
use super::instruction::{instruction_length, long_mode};
use super::{vcpu, vmcs};
use crate::arch::cpu::Cpu;
use crate::arch::state::{copy_registers, export as export_kept};
use crate::arch::vcpu::{ANY, MEMORY, PORT, movers, wants};
use crate::object::ec::Ec;

movers!();

#[inline(always)]
fn export<const KNOWN: u64>(cpu: &Cpu, ec: &Ec, mask: u64, state: &mut VcpuState) {
    copy_registers::<KNOWN>(mask, &ec.regs().gpr, &mut state.gpr);
    if wants::<KNOWN>(mask, Groups::RSP) {
        state.gpr.rsp = vmcs::read(f::GUEST_RSP);
    }
    if wants::<KNOWN>(mask, Groups::RIP) {
        state.rip = vmcs::read(f::GUEST_RIP);
        state.inst_len = instruction_length(ec).unwrap_or(0);
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
        state.cs = segment(f::GUEST_CS);
        state.ss = segment(f::GUEST_SS);
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
        state.pdpte = f::GUEST_PDPTES.map(vmcs::read);
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
    export_kept(cpu, ec, mask, state);
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
        state.intercepts = u32::from(primary.contains(Primary::RDTSC_EXITING))
            | u32::from(primary.contains(Primary::PAUSE_EXITING)) << 1
            | u32::from(primary.contains(Primary::MOV_DR_EXITING)) << 2;
    }
    if wants(Groups::TSC) {
        state.tsc_offset = vmcs::read(f::TSC_OFFSET);
    }
    if wants(Groups::CR2) {
        state.cr2 = ec.vcpu.vmx.cr2.get();
    }
    if wants(Groups::DR) {
        state.dr6 = ec.vcpu.vmx.dr6.get();
        state.dr7 = vmcs::read(f::GUEST_DR7);
    }
    if wants(Groups::DS_ES) {
        state.ds = segment(f::GUEST_DS);
        state.es = segment(f::GUEST_ES);
    }
    if wants(Groups::FS_GS) {
        state.fs = segment(f::GUEST_FS);
        state.gs = segment(f::GUEST_GS);
    }
    if wants(Groups::TABLES) {
        state.tr = segment(f::GUEST_TR);
        state.ldtr = segment(f::GUEST_LDTR);
        state.gdtr = table(f::GUEST_GDTR);
        state.idtr = table(f::GUEST_IDTR);
    }
    if wants(Groups::SYSENTER) {
        state.sysenter_cs = u64::from(vmcs::read(f::GUEST_SYSENTER_CS));
        state.sysenter_esp = vmcs::read(f::GUEST_SYSENTER_ESP);
        state.sysenter_eip = vmcs::read(f::GUEST_SYSENTER_EIP);
    }
    if wants(Groups::SYSCALL) {
        [state.star, state.lstar, state.cstar, state.fmask, state.kernel_gs_base, state.tsc_aux] =
            vcpu::resident();
    }
}

/// Access rights have the attribute's low byte where it is, then a gap of four bits (SDM 3C 25.4.1).
#[inline(always)]
fn segment(fields: SegmentFields) -> Segment {
    let rights = vmcs::read(fields.rights);
    Segment {
        selector: vmcs::read(fields.selector),
        attr: (rights & 0xff | rights >> 4 & 0x1f00) as u16,
        limit: vmcs::read(fields.limit),
        base: vmcs::read(fields.base),
    }
}

fn table(fields: TableFields) -> TableRegister {
    TableRegister { base: vmcs::read(fields.base), limit: u64::from(vmcs::read(fields.limit)) }
}
