//! Each exit arrives as itself, and says what `abi` promises.

use abi::vcpu::{Event, Exit, Groups, PortAccess, blocking};

use super::modes::{self, Mode, stub};
use super::vm::{CODE, DATA, Spaces, Vm};
use crate::processor::{has_monitor, is_tcg, patiently, slack};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("exit.startup", startup),
    ("exit.modes", run_in_modes),
    ("exit.cpuid", cpuid),
    ("exit.port", port),
    ("exit.port-string", port_string),
    ("exit.msr", msr),
    ("exit.cache", cache),
    ("exit.xsetbv", xsetbv),
    ("exit.rdtsc", |bench| patiently(|| rdtsc(bench))),
    ("exit.pause", pause),
    ("exit.mwait", mwait),
    ("exit.debug-registers", debug_registers),
    ("exit.exception", exception),
    ("exit.task-switch", task_switch),
    ("exit.triple-fault", triple_fault),
    ("exit.done", done),
];

pub fn vm(bench: &Bench<'_>) -> Result<Vm, alloc::string::String> {
    Vm::new(bench, 0, Spaces::default())
}

fn startup(bench: &mut Bench<'_>) -> Check {
    // `Vm::new` has checked that it comes first; it comes once.
    let mut vm = vm(bench)?;
    vm.start(Mode::Real, code!(16, "hlt"), Exit::Hlt)?;
    vm.start(Mode::Real, code!(16, "hlt"), Exit::Hlt)
}

fn run_in_modes(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.start(Mode::Real, code!(16, "mov ax, 0x1234", "push ax", "pop bx", "hlt"), Exit::Hlt)?;
    check_eq!(vm.state.gpr.rbx, 0x1234, "BX in real mode");
    vm.start(
        Mode::Protected,
        code!(32, "mov eax, 0x12345678", "push eax", "pop ebx", "hlt"),
        Exit::Hlt,
    )?;
    check_eq!(vm.state.gpr.rbx, 0x1234_5678, "EBX in protected mode");
    let code = code!(64, "mov rax, 0x123456789abcdef0", "push rax", "pop rbx", "hlt");
    vm.start(Mode::Long, code, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rbx, 0x1234_5678_9abc_def0, "RBX in long mode");
    check_eq!(vm.state.rip, CODE + code.len() as u64 - 1, "RIP at the HLT");
    check_eq!(vm.state.inst_len, vm.told(1), "its length");
    Ok(())
}

fn cpuid(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    for mode in modes::ALL {
        let code = match mode {
            Mode::Real => code!(16, "mov eax, 7", "mov ecx, 3", "cpuid", "hlt"),
            Mode::Protected => code!(32, "mov eax, 7", "mov ecx, 3", "cpuid", "hlt"),
            Mode::Long => code!(64, "mov eax, 7", "mov ecx, 3", "cpuid", "hlt"),
        };
        vm.start(mode, code, Exit::Cpuid)?;
        check_eq!((vm.state.gpr.rax, vm.state.gpr.rcx), (7, 3), "{mode:?}: leaf");
        let gpr = &mut vm.state.gpr;
        (gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx) = (0x11, 0x22, 0x33, 0x44);
        vm.expect(Groups::ACDB | Groups::DONE, Exit::Hlt)?;
        let gpr = &vm.state.gpr;
        check_eq!(
            (gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx),
            (0x11, 0x22, 0x33, 0x44),
            "{mode:?}: what the guest got"
        );
    }
    Ok(())
}

/// Size, direction and port of an access, and bits 4 and 5 of its qualification.
fn access(vm: &Vm) -> (u8, bool, u16, u64) {
    let access = PortAccess(vm.state.qual[0]);
    (access.size(), access.is_in(), access.port(), access.0 >> 4 & 3)
}

fn port(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(
        32,
        "mov eax, 0x11223344",
        "mov dx, 0xabcd",
        "out dx, al",
        "out dx, ax",
        "out dx, eax",
        "in al, dx",
        "in ax, dx",
        "in eax, dx",
        "out 0x80, al",
        "out 0x81, ax",
        "out 0x82, eax",
        "in al, 0x83",
        "in ax, 0x84",
        "in eax, 0xff",
        "hlt",
    );
    vm.start(Mode::Protected, code, Exit::Port)?;
    for (number, expected) in [
        (1, false, 0xabcd, 0),
        (2, false, 0xabcd, 0),
        (4, false, 0xabcd, 0),
        (1, true, 0xabcd, 0),
        (2, true, 0xabcd, 0),
        (4, true, 0xabcd, 0),
        (1, false, 0x80, 0),
        (2, false, 0x81, 0),
        (4, false, 0x82, 0),
        (1, true, 0x83, 0),
        (2, true, 0x84, 0),
        (4, true, 0xff, 0),
    ]
    .into_iter()
    .enumerate()
    {
        check_eq!(access(&vm), expected, "access {number}");
        check_eq!(vm.state.gpr.rax, 0x1122_3344, "EAX at access {number}");
        // This length is told on every processor.
        check!(vm.state.inst_len != 0, "no length at access {number}");
        let last = number == 11;
        vm.expect(Groups::DONE, if last { Exit::Hlt } else { Exit::Port })?;
    }
    Ok(())
}

fn port_string(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(
        32,
        "mov dx, 0x1f0",
        "mov esi, 0x9000",
        "mov edi, 0x9100",
        "mov ecx, 3",
        "cld",
        "outsb",
        "insw",
        "rep outsd",
        "rep insb",
        "hlt",
    );
    vm.start(Mode::Protected, code, Exit::Port)?;
    for (number, expected, linear) in [
        // Bit 4: string, bit 5: REP.
        (0, (1, false, 0x1f0, 1), DATA),
        (1, (2, true, 0x1f0, 1), DATA + 0x100),
        (2, (4, false, 0x1f0, 3), DATA),
        (3, (1, true, 0x1f0, 3), DATA + 0x100),
    ] {
        check_eq!(access(&vm), expected, "access {number}");
        if vm.state.qual[0] & PortAccess::ADDRESS_VALID != 0 {
            check_eq!(vm.state.qual[1], linear, "linear address of access {number}");
        }
        check_eq!(vm.state.gpr.rcx, 3, "ECX at access {number}");
        vm.expect(Groups::DONE, if number == 3 { Exit::Hlt } else { Exit::Port })?;
    }
    Ok(())
}

fn msr(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(
        64,
        "mov ecx, 0x1b",
        "rdmsr",
        "mov ebx, eax",
        "mov esi, edx",
        "mov ecx, 0xc0000103",
        "mov eax, 0x55",
        "mov edx, 0x66",
        "wrmsr",
        "mov ecx, 0x12345678",
        "rdmsr",
        "hlt",
    );
    vm.start(Mode::Long, code, Exit::MsrRead)?;
    check_eq!(vm.state.gpr.rcx, 0x1b, "register read");
    (vm.state.gpr.rax, vm.state.gpr.rdx) = (0xfee0_0900, 5);
    vm.expect(Groups::ACDB | Groups::DONE, Exit::MsrWrite)?;
    check_eq!((vm.state.gpr.rbx, vm.state.gpr.rsi), (0xfee0_0900, 5), "what the guest read");
    let gpr = &vm.state.gpr;
    check_eq!((gpr.rcx, gpr.rax, gpr.rdx), (0xc000_0103, 0x55, 0x66), "register written");
    vm.expect(Groups::DONE, Exit::MsrRead)?;
    check_eq!(vm.state.gpr.rcx, 0x1234_5678, "a register that there is not");
    // The VMM answers with #GP.
    vm.state.event = Event::exception(13, Some(0));
    vm.expect(Groups::EVENT, Exit::Hlt)?;
    check_eq!(vm.state.rip, stub(13), "the guest's handler");
    Ok(())
}

fn cache(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.start(Mode::Real, code!(16, "wbinvd", "invd", "hlt"), Exit::CacheInvalidate)?;
    vm.expect(Groups::DONE, Exit::CacheInvalidate)?;
    vm.expect(Groups::DONE, Exit::Hlt)
}

fn xsetbv(bench: &mut Bench<'_>) -> Check {
    if bench.features & abi::hip::features::XSAVE == 0 {
        return Ok(());
    }
    let mut vm = vm(bench)?;
    let code = code!(64, "xor ecx, ecx", "xor edx, edx", "mov eax, 3", "xsetbv", "xgetbv", "hlt",);
    vm.load(Mode::Long, code)?;
    vm.state.cr4 |= 1 << 18;
    if is_tcg() {
        // QEMU has no intercept of XSETBV: what the guest sets counts at once.
        vm.expect(Groups::ALL, Exit::Hlt)?;
    } else {
        vm.expect(Groups::ALL, Exit::Xsetbv)?;
        check_eq!((vm.state.gpr.rax, vm.state.gpr.rcx), (3, 0), "XSETBV");
        check_eq!(vm.state.xcr0, 1, "XCR0 before");
        vm.state.xcr0 = 3;
        vm.expect(Groups::XSAVE | Groups::DONE, Exit::Hlt)?;
    }
    check_eq!((vm.state.gpr.rax, vm.state.xcr0), (3, 3), "XCR0 after");
    // What the processor would not take is not taken.
    for bad in [0, 2, 5, 1 << 63 | 1] {
        vm.load(Mode::Long, code!(64, "xor ecx, ecx", "xgetbv", "hlt"))?;
        vm.state.cr4 |= 1 << 18;
        vm.state.xcr0 = bad;
        vm.expect(Groups::ALL, Exit::Hlt)?;
        check_eq!(vm.state.gpr.rax, 3, "XCR0 after an attempt to set {bad:#x}");
    }
    Ok(())
}

fn rdtsc(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(64, "rdtsc", "mov ebx, eax", "rdtsc", "hlt");
    vm.start(Mode::Long, code, Exit::Hlt)?;
    vm.load(Mode::Long, code)?;
    vm.state.intercepts = 1;
    vm.expect(Groups::ALL, Exit::Rdtsc)?;
    (vm.state.gpr.rax, vm.state.gpr.rdx) = (0x1234, 0);
    vm.state.intercepts = 0;
    vm.state.tsc_offset = 0_u64.wrapping_sub(runtime::clock::now());
    vm.expect(Groups::ACDB | Groups::DONE | Groups::CONTROL | Groups::TSC, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rbx, 0x1234, "what the VMM said");
    let time = vm.state.gpr.rdx << 32 | vm.state.gpr.rax;
    check!(time > 0 && time < slack(bench.hz) * 2, "the guest's clock, set to 0, shows {time}");
    Ok(())
}

fn pause(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(64, "pause", "nop", "hlt");
    vm.start(Mode::Long, code, Exit::Hlt)?;
    vm.load(Mode::Long, code)?;
    vm.state.intercepts = 2;
    vm.expect(Groups::ALL, Exit::Pause)?;
    vm.expect(Groups::DONE, Exit::Hlt)
}

fn mwait(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(
        64,
        "mov eax, 0x9000",
        "xor ecx, ecx",
        "xor edx, edx",
        "monitor",
        "xor eax, eax",
        "mwait",
        "hlt"
    );
    if !has_monitor() {
        vm.start(Mode::Long, code, Exit::Hlt)?;
        check_eq!(vm.state.rip, stub(6), "the guest's handler of #UD");
        return Ok(());
    }
    vm.start(Mode::Long, code, Exit::Mwait)?;
    vm.expect(Groups::DONE, Exit::Mwait)?;
    vm.expect(Groups::DONE, Exit::Hlt)
}

fn debug_registers(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(64, "mov rax, 0x1234", "mov dr0, rax", "mov rbx, dr0", "hlt");
    vm.start(Mode::Long, code, Exit::Hlt)?;
    check_eq!((vm.state.gpr.rbx, vm.state.dr[0]), (0x1234, 0x1234), "DR0 without an exit");
    vm.load(Mode::Long, code)?;
    vm.state.intercepts = 4;
    vm.expect(Groups::ALL, Exit::Debug)?;
    vm.state.intercepts = 0;
    vm.expect(Groups::CONTROL, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rbx, 0x1234, "DR0 after the intercept ended");
    Ok(())
}

fn exception(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let divide = code!(64, "xor ecx, ecx", "mov eax, 1", "xor edx, edx", "div ecx", "hlt");
    let undefined = code!(64, "ud2", "hlt");
    let fault = code!(64, "mov rax, 0x123456789000", "mov [rax + 8], eax", "hlt");
    let protection = code!(64, "mov ax, 0x500", "mov ds, ax", "hlt");
    for (code, vector, error, address) in [
        (divide, 0, None, 0),
        (undefined, 6, None, 0),
        (fault, 14, Some(2), 0x1234_5678_9008),
        (protection, 13, Some(0x500), 0),
    ] {
        // Not intercepted, it is the guest's own business.
        vm.start(Mode::Long, code, Exit::Hlt)?;
        check_eq!(vm.state.rip, stub(vector), "vector {vector}: the guest's handler");
        if vector == 14 {
            check_eq!(vm.state.cr2, address, "CR2");
        }
        vm.load(Mode::Long, code)?;
        vm.state.exceptions = 1 << vector;
        vm.state.cr2 = 0x77;
        vm.expect(Groups::ALL, Exit::Exception)?;
        let expected = Event::exception(vector, error.map(|error| error as u32));
        check_eq!(vm.state.qual[0], u64::from(expected.info), "vector {vector}: qualification");
        if let Some(error) = error {
            check_eq!(vm.state.qual[1], error, "vector {vector}: error code");
        }
        if vector == 14 {
            check_eq!(vm.state.qual[2], address, "address of the page fault");
            check_eq!(vm.state.cr2, 0x77, "CR2, which the VMM has to set");
        }
        // The VMM passes it on.
        vm.state.event = expected;
        vm.state.cr2 = 0x88;
        vm.expect(Groups::EVENT | Groups::CR2, Exit::Hlt)?;
        check_eq!((vm.state.rip, vm.state.cr2), (stub(vector), 0x88), "vector {vector}: passed on");
    }
    Ok(())
}

fn task_switch(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    let code = code!(32, ".byte 0xea, 0, 0, 0, 0, 32, 0", "hlt");
    if is_tcg() {
        // QEMU has no intercept of task switches: it makes them itself. Here it finds a task state that is empty.
        vm.start(Mode::Protected, code, Exit::Hlt)?;
        check_eq!(vm.state.rip, stub(10), "the guest's handler of #TS");
        return Ok(());
    }
    vm.start(Mode::Protected, code, Exit::TaskSwitch)?;
    let (selector, source) = (vm.state.qual[0] & 0xffff, vm.state.qual[0] >> 30 & 3);
    check_eq!((selector, source), (u64::from(modes::TASK_SELECTOR), 2), "JMP to a task");
    check_eq!(vm.state.inst_len, vm.told(7), "length of the JMP");
    vm.expect(Groups::DONE, Exit::Hlt)
}

fn triple_fault(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    vm.load(Mode::Long, code!(64, "ud2"))?;
    vm.state.idtr.limit = 0;
    // The state behind it is undefined (APM 2 15.14.3).
    vm.expect(Groups::ALL, Exit::TripleFault)?;
    // It is the guest's end only if the VMM thinks so.
    vm.start(Mode::Real, code!(16, "hlt"), Exit::Hlt)
}

fn done(bench: &mut Bench<'_>) -> Check {
    let mut vm = vm(bench)?;
    // Without DONE the instruction is executed again.
    vm.start(Mode::Real, code!(16, "cpuid", "hlt"), Exit::Cpuid)?;
    vm.expect(Groups::NONE, Exit::Cpuid)?;
    check_eq!(vm.state.rip, CODE, "RIP of the second attempt");
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.rip, CODE + 2, "RIP behind it");
    // It ends the shadow of STI and MOV SS.
    for (code, bit) in [
        (code!(16, "sti", "cpuid", "hlt"), blocking::STI),
        (code!(16, "mov ax, ss", "mov ss, ax", "cpuid", "hlt"), blocking::MOV_SS),
    ] {
        vm.start(Mode::Real, code, Exit::Cpuid)?;
        check!(vm.in_shadow(bit), "blocking at the exit: {:#x}", vm.state.blocking);
        vm.expect(Groups::DONE, Exit::Hlt)?;
        check_eq!(vm.state.blocking, 0, "blocking behind it");
    }
    // With TF set it ends with a single-step trap.
    vm.load(Mode::Long, code!(64, "cpuid", "nop", "hlt"))?;
    vm.state.rflags = 0x102;
    vm.state.dr6 = 0xffff_0ff0;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.rip, stub(1), "the guest's handler");
    check_eq!(vm.state.dr6 & 0x400f, 0x4000, "DR6");
    check_eq!(vm.peek_u64(vm.state.gpr.rsp)?, CODE + 2, "where the trap came");
    Ok(())
}
