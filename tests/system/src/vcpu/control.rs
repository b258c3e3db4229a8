//! Exits of instructions that concern the machine: control registers, and what virtual machines are made with.

use alloc::format;

use abi::vcpu::{ControlAccess, Exit, Groups};

use super::exits::vm;
use super::modes::{self, Mode, stub};
use super::vm::{CODE, Vm};
use crate::processor::{Extension, extension, is_tcg};
use crate::report::{Bench, Check, Test};
use crate::{check_eq, code};

pub const TESTS: &[Test] = &[
    ("exit.control", control),
    ("exit.lmsw", lmsw),
    ("exit.hypercall", hypercall),
    ("exit.virtualization", virtualization),
];

fn control(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    // Nothing of this exits unless the VMM owns the bits, except CR8.
    let code = code!(
        64,
        "mov rax, cr0",
        "mov rbx, cr4",
        "mov rcx, cr3",
        "mov cr3, rcx",
        "mov rdx, cr2",
        "hlt",
    );
    vm.start(Mode::Long, code, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 0x8000_0031, "CR0 as the guest sees it");
    check_eq!(vm.state.gpr.rbx, 0x220, "CR4 as the guest sees it");
    check_eq!(vm.state.gpr.rcx, modes::TABLES, "CR3");
    // CR0.TS and CR4.PGE are the VMM's.
    let code = code!(
        64,
        "mov r9, cr0",
        "or r9, 8",
        "mov cr0, r9",
        "clts",
        "mov rbx, cr4",
        "or rbx, 0x80",
        "mov cr4, rbx",
        "mov rsi, cr4",
        "hlt",
    );
    vm.load(Mode::Long, code)?;
    (vm.state.cr0_mask, vm.state.cr4_mask) = (8, 0x80);
    vm.expect(Groups::ALL, Exit::Control)?;
    is_control(&vm, 0, MOV_TO, 9)?;
    check_eq!(vm.state.gpr.r9, 0x8000_0039, "R9");
    // The guest shall see the bit set, so that CLTS does something.
    vm.state.cr0 = 0x8000_0039;
    vm.expect(Groups::CR | Groups::DONE, Exit::Control)?;
    is_control(&vm, 0, CLTS, 0)?;
    vm.expect(Groups::DONE, Exit::Control)?;
    is_control(&vm, 4, MOV_TO, 3)?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rsi, 0x220, "CR4 without what the VMM did not grant");
    // VMXE cannot be set behind anybody's back: it is the kernel's, or there is no such bit.
    let code = code!(64, "mov rax, cr4", "or rax, 0x2000", "mov cr4, rax", "hlt");
    vm.load(Mode::Long, code)?;
    match extension() {
        Extension::Vmx => {
            vm.expect(Groups::ALL, Exit::Control)?;
            is_control(&vm, 4, MOV_TO, 0)?;
        }
        // QEMU does not raise #GP for a reserved bit in a guest, but refuses to run it.
        Extension::Svm if is_tcg() => vm.expect(Groups::ALL, Exit::BadState)?,
        Extension::Svm => {
            vm.expect(Groups::ALL, Exit::Hlt)?;
            check_eq!(vm.state.rip, stub(13), "the guest's handler of #GP");
        }
    }
    // Of a state that QEMU refuses the kernel shows nothing: it may hold the kernel's registers.
    if !is_tcg() {
        check_eq!(vm.state.cr4, 0x220, "CR4 after an attempt to set VMXE");
    }
    let code = code!(64, "mov rax, 5", "mov cr8, rax", "mov rbx, cr8", "hlt");
    vm.start(Mode::Long, code, Exit::Control)?;
    is_control(&vm, 8, MOV_TO, 0)?;
    vm.expect(Groups::DONE, Exit::Control)?;
    is_control(&vm, 8, MOV_FROM, 3)?;
    vm.state.gpr.rbx = 5;
    vm.expect(Groups::ACDB | Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rbx, 5, "CR8 as the guest got it");
    Ok(())
}

const MOV_TO: u8 = 0;
const MOV_FROM: u8 = 1;
const CLTS: u8 = 2;
const LMSW: u8 = 3;

/// The exit is that access to a control register, as far as the processor tells: always the register, and whether it
/// is read.
fn is_control(vm: &Vm, register: u8, kind: u8, gpr: u8) -> Check {
    let access = ControlAccess(vm.state.qual[0]);
    let got = (access.register(), access.kind(), access.gpr());
    let expected = if access.is_decoded() {
        (register, kind, gpr)
    } else {
        (register, if kind == MOV_FROM { MOV_FROM } else { MOV_TO }, 0)
    };
    check_eq!(got, expected, "register, kind and general register");
    Ok(())
}

fn lmsw(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(32, "mov ax, 0x003b", "lmsw ax", "hlt");
    vm.load(Mode::Protected, code)?;
    vm.state.cr0_mask = 8;
    vm.expect(Groups::ALL, Exit::Control)?;
    is_control(&vm, 0, LMSW, 0)?;
    let access = ControlAccess(vm.state.qual[0]);
    if access.is_decoded() {
        check_eq!(access.lmsw(), 0x3b, "operand of LMSW");
    }
    vm.expect(Groups::DONE, Exit::Hlt)
}

/// Runs instructions one by one: those of this processor's extension must exit, those of the other do not exist.
fn each(bench: &Bench<'_>, exit: Exit, vmx: &[&[u8]], svm: &[&[u8]]) -> Check {
    let mut vm = vm(bench)?;
    for (owner, list) in [(Extension::Vmx, vmx), (Extension::Svm, svm)] {
        for code in list {
            let name = format!("{owner:?}, {code:02x?}");
            vm.load(Mode::Long, &[code, &[0xf4][..]].concat())?;
            (vm.state.gpr.rdi, vm.state.gpr.rbx) = (0x9000, 0x77);
            if owner == extension() {
                vm.expect(Groups::ALL, exit).map_err(|why| format!("{name}: {why}"))?;
                check_eq!(vm.state.gpr.rbx, 0x77, "{name}: RBX");
                let length = code.len() as u64;
                check_eq!(vm.state.inst_len, vm.told(length), "{name}: length");
                vm.expect(Groups::DONE, Exit::Hlt).map_err(|why| format!("{name}: {why}"))?;
                check_eq!(vm.state.rip, CODE + length, "{name}: RIP behind it");
            } else {
                vm.expect(Groups::ALL, Exit::Hlt).map_err(|why| format!("{name}: {why}"))?;
                check_eq!(vm.state.rip, stub(6), "{name}: the guest's handler of #UD");
            }
        }
    }
    Ok(())
}

fn hypercall(bench: &mut Bench<'_>) -> Check {
    each(bench, Exit::Hypercall, &[code!(64, "vmcall")], &[code!(64, "vmmcall")])
}

fn virtualization(bench: &mut Bench<'_>) -> Check {
    let vmx = [
        code!(64, "vmlaunch"),
        code!(64, "vmresume"),
        code!(64, "vmptrld [rdi]"),
        code!(64, "vmptrst [rdi]"),
        code!(64, "vmclear [rdi]"),
        code!(64, "vmread rax, rax"),
        code!(64, "vmwrite rax, rax"),
        code!(64, "vmxoff"),
        code!(64, "vmxon [rdi]"),
        code!(64, "invept rax, [rdi]"),
        code!(64, "invvpid rax, [rdi]"),
    ];
    let svm = [
        code!(64, "vmrun rax"),
        code!(64, "vmload rax"),
        code!(64, "vmsave rax"),
        code!(64, "stgi"),
        code!(64, "clgi"),
        code!(64, "invlpga rax, ecx"),
    ];
    each(bench, Exit::Virtualization, &vmx, &svm)
}
