//! What a task may not do: each attempt is an exception of its own, and the kernel does not notice.

use alloc::format;
use core::arch::naked_asm;

use abi::fault::{FaultGroups, FaultState};
use abi::layout::HYPERCALL_PAGE;

use super::raw;
use super::victim::{Answer, Job, Victim, note};
use crate::processor::{Extension, extension, is_tcg};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("hostile.privileged", privileged),
    ("hostile.ports", ports),
    ("hostile.kernel-memory", kernel_memory),
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
/// Whether the instruction exists at all is the processor's choice or its configuration's.
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
    // QEMU 7.2 reads the stack of a far return as if ring 0 did, and SMAP forbids it that.
    let iret = if is_tcg() { &[13, 14] } else { GP };
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
            (
                iret_to_ring_0,
                iret,
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
    )?;
    // The instructions of one vendor are privileged on its processors and undefined on the other's.
    let (vmx, svm) = match extension() {
        Extension::Vmx => (GP, UD),
        Extension::Svm => (UD, GP),
    };
    each(
        bench,
        &jobs![
            // With VT-x EFER.SCE is clear (SDM 2B SYSRET); AMD's processors have no SYSEXIT in long mode (APM 3 SYSEXIT). SYSCALL and
            // SYSENTER have tests of their own.
            (sysexit, vmx, "sysexit"),
            (sysret, svm, "sysretq"),
            (vmcall, vmx, "vmcall"),
            (vmxoff, vmx, "vmxoff"),
            (vmxon, vmx, "vmxon [rsp]"),
            (vmlaunch, vmx, "vmlaunch"),
            (vmptrst, vmx, "vmptrst [rsp]"),
            (vmread, vmx, "xor eax, eax", "vmread rax, rax"),
            (invept, vmx, "xor eax, eax", ".byte 0x66, 0x0f, 0x38, 0x80, 0x04, 0x24"),
            // Undefined outside of a guest (SDM 3C 26.5.6.2).
            (vmfunc, UD, "xor eax, eax", ".byte 0x0f, 0x01, 0xd4"),
            (vmrun, svm, "xor eax, eax", "vmrun rax"),
            (vmload, svm, "xor eax, eax", "vmload rax"),
            (vmsave, svm, "xor eax, eax", "vmsave rax"),
            (clgi, svm, "clgi"),
            (stgi, svm, "stgi"),
            (invlpga, svm, "xor eax, eax", "xor ecx, ecx", "invlpga rax, ecx"),
            (skinit, EITHER, "xor eax, eax", "skinit eax"),
            // Undefined unless intercepted (APM 3 VMMCALL).
            (vmmcall, UD, "vmmcall"),
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
