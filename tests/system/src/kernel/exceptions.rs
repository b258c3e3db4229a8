//! Exceptions of threads reach their handler, and what it replies takes effect.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::fault::{FaultGroups, FaultState};
use alloc::format;

use super::victim::{Job, Victim};
use crate::processor::is_tcg;
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("exception.vectors", vectors),
    ("exception.page-fault", page_fault),
    ("exception.traps", traps),
    ("exception.registers-out", registers_out),
    ("exception.registers-in", registers_in),
    ("exception.flags-in", flags_in),
    ("exception.single-step", single_step),
    ("exception.flags-stay-apart", flags_stay_apart),
];

#[unsafe(naked)]
unsafe extern "C" fn divide_by_zero() {
    naked_asm!("xor ecx, ecx", "xor edx, edx", "mov eax, 1", "div ecx", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn undefined() {
    naked_asm!("ud2", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn not_canonical() {
    naked_asm!("mov rax, 0x800000000000", "mov al, [rax]", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn not_canonical_stack() {
    naked_asm!("mov rax, rsp", "mov rsp, 0x800000000000", "pop rcx", "mov rsp, rax", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn interrupt_80() {
    naked_asm!("int 0x80", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn interrupt_timer() {
    naked_asm!("int 0xfe", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn floating_point() {
    naked_asm!("fninit", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn bad_segment() {
    naked_asm!("mov ax, 0x1f8", "mov ds, ax", "ret")
}

fn vectors(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    // APM 2 8.2.13, SDM 3A 6.15: the stack has an exception of its own. QEMU raises #GP for any address that is not canonical.
    let stack = if is_tcg() { 13 } else { 12 };
    // SDM 3A 6.13: the error code names the gate, and that it is one. QEMU 7.2 takes the gate's place in the table for its number,
    // and in long mode a gate has 16 bytes.
    let gate = |vector: u64| if is_tcg() { vector << 4 | 2 } else { vector << 3 | 2 };
    let cases: [(&str, Job, u64, u64); 8] = [
        ("DIV by 0", divide_by_zero, 0, 0),
        ("UD2", undefined, 6, 0),
        ("non-canonical data", not_canonical, 13, 0),
        ("non-canonical stack", not_canonical_stack, stack, 0),
        ("INT 0x80", interrupt_80, 13, gate(0x80)),
        ("INT 0xfe", interrupt_timer, 13, gate(0xfe)),
        ("x87", floating_point, 7, 0),
        ("a selector beyond the table", bad_segment, 13, 0x1f8),
    ];
    for (name, job, vector, error) in cases {
        let state = victim.fault(bench, job).map_err(|why| format!("{name}: {why}"))?;
        check_eq!((state.vector, state.error), (vector, error), "{name}: vector and error code");
    }
    let state = victim.fault(bench, undefined)?;
    check_eq!(state.rip, undefined as *const () as u64, "a fault's RIP");
    Ok(())
}

#[unsafe(naked)]
pub unsafe extern "C" fn read_unmapped() {
    naked_asm!("mov rax, 0x123450", "mov rcx, [rax + 6]", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn write_unmapped() {
    naked_asm!("mov rax, 0x123450", "mov [rax + 7], rcx", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn write_code() {
    naked_asm!("lea rax, [rip]", "mov [rax], al", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn run_unmapped() {
    naked_asm!("mov rax, 0x123450", "jmp rax")
}
#[unsafe(naked)]
unsafe extern "C" fn run_stack() {
    naked_asm!("push 0xc3", "jmp rsp")
}

fn page_fault(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    // SDM 3A 4.7: bit 0 protection, 1 write, 2 user, 4 fetch.
    for (name, job, error, address) in [
        ("read", read_unmapped as Job, 4, Some(0x12_3456)),
        ("write", write_unmapped, 6, Some(0x12_3457)),
        ("write to code", write_code, 7, None),
        ("jump", run_unmapped, 0x14, Some(0x12_3450)),
        ("jump to data", run_stack, 0x15, None),
    ] {
        let state = victim.fault(bench, job).map_err(|why| format!("{name}: {why}"))?;
        check_eq!((state.vector, state.error), (14, error), "{name}: vector and error code");
        if let Some(address) = address {
            check_eq!(state.address, address, "{name}: address");
        }
    }
    let state = victim.fault(bench, undefined)?;
    check_eq!(state.vector, 6, "the next exception");
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn breakpoint() {
    naked_asm!("int3", "ret")
}
#[unsafe(naked)]
unsafe extern "C" fn software_debug() {
    // ICEBP.
    naked_asm!(".byte 0xf1", "ret")
}

/// QEMU 7.2 does not know INT1: for it the byte is an undefined instruction. Processors of both vendors trap (APM 3 INT1), and so
/// do later versions.
fn lacks_int1(state: &FaultState) -> bool {
    let at = software_debug as *const () as u64;
    is_tcg() && (state.vector, state.rip) == (6, at)
}

fn traps(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    for (name, job, vector) in [("INT3", breakpoint as Job, 3), ("INT1", software_debug, 1)] {
        let state = victim.fault(bench, job).map_err(|why| format!("{name}: {why}"))?;
        if lacks_int1(&state) {
            continue;
        }
        check_eq!(state.vector, vector, "{name}: vector");
        check_eq!(state.rip, job as *const () as u64 + 1, "{name}: RIP");
        // A handler that replies without a group lets the thread go on as it was.
        let ended = victim.run(bench, job, |_| Some(FaultGroups::default()))?;
        check_eq!(ended, None, "{name}: going on");
        check_eq!(victim.count(), 1, "{name}: exceptions");
    }
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn load_patterns() {
    naked_asm!(
        "mov rax, 0x1000",
        "mov rcx, 0x1001",
        "mov rdx, 0x1002",
        "mov rbx, 0x1003",
        "mov rbp, 0x1005",
        "mov rsi, 0x1006",
        "mov rdi, 0x1007",
        "mov r8, 0x1008",
        "mov r9, 0x1009",
        "mov r10, 0x100a",
        "mov r11, 0x100b",
        "mov r12, 0x100c",
        "mov r13, 0x100d",
        "mov r14, 0x100e",
        "mov r15, 0x100f",
        "mov rsp, 0x1004",
        "stc",
        "std",
        "ud2",
    )
}

fn registers_out(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let state = victim.fault(bench, load_patterns)?;
    for (number, value) in (0x1000..).zip(state.gpr.to_array()) {
        check_eq!(value, number, "register {}", number & 15);
    }
    // Carry, direction, interrupts on; nothing privileged.
    check_eq!(state.rflags & 0x6_f601, 0x601, "flags");
    Ok(())
}

static STORED: [AtomicU64; 17] = [const { AtomicU64::new(0) }; 17];

/// Stores every register and ends the job by an undefined instruction.
#[unsafe(naked)]
unsafe extern "C" fn store_registers() {
    naked_asm!(
        "mov [rip + {s}], rax", "mov [rip + {s} + 8], rcx", "mov [rip + {s} + 16], rdx",
        "mov [rip + {s} + 24], rbx", "mov [rip + {s} + 32], rsp", "mov [rip + {s} + 40], rbp",
        "mov [rip + {s} + 48], rsi", "mov [rip + {s} + 56], rdi", "mov [rip + {s} + 64], r8",
        "mov [rip + {s} + 72], r9", "mov [rip + {s} + 80], r10", "mov [rip + {s} + 88], r11",
        "mov [rip + {s} + 96], r12", "mov [rip + {s} + 104], r13", "mov [rip + {s} + 112], r14",
        "mov [rip + {s} + 120], r15",
        "lea rsp, [rip + {s} + 136]", "pushfq",
        "ud2",
        s = sym STORED,
    )
}

/// Answers UD2 with a new set of registers, if it is not the one that ends the job.
fn replace(state: &mut FaultState) -> Option<FaultGroups> {
    if state.rip != load_patterns_end() {
        return None;
    }
    for index in 0..16 {
        *state.gpr.reg_mut(index) = 0x8765_4321_0000_0000 | u64::from(index);
    }
    state.gpr.rsp = 0x4321_0000_0004;
    state.rip = store_registers as *const () as u64;
    state.rflags = 0x202 | 1 << 6 | 1 << 11;
    Some(FaultGroups::STATE)
}

/// The same with every flag set.
fn replace_flags(state: &mut FaultState) -> Option<FaultGroups> {
    if state.rip != load_patterns_end() {
        return None;
    }
    state.rip = store_registers as *const () as u64;
    // All but TF, which would only single-step, and AC, which has a test of its own.
    state.rflags = !(1 << 8 | 1 << 18);
    Some(FaultGroups::STATE)
}

/// The UD2 at the end of [`load_patterns`], found by its code.
fn load_patterns_end() -> u64 {
    let start = load_patterns as *const () as *const u8;
    // SAFETY: the function's code is readable, and it ends with that instruction.
    let offset =
        (0..512).find(|i| unsafe { start.add(*i).cast::<u16>().read_unaligned() } == 0x0b0f);
    start as u64 + offset.unwrap_or(0) as u64
}

fn registers_in(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let end = victim.run(bench, load_patterns, replace)?.ok_or("no end")?;
    check_eq!((end.vector, victim.count()), (6, 2), "the end of the job");
    for (index, value) in (0_u64..16).zip(&STORED) {
        // The stack pointer has to lie in the task's half.
        let high = if index == 4 { 0x4321_0000_0000 } else { 0x8765_4321_0000_0000 };
        check_eq!(value.load(Ordering::Relaxed), high | index, "register {index}");
    }
    let flags = STORED[16].load(Ordering::Relaxed);
    check_eq!(flags, 0x202 | 1 << 6 | 1 << 11, "flags");
    Ok(())
}

fn flags_in(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let end = victim.run(bench, load_patterns, replace_flags)?.ok_or("no end")?;
    check_eq!((end.vector, victim.count()), (6, 2), "the end of the job");
    let flags = STORED[16].load(Ordering::Relaxed);
    check!(flags & 0x200 != 0, "interrupts are off: {flags:#x}");
    // IOPL, NT, VM, VIF, VIP.
    check_eq!(flags & 0x1a_7000, 0, "flags that a task must not have");
    check_eq!(flags & 0x8d5, 0x8d5, "arithmetic flags");
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn alignment() {
    naked_asm!("pushfq", "or dword ptr [rsp], 0x40000", "popfq", "mov eax, [rsp + 1]", "ret",)
}

/// Where the alignment flag stands, looked at by the handler of a thread that has it set.
static HANDLER_FLAGS: AtomicU64 = AtomicU64::new(0);

fn flags_stay_apart(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    for turn in 0..2 {
        let state = victim.run(bench, alignment, |_| {
            let flags: u64;
            // SAFETY: reads the flags.
            unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags) };
            HANDLER_FLAGS.store(flags, Ordering::Relaxed);
            None
        })?;
        // Whether the kernel has alignment checks on is its choice.
        check!(state.is_none_or(|state| state.vector == 17), "turn {turn}: {state:?}");
    }
    let flags = HANDLER_FLAGS.load(Ordering::Relaxed);
    check_eq!(flags & 0x4_4500, 0, "flags of the handler that come from its caller");
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn step() {
    naked_asm!(
        "pushfq",
        "or dword ptr [rsp], 0x100",
        "popfq",
        // The trap of POPF itself comes behind the next instruction.
        "nop",
        "nop",
        "nop",
        "pushfq",
        "and dword ptr [rsp], ~0x100",
        "popfq",
        "ret",
    )
}

fn single_step(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let ended =
        victim.run(bench, step, |state| (state.vector == 1).then_some(FaultGroups::default()))?;
    check_eq!(ended, None, "the end of the job");
    // NOP x 3, PUSHF, AND, POPF.
    check_eq!(victim.count(), 6, "debug exceptions");
    Ok(())
}
