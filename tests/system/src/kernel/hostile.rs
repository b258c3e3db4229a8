//! What a task may not do: each attempt is an exception of its own, and the kernel does not notice.

use alloc::format;
use core::arch::naked_asm;

use abi::fault::{FaultGroups, FaultState};
use abi::layout::HYPERCALL_PAGE;

use super::raw;
use super::threads::semaphore;
use super::victim::{Answer, Job, Victim, note};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("hostile.privileged", privileged),
    ("hostile.ports", ports),
    ("hostile.kernel-memory", kernel_memory),
    ("hostile.flags", flags),
    ("hostile.single-step-into-kernel", step_into_kernel),
    ("hostile.sysenter", sysenter),
    ("hostile.stack", stack),
    ("hostile.random-hypercalls", random),
    ("hostile.reply-rip", reply_rip),
    ("hostile.reply-rsp", reply_rsp),
];

macro_rules! jobs {
    ($(($name:ident, $vectors:expr, $($line:literal),+)),+ $(,)?) => {{
        $(#[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!($($line),+, "ret")
        })+
        [$((stringify!($name), $name as Job, $vectors as &[u64])),+]
    }};
}

const GP: &[u64] = &[13];
const UD: &[u64] = &[6];
const EITHER: &[u64] = &[6, 13];

fn each(bench: &Bench<'_>, jobs: &[(&str, Job, &[u64])]) -> Check {
    let victim = Victim::new(bench)?;
    for (name, job, vectors) in jobs {
        let state = victim.fault(bench, *job).map_err(|why| format!("{name}: {why}"))?;
        check!(vectors.contains(&state.vector), "{name}: vector {}", state.vector);
    }
    Ok(())
}

fn privileged(bench: &mut Bench<'_>) -> Check {
    each(
        bench,
        &jobs![
            (hlt, GP, "hlt"),
            (cli, GP, "cli"),
            (sti, GP, "sti"),
            (mov_from_cr0, GP, "mov rax, cr0"),
            (mov_to_cr0, GP, "mov rax, cr2", "mov cr0, rax"),
            (mov_to_cr3, GP, "xor eax, eax", "mov cr3, rax"),
            (mov_to_cr4, GP, "xor eax, eax", "mov cr4, rax"),
            (mov_from_cr8, GP, "mov rax, cr8"),
            (mov_from_dr0, GP, "mov rax, dr0"),
            (mov_to_dr7, GP, "xor eax, eax", "mov dr7, rax"),
            (rdmsr, GP, "mov ecx, 0xc0000080", "rdmsr"),
            (wrmsr, GP, "mov ecx, 0xc0000080", "xor eax, eax", "xor edx, edx", "wrmsr"),
            (lgdt, GP, "lgdt [rsp]"),
            (lidt, GP, "lidt [rsp]"),
            (lldt, GP, "xor eax, eax", "lldt ax"),
            (ltr, GP, "xor eax, eax", "ltr ax"),
            (lmsw, GP, "xor eax, eax", "lmsw ax"),
            (clts, GP, "clts"),
            (invd, GP, "invd"),
            (wbinvd, GP, "wbinvd"),
            (invlpg, GP, "invlpg [rsp]"),
            (swapgs, GP, "swapgs"),
            (sysexit, GP, "sysexit"),
            (sysret, EITHER, "sysretq"),
            (syscall, UD, "syscall"),
            (vmcall, EITHER, "vmcall"),
            (vmxoff, EITHER, "vmxoff"),
            (vmlaunch, EITHER, "vmlaunch"),
            (vmptrst, EITHER, "vmptrst [rsp]"),
            (vmread, EITHER, "xor eax, eax", "vmread rax, rax"),
            (vmfunc, UD, "xor eax, eax", ".byte 0x0f, 0x01, 0xd4"),
            (invept, EITHER, "xor eax, eax", ".byte 0x66, 0x0f, 0x38, 0x80, 0x04, 0x24"),
            (
                iret_to_ring_0,
                GP,
                "mov rax, rsp",
                "push 0x10",
                "push rax",
                "push 2",
                "push 8",
                "push rax",
                "iretq"
            ),
            (load_kernel_data, GP, "mov eax, 0x10", "mov ds, ax"),
            (load_kernel_stack, GP, "mov eax, 0x10", "mov ss, ax"),
            (xsetbv, EITHER, "xor ecx, ecx", "xor edx, edx", "mov eax, 1", "xsetbv"),
        ],
    )
}

fn ports(bench: &mut Bench<'_>) -> Check {
    // None of these was given to the task.
    each(
        bench,
        &jobs![
            (in_serial, GP, "mov dx, 0x3fd", "in al, dx"),
            (out_serial, GP, "mov dx, 0x3f8", "out dx, al"),
            (out_pic, GP, "out 0x21, al"),
            (out_pci, GP, "mov dx, 0xcf8", "out dx, eax"),
            (out_end, GP, "mov dx, 0xfffe", "out dx, eax"),
            (ins, GP, "mov dx, 0x60", "lea rdi, [rsp - 64]", "insb"),
            (outs, GP, "mov dx, 0x60", "mov rsi, rsp", "outsw"),
        ],
    )
}

fn kernel_memory(bench: &mut Bench<'_>) -> Check {
    const PF: &[u64] = &[14];
    each(
        bench,
        &jobs![
            (read_blocks, PF, "mov rax, 0xffffff0000000000", "mov al, [rax]"),
            (write_blocks, PF, "mov rax, 0xffffff0000000000", "mov [rax], al"),
            (read_lower_end, PF, "mov rax, 0xffff800000000000", "mov al, [rax]"),
            (read_top, PF, "mov rax, -0x80000000", "mov al, [rax]"),
            (run_top, PF, "mov rax, -0x80000000", "jmp rax"),
            (write_hypercall_page, PF, "mov rax, 0x7ffffff00000", "mov [rax], al"),
            (read_beside_hypercall_page, PF, "mov rax, 0x7ffffff01000", "mov al, [rax]"),
            (read_null, PF, "xor eax, eax", "mov al, [rax]"),
        ],
    )
}

fn flags(bench: &mut Bench<'_>) -> Check {
    // Direction, nested task, alignment check, identification: they must do no harm in the kernel.
    let sm = semaphore()?.selector();
    for (name, flags) in
        [("DF", 1 << 10), ("NT", 1 << 14), ("AC", 1 << 18), ("ID", 1 << 21), ("all", 0x24_4cd5)]
    {
        let rax = abi::hypercall::pack(abi::hypercall::Number::CtrlSm, 0, sm);
        for _ in 0..3 {
            // SAFETY: an up changes no memory.
            let output = unsafe { raw::with_flags(rax, [0; 5], flags | 0x202) };
            check_eq!(output.gpr[0], 0, "{name}: status");
            check_eq!(output.flags & 0x4500, 0, "{name}: flags afterwards");
        }
        // A word-wise copy in the kernel goes the right way.
        let before = bench.utcb.words;
        let _ = runtime::hypercall::call(0, abi::utcb::MsgTag::new(256, 16));
        check_eq!(bench.utcb.words, before, "{name}: the message page");
    }
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn step_through_hypercall() {
    naked_asm!(
        // The hypercall leaves nothing in the registers that a function must keep.
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, 0x7ffffff00000",
        "push 0x302",
        "popfq",
        // No hypercall: an error comes back.
        "mov eax, 0xff",
        "call rbx",
        "nop",
        "pushfq",
        "and dword ptr [rsp], ~0x100",
        "popfq",
        "cmp eax, 3",
        "je 2f",
        "ud2",
        "2:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

fn step_into_kernel(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    for _ in 0..3 {
        let ended = victim.run(bench, step_through_hypercall, |state| {
            (state.vector == 1).then_some(FaultGroups::default())
        })?;
        check_eq!(ended, None, "the end of the job");
        check!(victim.count() >= 3, "{} debug exceptions", victim.count());
    }
    Ok(())
}

// What the page for hypercalls does, with other addresses to return to.
#[unsafe(naked)]
unsafe extern "C" fn return_nowhere() {
    naked_asm!("mov rdx, 0x800000000000", "mov rcx, rsp", "mov eax, 0xff", "sysenter")
}
#[unsafe(naked)]
unsafe extern "C" fn return_to_kernel() {
    naked_asm!("mov rdx, 0xffffffff80000000", "mov rcx, rsp", "mov eax, 0xff", "sysenter")
}
#[unsafe(naked)]
unsafe extern "C" fn stack_nowhere() {
    naked_asm!(
        "lea rdx, [rip + 2f]",
        "mov rcx, 0x800000000000",
        "mov eax, 0xff",
        "sysenter",
        "2:",
        "push rax",
        "ret",
    )
}
#[unsafe(naked)]
unsafe extern "C" fn stack_in_kernel() {
    naked_asm!(
        "lea rdx, [rip + 2f]",
        "mov rcx, 0xffffff0000009000",
        "mov eax, 0xff",
        "sysenter",
        "2:",
        "push rax",
        "ret",
    )
}
#[unsafe(naked)]
unsafe extern "C" fn hypercall_without_stack() {
    naked_asm!("xor esp, esp", "mov rbx, 0x7ffffff00000", "mov eax, 0xff", "jmp rbx")
}

fn sysenter(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    for (name, job) in [
        ("return to a non-canonical address", return_nowhere as Job),
        ("return into the kernel", return_to_kernel),
        ("non-canonical stack", stack_nowhere),
        ("stack in the kernel", stack_in_kernel),
        ("no stack", hypercall_without_stack),
    ] {
        let state = victim.fault(bench, job).map_err(|why| format!("{name}: {why}"))?;
        check!(matches!(state.vector, 12..=14), "{name}: vector {}", state.vector);
    }
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn fault_without_stack() {
    naked_asm!("mov rsp, 0xffffff0000009000", "ud2")
}

fn stack(bench: &mut Bench<'_>) -> Check {
    // An exception does not touch the task's stack, wherever that is.
    let victim = Victim::new(bench)?;
    let state = victim.fault(bench, fault_without_stack)?;
    check_eq!((state.vector, state.gpr.rsp), (6, 0xffff_ff00_0000_9000), "vector and RSP");
    Ok(())
}

fn random(bench: &mut Bench<'_>) -> Check {
    // Numbers without sense, for every hypercall that cannot block or end the caller.
    let before = bench.utcb.words;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..3000 {
        let number = next() % 20;
        let selector = (next() >> (next() % 64)) as u32;
        // Not one of its own that it needs: the point is what the kernel does with nonsense.
        let selector = if selector < 0x100 { selector % 3 * 0x1_0000 } else { selector | 0x1_0000 };
        let word = number | (next() & 0xff) << 8 | u64::from(selector) << 32;
        let mut argument = || next() >> (next() % 64);
        let arguments = [argument(), argument(), argument(), argument(), argument()];
        if number == 1 {
            continue;
        }
        // SAFETY: the selectors name nothing, so nothing can change.
        let output = unsafe { raw::with_flags(word, arguments, 0x202) };
        check!(output.gpr[0] <= 11, "hypercall {word:#x} {arguments:x?}: status {}", output.gpr[0]);
        check!(output.gpr[0] != 0, "hypercall {word:#x} {arguments:x?} did something");
    }
    check_eq!(bench.utcb.words, before, "the message page");
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn undefined() {
    naked_asm!("ud2", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn push() {
    naked_asm!("push rax", "ud2")
}

fn outlaw(bench: &mut Bench<'_>, answer: Answer) -> Check {
    let victim = Victim::new(bench)?;
    let state = victim.run(bench, undefined, answer)?.ok_or("no exception")?;
    check!(matches!(state.vector, 12..=14), "vector {}", state.vector);
    // And everything goes on.
    check_eq!(victim.run(bench, undefined, note)?.map(|state| state.vector), Some(6), "next");
    Ok(())
}

fn reply_rip(bench: &mut Bench<'_>) -> Check {
    // A handler may send its thread anywhere; where there is nothing to run, the thread faults, not the kernel.
    for rip in [HYPERCALL_PAGE + 0x1000, 0x8000_0000_0000, 0xffff_ff00_0000_0000] {
        TARGET.store(rip, core::sync::atomic::Ordering::Relaxed);
        outlaw(bench, |state: &mut FaultState| {
            (state.vector == 6).then(|| {
                state.rip = TARGET.load(core::sync::atomic::Ordering::Relaxed);
                FaultGroups::STATE
            })
        })
        .map_err(|why| format!("RIP {rip:#x}: {why}"))?;
    }
    Ok(())
}

fn reply_rsp(bench: &mut Bench<'_>) -> Check {
    for rsp in [0, 0x8000_0000_0000, 0xffff_ff00_0000_9000] {
        TARGET.store(rsp, core::sync::atomic::Ordering::Relaxed);
        outlaw(bench, |state: &mut FaultState| {
            (state.vector == 6).then(|| {
                state.gpr.rsp = TARGET.load(core::sync::atomic::Ordering::Relaxed);
                state.rip = push as *const () as u64;
                FaultGroups::STATE
            })
        })
        .map_err(|why| format!("RSP {rsp:#x}: {why}"))?;
    }
    Ok(())
}

static TARGET: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
