//! Moving groups of state out of the VMCB, into a UTCB.

use abi::vcpu::{Exit, Groups, Segment, TableRegister, VcpuState, Window, blocking};
use hypervisor_logic::svm::fields::{SegmentFields, TableFields, field as f};
use hypervisor_logic::svm::qualification::{
    control_access, debug_access, exception, memory_access, port_access, task_switch,
};
use hypervisor_logic::svm::state::{
    attributes_from_vmcb, event_from_vmcb, stack_from_vmcb, task_from_vmcb,
};

use super::instruction::instruction_length;
use super::vmcb::Vmcb;
use super::{EFER_SVME, nmi, vcpu};
use crate::arch::cpu::Cpu;
use crate::arch::state::{copy_registers, export as export_kept};
use crate::arch::vcpu::{ANY, MEMORY, PORT, movers, wants};
use crate::object::ec::Ec;

movers!();

#[inline(always)]
fn export<const KNOWN: u64>(cpu: &Cpu, ec: &Ec, mask: u64, state: &mut VcpuState) {
    let vmcb = Vmcb::of(ec);
    copy_registers::<KNOWN>(mask, &ec.regs().gpr, &mut state.gpr);
    if wants::<KNOWN>(mask, Groups::ACDB) {
        state.gpr.rax = vmcb.read(f::GUEST_RAX);
    }
    if wants::<KNOWN>(mask, Groups::RSP) {
        state.gpr.rsp = vmcb.read(f::GUEST_RSP);
    }
    if wants::<KNOWN>(mask, Groups::RIP) {
        state.rip = vmcb.read(f::GUEST_RIP);
        state.inst_len = instruction_length(ec, vmcb).unwrap_or(0);
    }
    if wants::<KNOWN>(mask, Groups::RFLAGS) {
        state.rflags = vmcb.read(f::GUEST_RFLAGS);
    }
    if wants::<KNOWN>(mask, Groups::QUAL) {
        export_qualification(ec, vmcb, state);
    }
    if wants::<KNOWN>(mask, Groups::CR) {
        state.cr0 = vmcb.read(f::GUEST_CR0);
        state.cr2 = vmcb.read(f::GUEST_CR2);
        state.cr3 = vmcb.read(f::GUEST_CR3);
        state.cr4 = vmcb.read(f::GUEST_CR4);
        // The processor reads them from memory whenever it needs them (APM 2 15.25.10).
        state.pdpte = [0; 4];
    }
    if wants::<KNOWN>(mask, Groups::EFER_PAT) {
        state.efer = vmcb.read(f::GUEST_EFER) & !EFER_SVME;
        state.pat = vmcb.read(f::GUEST_PAT);
    }
    if wants::<KNOWN>(mask, Groups::CS_SS) {
        state.cs = segment(vmcb, f::GUEST_CS, attributes_from_vmcb);
        let level = vmcb.read(f::GUEST_CPL);
        state.ss = segment(vmcb, f::GUEST_SS, |attr, limit| stack_from_vmcb(attr, limit, level));
    }
    if KNOWN == ANY {
        export_rest(cpu, ec, vmcb, mask, state);
    }
}

#[inline(always)]
fn export_qualification(ec: &Ec, vmcb: Vmcb, state: &mut VcpuState) {
    let info1 = vmcb.read(f::EXITINFO1);
    match ec.vcpu.last_exit.get() {
        PORT => state.qual[0] = port_access(info1).0,
        MEMORY => state.qual = [memory_access(info1).0, vmcb.read(f::EXITINFO2), 0],
        other => export_rare_qualification(vmcb, other, state),
    }
}

#[cold]
fn export_rare_qualification(vmcb: Vmcb, exit: u8, state: &mut VcpuState) {
    const PAGE_FAULT: u8 = 14;
    const PROTECTED: u64 = 1;
    let (code, info1, info2) =
        (vmcb.read(f::EXITCODE), vmcb.read(f::EXITINFO1), vmcb.read(f::EXITINFO2));
    let assists = super::controls().is_some_and(|controls| controls.decode_assists);
    state.qual = match Exit::ALL.get(usize::from(exit)) {
        Some(Exit::Exception) => {
            let event = exception(code, info1, vmcb.read(f::GUEST_CR0) & PROTECTED != 0);
            let detail =
                if event.vector() == PAGE_FAULT { info2 } else { vmcb.read(f::GUEST_DR6) & 0xe00f };
            [u64::from(event.info), u64::from(event.error), detail]
        }
        Some(Exit::Control) => [control_access(code, info1, assists).0, 0, 0],
        Some(Exit::Debug) => [debug_access(code, info1, assists), 0, 0],
        Some(Exit::TaskSwitch) => {
            // What was being delivered has moved there.
            [task_switch(info1, info2, vmcb.read(f::EXITINTINFO)), 0, 0]
        }
        Some(Exit::BadState | Exit::Other) => [code, info1, 0],
        _ => [0; 3],
    };
}

fn export_rest(cpu: &Cpu, ec: &Ec, vmcb: Vmcb, mask: u64, state: &mut VcpuState) {
    let wants = |group| wants::<ANY>(mask, group);
    export_kept(cpu, ec, mask, state);
    if wants(Groups::EVENT) {
        state.event = event_from_vmcb(vmcb.read(f::EVENTINJ));
    }
    if wants(Groups::WINDOW) {
        let interrupt = if ec.vcpu.svm.interrupt_window.get() { Window::INTERRUPT.0 } else { 0 };
        let nmi = if ec.vcpu.svm.nmi.window.get() { Window::NMI.0 } else { 0 };
        state.window = Window(interrupt | nmi);
    }
    if wants(Groups::BLOCKING) {
        // The processor does not tell STI from MOV SS; what they block is the same here.
        let shadow = if vmcb.read(f::INTERRUPT_SHADOW) & 1 != 0 { blocking::STI } else { 0 };
        state.blocking = shadow | if nmi::is_blocked(ec) { blocking::NMI } else { 0 };
    }
    if wants(Groups::CONTROL) {
        state.intercepts = ec.vcpu.svm.intercepts.get();
    }
    if wants(Groups::TSC) {
        state.tsc_offset = vmcb.read(f::TSC_OFFSET);
    }
    if wants(Groups::CR2) {
        state.cr2 = vmcb.read(f::GUEST_CR2);
    }
    if wants(Groups::DR) {
        state.dr6 = vmcb.read(f::GUEST_DR6);
        state.dr7 = vmcb.read(f::GUEST_DR7);
    }
    if wants(Groups::DS_ES) {
        state.ds = segment(vmcb, f::GUEST_DS, attributes_from_vmcb);
        state.es = segment(vmcb, f::GUEST_ES, attributes_from_vmcb);
    }
    if wants(Groups::FS_GS) {
        state.fs = segment(vmcb, f::GUEST_FS, attributes_from_vmcb);
        state.gs = segment(vmcb, f::GUEST_GS, attributes_from_vmcb);
    }
    if wants(Groups::TABLES) {
        state.tr = segment(vmcb, f::GUEST_TR, task_from_vmcb);
        state.ldtr = segment(vmcb, f::GUEST_LDTR, attributes_from_vmcb);
        state.gdtr = table(vmcb, f::GUEST_GDTR);
        state.idtr = table(vmcb, f::GUEST_IDTR);
    }
    if wants(Groups::SYSENTER) {
        state.sysenter_cs = vmcb.read(f::GUEST_SYSENTER_CS);
        state.sysenter_esp = vmcb.read(f::GUEST_SYSENTER_ESP);
        state.sysenter_eip = vmcb.read(f::GUEST_SYSENTER_EIP);
    }
    if wants(Groups::SYSCALL) {
        state.star = vmcb.read(f::GUEST_STAR);
        state.lstar = vmcb.read(f::GUEST_LSTAR);
        state.cstar = vmcb.read(f::GUEST_CSTAR);
        state.fmask = vmcb.read(f::GUEST_SFMASK);
        state.kernel_gs_base = vmcb.read(f::GUEST_KERNEL_GS_BASE);
        state.tsc_aux = vcpu::tsc_aux(ec);
    }
}

#[inline(always)]
fn segment(vmcb: Vmcb, fields: SegmentFields, attributes: impl Fn(u16, u32) -> u16) -> Segment {
    let limit = vmcb.read(fields.limit);
    Segment {
        selector: vmcb.read(fields.selector),
        attr: attributes(vmcb.read(fields.attributes), limit),
        limit,
        base: vmcb.read(fields.base),
    }
}

fn table(vmcb: Vmcb, fields: TableFields) -> TableRegister {
    TableRegister { base: vmcb.read(fields.base), limit: u64::from(vmcb.read(fields.limit)) }
}
