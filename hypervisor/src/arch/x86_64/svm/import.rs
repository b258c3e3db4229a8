//! Moving groups of state into the VMCB, out of a UTCB.

use abi::vcpu::{Groups, Segment, TableRegister, VcpuState, Window, blocking};
use hypervisor_logic::svm::fields::{SegmentFields, TableFields, field as f};
use hypervisor_logic::svm::state::{attributes_to_vmcb, privilege_level};

use super::instruction::{finish_instruction, next_instruction};
use super::vmcb::Vmcb;
use super::{EFER_SVME, event, nmi, vcpu};
use crate::arch::state::{copy_registers, dr6, import as import_kept, system_call};
use crate::arch::vcpu::ANY;
use crate::object::ec::Ec;

/// Writes the groups of `mask`, of a virtual CPU that is loaded.
pub fn import(ec: &Ec, mask: u64, state: &VcpuState) {
    let wants = |group: Groups| mask & group.0 != 0;
    let vmcb = Vmcb::of(ec);
    copy_registers::<ANY>(mask, &state.gpr, &mut ec.regs().gpr);
    import_kept(ec, mask, state);
    if wants(Groups::ACDB) {
        vmcb.write(f::GUEST_RAX, state.gpr.rax);
    }
    if wants(Groups::RSP) {
        vmcb.write(f::GUEST_RSP, state.gpr.rsp);
    }
    if wants(Groups::RIP) || wants(Groups::EVENT) {
        event::take_back(ec, vmcb);
    }
    if wants(Groups::RIP) {
        vmcb.write(f::GUEST_RIP, state.rip);
    }
    if wants(Groups::RFLAGS) {
        vmcb.write(f::GUEST_RFLAGS, state.rflags);
    }
    if wants(Groups::WINDOW) {
        vcpu::set_interrupt_window(ec, state.window.0 & Window::INTERRUPT.0 != 0);
        nmi::set_window(ec, state.window.0 & Window::NMI.0 != 0);
    }
    if wants(Groups::CONTROL) {
        ec.vcpu.svm.intercepts.set(state.intercepts & 7);
        vcpu::intercept(ec);
    }
    if wants(Groups::TSC) {
        vmcb.write(f::TSC_OFFSET, state.tsc_offset);
    }
    if wants(Groups::CR) {
        let old = [f::GUEST_CR0, f::GUEST_CR3, f::GUEST_CR4].map(|register| vmcb.read(register));
        if old != [state.cr0, state.cr3, state.cr4] {
            // What MOV to a control register flushes, this flushes as well.
            ec.vcpu.svm.forget_tag();
        }
        vmcb.write(f::GUEST_CR0, state.cr0);
        vmcb.write(f::GUEST_CR3, state.cr3);
        vmcb.write(f::GUEST_CR4, state.cr4);
    }
    if wants(Groups::CR) || wants(Groups::CR2) {
        vmcb.write(f::GUEST_CR2, state.cr2);
    }
    if wants(Groups::DR) {
        vmcb.write(f::GUEST_DR6, dr6(state.dr6));
        vmcb.write(f::GUEST_DR7, state.dr7);
    }
    if wants(Groups::EFER_PAT) {
        vmcb.write(f::GUEST_EFER, state.efer | EFER_SVME);
        vmcb.write(f::GUEST_PAT, state.pat);
    }
    import_segments(vmcb, mask, state);
    if wants(Groups::SYSENTER) {
        vmcb.write(f::GUEST_SYSENTER_CS, state.sysenter_cs);
        vmcb.write(f::GUEST_SYSENTER_ESP, state.sysenter_esp);
        vmcb.write(f::GUEST_SYSENTER_EIP, state.sysenter_eip);
    }
    if wants(Groups::SYSCALL) {
        let [star, lstar, cstar, fmask, gs_base, tsc_aux] = system_call(state);
        vmcb.write(f::GUEST_STAR, star);
        vmcb.write(f::GUEST_LSTAR, lstar);
        vmcb.write(f::GUEST_CSTAR, cstar);
        vmcb.write(f::GUEST_SFMASK, fmask);
        vmcb.write(f::GUEST_KERNEL_GS_BASE, gs_base);
        vcpu::set_tsc_aux(ec, tsc_aux);
    }
    if wants(Groups::DONE) && !wants(Groups::RIP) {
        next_instruction(ec, vmcb, state);
    }
    // An event is delivered where RIP is then, and an IRET comes next only where it is.
    if wants(Groups::EVENT) || wants(Groups::BLOCKING) || wants(Groups::RIP) {
        import_interruptibility(ec, vmcb, mask, state);
    }
    if wants(Groups::DONE) {
        finish_instruction(vmcb);
    }
    // With LME but neither paging nor PAE in a guest, QEMU does not turn the kernel's paging on again when it leaves it: no instruction
    // of the kernel would ever be found. Such a guest is not entered.
    let [efer, cr0, cr4] = [f::GUEST_EFER, f::GUEST_CR0, f::GUEST_CR4].map(|it| vmcb.read(it));
    if super::is_emulated_by_qemu() && [efer >> 8 & 1, cr0 >> 31 & 1, cr4 >> 5 & 1] == [1, 0, 0] {
        vmcb.forget_state();
    }
}

/// The event to inject and what is blocked: they decide together whether an NMI can come.
fn import_interruptibility(ec: &Ec, vmcb: Vmcb, mask: u64, state: &VcpuState) {
    let mut blocked = nmi::is_blocked(ec);
    if mask & Groups::EVENT.0 != 0 {
        event::inject(ec, vmcb, state);
    }
    if mask & Groups::BLOCKING.0 != 0 {
        let shadow = state.blocking & (blocking::STI | blocking::MOV_SS) != 0;
        vmcb.write(f::INTERRUPT_SHADOW, u64::from(shadow));
        blocked = state.blocking & blocking::NMI != 0;
    }
    nmi::update(ec, blocked);
}

fn import_segments(vmcb: Vmcb, mask: u64, state: &VcpuState) {
    let wants = |group: Groups| mask & group.0 != 0;
    if wants(Groups::CS_SS) {
        set_segment(vmcb, f::GUEST_CS, state.cs);
        set_segment(vmcb, f::GUEST_SS, state.ss);
        vmcb.write(f::GUEST_CPL, privilege_level(state.ss.attr));
    }
    if wants(Groups::DS_ES) {
        set_segment(vmcb, f::GUEST_DS, state.ds);
        set_segment(vmcb, f::GUEST_ES, state.es);
    }
    if wants(Groups::FS_GS) {
        set_segment(vmcb, f::GUEST_FS, state.fs);
        set_segment(vmcb, f::GUEST_GS, state.gs);
    }
    if wants(Groups::TABLES) {
        set_segment(vmcb, f::GUEST_TR, state.tr);
        set_segment(vmcb, f::GUEST_LDTR, state.ldtr);
        set_table(vmcb, f::GUEST_GDTR, state.gdtr);
        set_table(vmcb, f::GUEST_IDTR, state.idtr);
    }
}

fn set_segment(vmcb: Vmcb, fields: SegmentFields, segment: Segment) {
    vmcb.write(fields.selector, segment.selector);
    vmcb.write(fields.attributes, attributes_to_vmcb(segment.attr));
    vmcb.write(fields.limit, segment.limit);
    vmcb.write(fields.base, segment.base);
}

fn set_table(vmcb: Vmcb, fields: TableFields, table: TableRegister) {
    vmcb.write(fields.limit, table.limit as u32);
    vmcb.write(fields.base, table.base);
}
