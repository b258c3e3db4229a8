//! Moving groups of state into the VMCS, out of a UTCB.

use abi::vcpu::{Groups, Segment, TableRegister, VcpuState, Window, blocking};
use hypervisor_logic::vmx::controls::{EntryControls, Primary};
use hypervisor_logic::vmx::fields::{SegmentFields, TableFields, field as f};

use super::instruction::{
    SHADOW, finish_instruction, move_to, next_instruction, start_instruction,
};
use super::vcpu::{self, CR0_OWNED, CR4_OWNED};
use super::{exception, vmcs};
use crate::arch::cpu::Cpu;
use crate::arch::state::{copy_registers, import as import_kept, system_call};
use crate::arch::vcpu::ANY;
use crate::object::ec::Ec;

/// Writes the groups of `mask`, of a virtual CPU that is loaded.
pub fn import(cpu: &Cpu, ec: &Ec, mask: u64, state: &VcpuState) {
    let wants = |group: Groups| mask & group.0 != 0;
    copy_registers::<ANY>(mask, &state.gpr, &mut ec.regs().gpr);
    import_kept(ec, mask, state);
    if wants(Groups::RSP) {
        vmcs::write(f::GUEST_RSP, state.gpr.rsp);
    }
    if wants(Groups::RIP) {
        move_to(state.rip, wants(Groups::DONE));
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
        vmcs::write(f::GUEST_INTERRUPTIBILITY, state.blocking & (SHADOW | blocking::NMI));
    }
    if wants(Groups::CONTROL) {
        import_control(ec, state);
    }
    if wants(Groups::TSC) {
        vmcs::write(f::TSC_OFFSET, state.tsc_offset);
    }
    if wants(Groups::CR) {
        import_cr(state);
        // What MOV to a control register flushes, this flushes as well.
        super::flush_vpid();
    }
    if wants(Groups::CR) || wants(Groups::CR2) {
        ec.vcpu.vmx.cr2.set(state.cr2);
        cpu.cr2_dr6_lost.set(true);
    }
    if wants(Groups::DR) {
        vcpu::set_dr6(ec, state.dr6);
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
        // SAFETY: that is where the values are from.
        unsafe { vcpu::set_resident(&system_call(state)) };
    }
    if wants(Groups::DONE) {
        if !wants(Groups::RIP) {
            next_instruction(ec, state);
        }
        finish_instruction();
    } else if wants(Groups::RIP) || wants(Groups::RFLAGS) || wants(Groups::BLOCKING) {
        start_instruction();
    }
}

fn import_event(state: &VcpuState) {
    let old = vmcs::read(f::ENTRY_INTERRUPTION_INFO);
    vmcs::write(f::ENTRY_INTERRUPTION_INFO, state.event.info);
    if state.event.is_valid() {
        vmcs::write(f::ENTRY_EXCEPTION_ERROR, state.event.error);
        // The state does not tell the length of one whose delivery the exit has cut short: it stays.
        if state.event.kind() >= 4 && (state.inst_len != 0 || old != state.event.info) {
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
    vmcs::write(f::EXCEPTION_BITMAP, ec.vcpu.exceptions.get() | exception::ALWAYS);
    // What changes hands keeps the value that the guest sees.
    let (m0, m4) = (vmcs::read(f::CR0_MASK), vmcs::read(f::CR4_MASK));
    let cr0 = vmcs::read(f::GUEST_CR0) & !m0 | vmcs::read(f::CR0_READ_SHADOW) & m0;
    let cr4 = vmcs::read(f::GUEST_CR4) & !m4 | vmcs::read(f::CR4_READ_SHADOW) & m4;
    vmcs::write(f::CR0_READ_SHADOW, cr0);
    vmcs::write(f::CR4_READ_SHADOW, cr4);
    vmcs::write(f::CR0_MASK, state.cr0_mask | CR0_OWNED);
    vmcs::write(f::CR4_MASK, state.cr4_mask | CR4_OWNED);
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
    for (field, value) in f::GUEST_PDPTES.into_iter().zip(state.pdpte) {
        vmcs::write(field, value);
    }
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
    let wants = |group: Groups| mask & group.0 != 0;
    if wants(Groups::CS_SS) {
        set_segment(f::GUEST_CS, state.cs);
        set_segment(f::GUEST_SS, state.ss);
    }
    if wants(Groups::DS_ES) {
        set_segment(f::GUEST_DS, state.ds);
        set_segment(f::GUEST_ES, state.es);
    }
    if wants(Groups::FS_GS) {
        set_segment(f::GUEST_FS, state.fs);
        set_segment(f::GUEST_GS, state.gs);
    }
    if wants(Groups::TABLES) {
        set_segment(f::GUEST_TR, state.tr);
        set_segment(f::GUEST_LDTR, state.ldtr);
        set_table(f::GUEST_GDTR, state.gdtr);
        set_table(f::GUEST_IDTR, state.idtr);
    }
}

fn set_segment(fields: SegmentFields, segment: Segment) {
    let attr = u32::from(segment.attr);
    vmcs::write(fields.selector, segment.selector);
    vmcs::write(fields.base, segment.base);
    vmcs::write(fields.limit, segment.limit);
    vmcs::write(fields.rights, attr & 0xff | (attr & 0x1f00) << 4);
}

fn set_table(fields: TableFields, table: TableRegister) {
    vmcs::write(fields.base, table.base);
    vmcs::write(fields.limit, table.limit as u32);
}
