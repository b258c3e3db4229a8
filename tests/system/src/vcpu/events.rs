//! Events: what the VMM injects and what the guest raises itself arrive once, with the right frame.

use alloc::format;

use abi::cap::MemRights;
use abi::vcpu::{Event, EventKind, Exit, Groups, MemoryAccess, Window, blocking};

use super::exits::vm;
use super::modes::{self, Mode, stub};
use super::vm::{CODE, STACK, Vm};
use crate::processor::is_tcg;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("event.interrupt", interrupt),
    ("event.exception", exception),
    ("event.nmi", nmi),
    ("event.nmi-window", nmi_window),
    ("event.interrupt-window", interrupt_window),
    ("event.window-and-shadow", shadow),
    ("event.table-not-there", table_not_there),
    ("event.stack-not-there", stack_not_there),
    ("event.software-interrupt", software),
    ("event.guest-fault-not-there", guest_fault),
    ("event.replaced", replaced),
    ("event.nmi-not-there", nmi_not_there),
];

/// The return address on the guest's stack.
fn return_address(vm: &Vm, mode: Mode) -> Result<u64, alloc::string::String> {
    let at = vm.state.gpr.rsp;
    Ok(match mode {
        Mode::Real => u16::from_le_bytes(vm.peek(at)?).into(),
        Mode::Protected => u32::from_le_bytes(vm.peek(at)?).into(),
        Mode::Long => vm.peek_u64(at)?,
    })
}

/// NOP, HLT with interrupts as they are: the same bytes in every mode.
const NOP_HLT: &[u8] = &[0x90, 0xf4];

/// The guest is in the handler of `vector`; goes back to the main program, which ends with HLT at `end`.
fn finish(vm: &mut Vm, vector: u8, end: u64) -> Check {
    check_eq!(vm.state.rip, stub(vector), "the handler");
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.rip, end, "HLT of the main program");
    check_eq!(vm.state.gpr.rsp, STACK, "RSP behind it all");
    check_eq!(vm.state.event.is_valid(), false, "an event is left");
    Ok(())
}

fn interrupt(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        for vector in [0x20, 0x40, 0xff] {
            vm.load(mode, NOP_HLT)?;
            vm.state.rflags = 0x202;
            vm.state.event = Event::interrupt(vector);
            vm.expect(Groups::ALL, Exit::Hlt)?;
            check_eq!(return_address(&vm, mode)?, CODE, "{mode:?}: return address");
            check_eq!(vm.state.rflags & 0x200, 0, "{mode:?}: IF in the handler");
            finish(&mut vm, vector, CODE + 1).map_err(|why| format!("{mode:?}: {why}"))?;
            check_eq!(vm.state.rflags & 0x200, 0x200, "{mode:?}: IF afterwards");
        }
    }
    Ok(())
}

fn exception(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        for (vector, error) in [(0, None), (6, None), (13, Some(0x1234)), (14, Some(7))] {
            vm.load(mode, NOP_HLT)?;
            // Real mode has no error codes (SDM 3C 27.2.1.3 forbids them there).
            let error = error.filter(|_| mode != Mode::Real);
            vm.state.event = Event::exception(vector, error);
            vm.state.cr2 = 0x4_5678;
            vm.expect(Groups::ALL, Exit::Hlt)?;
            check_eq!(vm.state.rip, stub(vector), "{mode:?}: the handler of {vector}");
            if let Some(error) = error {
                let pushed = u32::from_le_bytes(vm.peek(vm.state.gpr.rsp)?);
                check_eq!(pushed, error, "{mode:?}: error code of {vector}");
            }
            check_eq!(vm.state.cr2, 0x4_5678, "CR2");
            finish(&mut vm, vector, CODE + 1).map_err(|why| format!("{mode:?} {vector}: {why}"))?;
        }
    }
    Ok(())
}

fn nmi(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        vm.load(mode, NOP_HLT)?;
        // IF does not matter.
        vm.state.event = Event::nmi();
        vm.expect(Groups::ALL, Exit::Hlt)?;
        check_eq!(vm.state.blocking & blocking::NMI, blocking::NMI, "{mode:?}: NMIs blocked");
        finish(&mut vm, 2, CODE + 1).map_err(|why| format!("{mode:?}: {why}"))?;
        check_eq!(vm.state.blocking & blocking::NMI, 0, "{mode:?}: NMIs blocked after IRET");
    }
    Ok(())
}

fn nmi_window(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    // Open at once.
    vm.load(Mode::Long, NOP_HLT)?;
    vm.state.window = Window::NMI;
    vm.expect(Groups::ALL, Exit::NmiWindow)?;
    check_eq!(vm.state.rip, CODE, "RIP at the first window");
    // Open as long as it is waited for.
    vm.expect(Groups::NONE, Exit::NmiWindow)?;
    check_eq!(vm.state.rip, CODE, "RIP at the same window");
    // Closed in the handler, open behind its IRET.
    vm.state.window = Window::NMI;
    vm.state.event = Event::nmi();
    vm.expect(Groups::WINDOW | Groups::EVENT, Exit::Hlt)?;
    check_eq!(vm.state.rip, stub(2), "the handler");
    check_eq!(vm.state.window, Window::NMI, "the window that was asked for");
    vm.expect(Groups::DONE, Exit::NmiWindow)?;
    check_eq!(vm.state.rip, CODE, "RIP behind the handler");
    vm.state.window = Window(0);
    vm.expect(Groups::WINDOW, Exit::Hlt)?;
    check_eq!(vm.state.rip, CODE + 1, "RIP at the end");
    Ok(())
}

fn interrupt_window(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    // NOP, STI, NOP, NOP, CLI, HLT: the window opens one instruction after STI.
    let code = [0x90, 0xfb, 0x90, 0x90, 0xfa, 0xf4];
    for mode in modes::ALL {
        vm.load(mode, &code)?;
        vm.state.window = Window::INTERRUPT;
        vm.expect(Groups::ALL, Exit::InterruptWindow)?;
        check_eq!(vm.state.rip, CODE + 3, "{mode:?}: RIP at the window");
        vm.state.window = Window(0);
        vm.state.event = Event::interrupt(0x33);
        vm.expect(Groups::WINDOW | Groups::EVENT, Exit::Hlt)?;
        check_eq!(return_address(&vm, mode)?, CODE + 3, "{mode:?}: return address");
        finish(&mut vm, 0x33, CODE + 5)?;
        // With interrupts on from the start it opens at once.
        vm.load(mode, &code)?;
        vm.state.rflags = 0x202;
        vm.state.window = Window::INTERRUPT;
        vm.expect(Groups::ALL, Exit::InterruptWindow)?;
        check_eq!(vm.state.rip, CODE, "{mode:?}: RIP with IF set");
        // And asked for once more it opens again, before anything is executed.
        vm.expect(Groups::NONE, Exit::InterruptWindow)?;
        check_eq!(vm.state.rip, CODE, "{mode:?}: RIP at the second window");
    }
    Ok(())
}

fn shadow(bench: &mut Bench<'_>) -> Check {
    // An exit right behind STI: the shadow holds until the instruction is done, however often it exits.
    let mut vm = vm(bench)?;
    vm.start(Mode::Long, code!(64, "sti", "cpuid", "nop", "hlt"), Exit::Cpuid)?;
    check!(vm.in_shadow(blocking::STI), "blocking behind STI: {:#x}", vm.state.blocking);
    vm.state.window = Window::INTERRUPT;
    // QEMU loads no shadow when it enters a guest: there the window opens at the first attempt.
    if !is_tcg() {
        vm.expect(Groups::WINDOW, Exit::Cpuid)?;
        check!(vm.in_shadow(blocking::STI), "blocking behind STI: {:#x}", vm.state.blocking);
    }
    vm.expect(Groups::WINDOW | Groups::DONE, Exit::InterruptWindow)?;
    check_eq!(vm.state.rip, CODE + 3, "RIP at the window");
    // MOV SS does the same.
    vm.start(
        Mode::Long,
        code!(64, "sti", "nop", "mov eax, ss", "mov ss, eax", "cpuid", "hlt"),
        Exit::Cpuid,
    )?;
    check!(vm.in_shadow(blocking::MOV_SS), "blocking behind MOV SS: {:#x}", vm.state.blocking);
    vm.state.window = Window::INTERRUPT;
    if !is_tcg() {
        vm.expect(Groups::WINDOW, Exit::Cpuid)?;
    }
    vm.expect(Groups::WINDOW | Groups::DONE, Exit::InterruptWindow)
}

/// The exit interrupted the delivery of that event. INT n need not show: the guest can just as well execute it again.
fn is_under_way(vm: &Vm, event: Event) -> Check {
    let got = vm.state.event;
    if event.kind() == EventKind::SoftwareInterrupt as u8 && !got.is_valid() {
        check_eq!(vm.state.rip, CODE, "RIP at the INT");
        return Ok(());
    }
    check_eq!(got.info, event.info, "the event that is under way");
    if event.info >> 11 & 1 == 1 {
        check_eq!(got.error, event.error, "its error code");
    }
    Ok(())
}

/// Runs into the missing page, maps it, and goes on to the handler of `vector`.
fn run_into(vm: &mut Vm, page: u64, event: Event, vector: u8) -> Check {
    vm.unmap(page, 0x1000, MemRights::RWX)?;
    vm.expect(Groups::ALL, Exit::Memory)?;
    check_eq!(vm.state.qual[1] & !0xfff, page, "the page that is missed");
    is_under_way(vm, event)?;
    // As long as nothing changes, the same happens again.
    for _ in 0..3 {
        vm.expect(Groups::NONE, Exit::Memory)?;
        is_under_way(vm, event)?;
    }
    vm.map(page, 0x1000, MemRights::RWX)?;
    vm.expect(Groups::NONE, Exit::Hlt)?;
    check_eq!(vm.state.rip, stub(vector), "the handler");
    Ok(())
}

fn table_not_there(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for (mode, page) in [(Mode::Real, 0), (Mode::Protected, 0x3000), (Mode::Long, 0x3000)] {
        vm.load(mode, NOP_HLT)?;
        vm.state.rflags = 0x202;
        vm.state.event = Event::interrupt(0x41);
        let result = run_into(&mut vm, page, Event::interrupt(0x41), 0x41);
        vm.map(page, 0x1000, MemRights::RWX)?;
        result.map_err(|why| format!("{mode:?}: {why}"))?;
        check_eq!(return_address(&vm, mode)?, CODE, "{mode:?}: return address");
        finish(&mut vm, 0x41, CODE + 1).map_err(|why| format!("{mode:?}: {why}"))?;
    }
    Ok(())
}

fn stack_not_there(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        let event = if mode == Mode::Real {
            Event::interrupt(0x42)
        } else {
            Event::exception(13, Some(0x18))
        };
        vm.load(mode, NOP_HLT)?;
        vm.state.rflags = 0x202;
        vm.state.event = event;
        let result = run_into(&mut vm, 0x7000, event, event.vector());
        vm.map(0x7000, 0x1000, MemRights::RWX)?;
        result.map_err(|why| format!("{mode:?}: {why}"))?;
        finish(&mut vm, event.vector(), CODE + 1).map_err(|why| format!("{mode:?}: {why}"))?;
    }
    Ok(())
}

fn software(bench: &mut Bench<'_>) -> Check {
    // INT n returns behind itself, also when its delivery was interrupted.
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        vm.load(mode, &[0xcd, 0x55, 0xf4])?;
        let event = Event { info: 1 << 31 | 4 << 8 | 0x55, error: 0 };
        let result = run_into(&mut vm, 0x7000, event, 0x55);
        vm.map(0x7000, 0x1000, MemRights::RWX)?;
        result.map_err(|why| format!("{mode:?}: {why}"))?;
        check_eq!(return_address(&vm, mode)?, CODE + 2, "{mode:?}: return address");
        finish(&mut vm, 0x55, CODE + 2).map_err(|why| format!("{mode:?}: {why}"))?;
    }
    Ok(())
}

fn guest_fault(bench: &mut Bench<'_>) -> Check {
    // A page fault of the guest, whose handler cannot be called at first: its address must not be lost.
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "mov rax, 0x123456789000", "mov [rax], eax"))?;
    vm.state.cr2 = 0;
    let result = run_into(&mut vm, 0x3000, Event::exception(14, Some(2)), 14);
    vm.map(0x3000, 0x1000, MemRights::RWX)?;
    result?;
    check_eq!(vm.state.cr2, 0x1234_5678_9000, "CR2");
    check_eq!(vm.peek_u64(vm.state.gpr.rsp)?, 2, "error code");
    Ok(())
}

fn replaced(bench: &mut Bench<'_>) -> Check {
    // The VMM takes the event back, or puts another in its place.
    let mut vm = vm(bench)?;
    for other in [Event::NONE, Event::exception(6, None)] {
        vm.load(Mode::Long, NOP_HLT)?;
        vm.state.rflags = 0x202;
        vm.state.event = Event::interrupt(0x44);
        vm.unmap(0x3000, 0x1000, MemRights::RWX)?;
        let result = vm.expect(Groups::ALL, Exit::Memory);
        vm.map(0x3000, 0x1000, MemRights::RWX)?;
        result?;
        vm.state.event = other;
        vm.expect(Groups::EVENT, Exit::Hlt)?;
        let expected = if other.is_valid() { stub(6) } else { CODE + 1 };
        check_eq!(vm.state.rip, expected, "RIP");
    }
    Ok(())
}

fn nmi_not_there(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, NOP_HLT)?;
    vm.state.event = Event::nmi();
    let result = run_into(&mut vm, 0x3000, Event::nmi(), 2);
    vm.map(0x3000, 0x1000, MemRights::RWX)?;
    result?;
    check_eq!(vm.state.blocking & blocking::NMI, blocking::NMI, "NMIs blocked in the handler");
    finish(&mut vm, 2, CODE + 1)?;
    // The handler's IRET finds its stack missing: NMIs stay blocked until it is done (SDM 3C 28.2.3).
    vm.load(Mode::Long, NOP_HLT)?;
    vm.state.event = Event::nmi();
    vm.expect(Groups::ALL, Exit::Hlt)?;
    vm.unmap(0x7000, 0x1000, MemRights::RWX)?;
    let result = vm.expect(Groups::DONE, Exit::Memory);
    vm.map(0x7000, 0x1000, MemRights::RWX)?;
    result?;
    check!(
        vm.state.qual[0] & MemoryAccess::READ != 0,
        "IRET reads its frame: {:#x}",
        vm.state.qual[0]
    );
    check_eq!(vm.state.blocking & blocking::NMI, blocking::NMI, "NMIs blocked at the IRET");
    vm.expect(Groups::NONE, Exit::Hlt)?;
    check_eq!((vm.state.rip, vm.state.blocking), (CODE + 1, 0), "RIP and blocking at the end");
    Ok(())
}
