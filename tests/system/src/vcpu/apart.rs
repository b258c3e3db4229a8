//! What a virtual CPU has in the processor's registers stays its own, whoever else uses them.

use alloc::format;

use abi::vcpu::{Exit, Groups};
use runtime::pd::Pd;
use runtime::space::{MsrSpace, PortSpace};

use super::modes::Mode;
use super::vm::{MEMORY, Spaces, Vm};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq, code};

pub const TESTS: &[Test] = &[
    ("apart.fpu", fpu),
    ("apart.avx", avx),
    ("apart.fpu-starts-clean", clean),
    ("apart.system-registers", system_registers),
    ("apart.debug-registers", debug_registers),
    ("apart.cr2", cr2),
    ("apart.cr2-and-a-task", cr2_and_a_task),
    ("apart.dr6-and-a-task", dr6_and_a_task),
    ("apart.msr-space", msr_space),
    ("apart.port-space", port_space),
];

fn two(bench: &Bench<'_>) -> Result<[Vm; 2], alloc::string::String> {
    Ok([Vm::new(bench, 0, Spaces::default())?, Vm::new(bench, MEMORY, Spaces::default())?])
}

/// Runs the same code on both, in turns, exit by exit: HLT at the end, CPUID in between. Both start with their number in RBX.
fn in_turns(vms: &mut [Vm; 2], code: &[u8], prepare: impl Fn(&mut Vm)) -> Check {
    for (number, vm) in (1..).zip(vms.iter_mut()) {
        vm.load(Mode::Long, code)?;
        vm.state.gpr.rbx = 0x1111_1111_1111_1111 * number;
        prepare(vm);
    }
    let [a, b] = vms;
    a.expect(Groups::ALL, Exit::Cpuid)?;
    b.expect(Groups::ALL, Exit::Cpuid)?;
    a.expect(Groups::DONE, Exit::Cpuid)?;
    b.expect(Groups::DONE, Exit::Cpuid)?;
    a.expect(Groups::DONE, Exit::Hlt)?;
    b.expect(Groups::DONE, Exit::Hlt)
}

fn fpu(bench: &mut Bench<'_>) -> Check {
    let mut vms = two(bench)?;
    let code = code!(
        64,
        "fninit",
        "mov [0x9000], rbx",
        "fild qword ptr [0x9000]",
        "movq xmm0, rbx",
        "movq xmm15, rbx",
        "mov dword ptr [0x9008], 0x1f80",
        "and ebx, 0x2000",
        "or [0x9008], ebx",
        "ldmxcsr [0x9008]",
        "cpuid",
        "nop",
        "cpuid",
        "fistp qword ptr [0x9000]",
        "mov rax, [0x9000]",
        "movq rcx, xmm0",
        "movq rdx, xmm15",
        "stmxcsr [0x9008]",
        "mov esi, [0x9008]",
        "hlt",
    );
    in_turns(&mut vms, code, |_| {})?;
    for (number, vm) in (1_u64..).zip(&vms) {
        let value = 0x1111_1111_1111_1111 * number;
        let gpr = &vm.state.gpr;
        check_eq!((gpr.rax, gpr.rcx, gpr.rdx), (value, value, value), "guest {number}");
        check_eq!(gpr.rsi, 0x1f80 | value & 0x2000, "MXCSR of guest {number}");
    }
    Ok(())
}

fn avx(bench: &mut Bench<'_>) -> Check {
    let leaf = core::arch::x86_64::__cpuid(1);
    if bench.features & abi::hip::features::XSAVE == 0 || leaf.ecx & 1 << 28 == 0 {
        return Ok(());
    }
    let mut vms = two(bench)?;
    let code = code!(
        64,
        "mov [0x9000], rbx",
        "vbroadcastsd ymm7, [0x9000]",
        "cpuid",
        "nop",
        "cpuid",
        "vextractf128 xmm1, ymm7, 1",
        "vpextrq rsi, xmm1, 1",
        "xor ecx, ecx",
        "xgetbv",
        "hlt",
    );
    in_turns(&mut vms, code, |vm| {
        vm.state.cr4 |= 1 << 18;
        vm.state.xcr0 = 7;
    })?;
    for (number, vm) in (1_u64..).zip(&vms) {
        check_eq!(vm.state.gpr.rsi, 0x1111_1111_1111_1111 * number, "guest {number}");
        check_eq!(vm.state.gpr.rax, 7, "XCR0 of guest {number}");
    }
    // A guest that has AVX off stays without it, whatever the other does.
    let [a, b] = &mut vms;
    b.load(Mode::Long, code!(64, "xor ecx, ecx", "xgetbv", "cpuid", "xgetbv", "hlt"))?;
    b.state.cr4 |= 1 << 18;
    b.state.xcr0 = 3;
    b.expect(Groups::ALL, Exit::Cpuid)?;
    check_eq!(b.state.gpr.rax, 3, "XCR0 of a guest without AVX");
    a.start(Mode::Long, code!(64, "hlt"), Exit::Hlt)?;
    b.state.gpr.rcx = 0;
    b.expect(Groups::ACDB | Groups::DONE, Exit::Hlt)?;
    check_eq!(b.state.gpr.rax, 3, "XCR0 after the other guest ran");
    Ok(())
}

fn clean(bench: &mut Bench<'_>) -> Check {
    // A new virtual CPU finds nothing of what another left in the registers.
    let mut first = Vm::new(bench, 0, Spaces::default())?;
    let code =
        code!(64, "mov rax, -1", "movq xmm0, rax", "movq xmm9, rax", "movq mm3, rax", "hlt",);
    first.start(Mode::Long, code, Exit::Hlt)?;
    let mut second = Vm::new(bench, MEMORY, Spaces::default())?;
    let code = code!(
        64,
        "movq rax, xmm0",
        "movq rbx, xmm9",
        "fnstcw [0x9000]",
        "movzx ecx, word ptr [0x9000]",
        "stmxcsr [0x9008]",
        "mov edx, [0x9008]",
        "movq rsi, mm3",
        "hlt",
    );
    second.start(Mode::Long, code, Exit::Hlt)?;
    let gpr = &second.state.gpr;
    check_eq!((gpr.rax, gpr.rbx, gpr.rsi), (0, 0, 0), "vector registers");
    check_eq!(gpr.rcx | 0x40, 0x37f | 0x40, "control word");
    check_eq!(gpr.rdx, 0x1f80, "MXCSR");
    Ok(())
}

fn system_registers(bench: &mut Bench<'_>) -> Check {
    let mut vms = two(bench)?;
    for (number, vm) in (1_u64..).zip(&mut vms) {
        vm.load(Mode::Long, code!(64, "swapgs", "cpuid", "swapgs", "cpuid", "hlt"))?;
        let state = &mut vm.state;
        (state.star, state.lstar, state.cstar) = (number << 32, 0x1000 * number, 0x2000 * number);
        (state.fmask, state.kernel_gs_base) = (0x100 * number, 0x7000 * number);
        (state.gs.base, state.sysenter_eip) = (0x8000 * number, 0x3000 * number);
        (state.pat, state.tsc_aux) = (0x0007_0406_0007_0403 + number, number);
    }
    let [a, b] = &mut vms;
    a.expect(Groups::ALL, Exit::Cpuid)?;
    b.expect(Groups::ALL, Exit::Cpuid)?;
    for (number, vm) in (1_u64..).zip([&mut *a, &mut *b]) {
        check_eq!(vm.state.kernel_gs_base, 0x8000 * number, "KERNEL_GS_BASE, exchanged");
        check_eq!(vm.state.gs.base, 0x7000 * number, "base of GS, exchanged");
        vm.expect(Groups::DONE, Exit::Cpuid)?;
    }
    for (number, vm) in (1_u64..).zip([a, b]) {
        let state = &vm.state;
        check_eq!(
            (state.star, state.lstar, state.cstar, state.fmask),
            (number << 32, 0x1000 * number, 0x2000 * number, 0x100 * number),
            "system-call registers of guest {number}"
        );
        check_eq!((state.kernel_gs_base, state.gs.base), (0x7000 * number, 0x8000 * number), "GS");
        check_eq!(state.sysenter_eip, 0x3000 * number, "IA32_SYSENTER_EIP");
        check_eq!(state.pat, 0x0007_0406_0007_0403 + number, "IA32_PAT");
    }
    Ok(())
}

fn debug_registers(bench: &mut Bench<'_>) -> Check {
    let mut vms = two(bench)?;
    let code = code!(
        64,
        "mov dr0, rbx",
        "mov dr3, rbx",
        "cpuid",
        "nop",
        "cpuid",
        "mov rax, dr0",
        "mov rcx, dr3",
        "hlt",
    );
    in_turns(&mut vms, code, |_| {})?;
    for (number, vm) in (1_u64..).zip(&vms) {
        let value = 0x1111_1111_1111_1111 * number;
        check_eq!((vm.state.gpr.rax, vm.state.gpr.rcx), (value, value), "guest {number}");
        check_eq!((vm.state.dr[0], vm.state.dr[3]), (value, value), "state of guest {number}");
    }
    // A breakpoint of a guest works, and only there.
    let [a, b] = &mut vms;
    a.load(Mode::Long, code!(64, "mov dr7, rbx", "mov eax, [0x9000]", "nop", "hlt"))?;
    a.state.dr[1] = 0x9000;
    // L1, data reads and writes of 4 bytes. The guest sets it: QEMU does not look at what is loaded for one.
    a.state.gpr.rbx = 0x400 | 1 << 2 | 0xf << 20;
    a.expect(Groups::ALL, Exit::Hlt)?;
    check_eq!(a.state.rip, super::modes::stub(1), "the handler of a breakpoint");
    check_eq!(a.state.dr6 & 0xf, 2, "DR6");
    b.start(Mode::Long, code!(64, "mov eax, [0x9000]", "hlt"), Exit::Hlt)?;
    check!(b.state.rip < 0x2000, "the other guest's breakpoint");
    Ok(())
}

fn cr2(bench: &mut Bench<'_>) -> Check {
    let mut vms = two(bench)?;
    let code = code!(64, "mov cr2, rbx", "cpuid", "nop", "cpuid", "mov rax, cr2", "hlt",);
    in_turns(&mut vms, code, |_| {})?;
    for (number, vm) in (1_u64..).zip(&vms) {
        let value = 0x1111_1111_1111_1111 * number;
        check_eq!((vm.state.gpr.rax, vm.state.cr2), (value, value), "guest {number}");
    }
    Ok(())
}

fn cr2_and_a_task(bench: &mut Bench<'_>) -> Check {
    // A page fault of a task in between changes nothing for the guest.
    let mut vm = Vm::new(bench, 0, Spaces::default())?;
    let victim = crate::kernel::victim(bench)?;
    vm.load(Mode::Long, code!(64, "mov cr2, rbx", "cpuid", "mov rax, cr2", "hlt"))?;
    vm.state.gpr.rbx = 0x1234_5678;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    victim(bench)?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!(vm.state.gpr.rax, 0x1234_5678, "CR2");
    Ok(())
}

fn dr6_and_a_task(bench: &mut Bench<'_>) -> Check {
    // Nor do single steps of a task, each of which sets BS and may clear the others (SDM 3B 18.2.3).
    const BREAKPOINTS: u64 = 0xffff_0ff3;
    let mut vm = Vm::new(bench, 0, Spaces::default())?;
    let stepper = crate::kernel::stepper(bench)?;
    vm.load(Mode::Long, code!(64, "mov dr6, rbx", "cpuid", "mov rax, dr6", "hlt"))?;
    vm.state.gpr.rbx = BREAKPOINTS;
    vm.expect(Groups::ALL, Exit::Cpuid)?;
    stepper(bench)?;
    vm.expect(Groups::DONE, Exit::Hlt)?;
    check_eq!((vm.state.gpr.rax, vm.state.dr6), (BREAKPOINTS, BREAKPOINTS), "DR6");
    Ok(())
}

fn msr_space(bench: &mut Bench<'_>) -> Check {
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    let source = bench.msrs.ok_or("the task was given no registers for guests")?;
    let msrs = MsrSpace::create(Pd::OWN).map_err(|status| format!("{status:?}"))?;
    source.grant(LSTAR, 1, msrs).map_err(|status| format!("{status:?}"))?;
    let mut vm = Vm::new(bench, 0, Spaces { msrs: Some(msrs), ports: None })?;
    // One that was given, one that was not, and one that nobody may have.
    let code = code!(
        64,
        "mov ecx, 0xc0000082",
        "mov eax, 0x55667788",
        "mov edx, 0xffff8000",
        "wrmsr",
        "xor eax, eax",
        "rdmsr",
        "mov ebx, eax",
        "mov ecx, 0xc0000084",
        "wrmsr",
        "mov ecx, 0x174",
        "rdmsr",
        "mov ecx, 0x10",
        "wrmsr",
        "hlt",
    );
    vm.start(Mode::Long, code, Exit::MsrWrite)?;
    check_eq!((vm.state.gpr.rbx, vm.state.lstar), (0x5566_7788, 0xffff_8000_5566_7788), "LSTAR");
    check_eq!(vm.state.gpr.rcx, u64::from(FMASK), "the first exit's register");
    vm.expect(Groups::DONE, Exit::MsrRead)?;
    vm.expect(Groups::DONE, Exit::MsrWrite)?;
    check_eq!(vm.state.gpr.rcx, 0x10, "the last exit's register");
    vm.expect(Groups::DONE, Exit::Hlt)?;
    // Given later, it works at once.
    source.grant(FMASK, 1, msrs).map_err(|status| format!("{status:?}"))?;
    vm.start(Mode::Long, code, Exit::MsrRead)?;
    check_eq!(vm.state.gpr.rcx, 0x174, "the first exit's register after another grant");
    // What no guest may have is not given: EFER, the APIC's base, SYSENTER_EIP of the kernel's entry.
    source.grant(0, 0x2000, msrs).map_err(|status| format!("{status:?}"))?;
    source.grant(0xc000_0000, 0x2000, msrs).map_err(|status| format!("{status:?}"))?;
    let code = code!(
        64,
        "mov ecx, 0xc0000080",
        "rdmsr",
        "mov ecx, 0x1b",
        "rdmsr",
        "mov ecx, 0x38f",
        "rdmsr",
        "hlt"
    );
    vm.start(Mode::Long, code, Exit::MsrRead)?;
    vm.expect(Groups::DONE, Exit::MsrRead)?;
    vm.expect(Groups::DONE, Exit::MsrRead)?;
    vm.expect(Groups::DONE, Exit::Hlt)
}

fn port_space(bench: &mut Bench<'_>) -> Check {
    // A space without ports passes none: not the interrupt controllers', not the first, not the last.
    let ports = PortSpace::create(Pd::OWN).map_err(|status| format!("{status:?}"))?;
    let mut vm = Vm::new(bench, 0, Spaces { msrs: None, ports: Some(ports) })?;
    let code = code!(64, "2:", "in al, dx", "hlt");
    for port in [
        0, 0x20, 0x21, 0x40, 0x60, 0x80, 0xa0, 0xa1, 0x3f8, 0x4d0, 0x4d1, 0xcf8, 0x7fff, 0x8000,
        0xffff,
    ] {
        vm.load(Mode::Long, code)?;
        vm.state.gpr.rdx = port;
        vm.expect(Groups::ALL, Exit::Port).map_err(|why| format!("port {port:#x}: {why}"))?;
        check_eq!(vm.state.qual[0] >> 16, port, "port");
    }
    Ok(())
}
