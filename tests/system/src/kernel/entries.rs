//! The two instructions that may lead into the kernel, with hostile registers. One of them does, which one depends on the
//! processor; the other is no instruction at all. A task that does not go through the page for hypercalls harms itself, no more.

use alloc::format;
use alloc::string::String;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::{Number, Status, pack};
use abi::layout::{HYPERCALL_PAGE, USER_TOP};

use super::raw;
use super::threads::semaphore;
use super::victim::{Job, Victim};
use crate::processor::{Extension, extension};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("hostile.flags", flags),
    ("hostile.single-step-into-kernel", step_into_kernel),
    ("hostile.entry", entry),
    ("hostile.entry-returns", entry_returns),
    ("hostile.entry-behind-ss", entry_behind_ss),
    ("hostile.other-entry", other_entry),
    ("hostile.without-stack", without_stack),
    ("hostile.compatibility-mode", compatibility_mode),
];

const TF: u64 = 1 << 8;
const DF: u64 = 1 << 10;
const NT: u64 = 1 << 14;
const AC: u64 = 1 << 18;
const ID: u64 = 1 << 21;
/// The five above.
const CONTROL: u64 = TF | DF | NT | AC | ID;
/// They and all arithmetic flags.
const ALL: u64 = CONTROL | 0x8d5;

fn flags(bench: &mut Bench<'_>) -> Check {
    // Direction, nested task, alignment check, identification: they must do no harm in the kernel.
    let sm = semaphore()?.selector();
    for (name, flags) in [("DF", DF), ("NT", NT), ("AC", AC), ("ID", ID), ("all", ALL & !TF)] {
        let rax = pack(Number::CtrlSm, 0, sm);
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
pub unsafe extern "C" fn step_through_hypercall() {
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

/// The answer to a debug exception: go on.
pub fn go_on(state: &mut FaultState) -> Option<FaultGroups> {
    (state.vector == 1).then_some(FaultGroups::default())
}

fn step_into_kernel(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    for _ in 0..3 {
        let ended = victim.run(bench, step_through_hypercall, go_on)?;
        check_eq!(ended, None, "the end of the job");
        check!(victim.count() >= 3, "{} debug exceptions", victim.count());
    }
    Ok(())
}

/// The registers of an attack: RSP at the instruction; where to return to, and with which stack, as the two stubs of the page for
/// hypercalls would say it (RDX, and RCX or RBX); the flags.
static HOSTILE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Jobs that load the registers of [`HOSTILE`] and execute the instruction.
macro_rules! attack {
    ($($name:ident, $($line:literal),+;)+) => {
        $(#[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                "mov rdx, [rip + {h} + 8]",
                "mov rcx, [rip + {h} + 16]",
                "mov rbx, rcx",
                "mov esi, ss",
                "mov eax, 0xff",
                "push qword ptr [rip + {h} + 24]",
                "popfq",
                "mov rsp, [rip + {h}]",
                $($line),+,
                "ud2",
                h = sym HOSTILE,
            )
        })+
    };
}

attack! {
    by_sysenter, "sysenter";
    by_syscall, "syscall";
    // A load of SS holds debug exceptions back for one instruction (SDM 3A 6.8.3): the trap of TF must not come in ring 0.
    by_sysenter_behind_ss, "mov ss, esi", "sysenter";
    by_syscall_behind_ss, "mov ss, esi", "syscall";
}

/// Where an attack goes on that gets this far.
#[unsafe(naked)]
unsafe extern "C" fn landing() {
    naked_asm!("push rax", "ud2")
}

/// The segment registers that the kernel must not care about: GS, of which the entry by SYSCALL uses the hidden part, among them.
#[unsafe(naked)]
unsafe extern "C" fn load_segments() {
    naked_asm!("mov eax, ss", "mov ds, eax", "mov es, eax", "mov fs, eax", "mov gs, eax", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn clear_segments() {
    naked_asm!("xor eax, eax", "mov ds, eax", "mov es, eax", "mov fs, eax", "mov gs, eax", "ret")
}

/// A stack that is one.
static STACK: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

fn good_stack() -> u64 {
    STACK.as_ptr_range().end as u64
}

/// Bad stack pointers: nothing, not canonical, the kernel's own, the ends of both halves, the page for hypercalls.
const NO_STACKS: [u64; 9] = [
    0,
    0x8000_0000_0000,
    0x1234_5678_9abc_def0,
    0xffff_ff00_0000_a000,
    0xffff_ff00_0000_9f00,
    0xffff_8000_0000_0000,
    u64::MAX,
    0x7fff_ffff_ffff,
    HYPERCALL_PAGE + 0x800,
];

const FLAGS: [(&str, u64); 7] = [
    ("no flags", 0),
    ("TF", TF),
    ("DF", DF),
    ("NT", NT),
    ("AC", AC),
    ("ID", ID),
    ("all flags", ALL),
];

/// Executes the instruction with RSP, RDX, the stack to return with, and flags; returns the exception that ends it. A debug exception
/// does not.
fn strike(
    bench: &Bench<'_>,
    victim: &Victim,
    job: Job,
    registers: [u64; 4],
) -> Result<FaultState, String> {
    for (slot, value) in HOSTILE.iter().zip(registers) {
        slot.store(value, Ordering::Relaxed);
    }
    let [rsp, rip, stack, flags] = registers;
    victim
        .run(bench, job, go_on)
        .and_then(|state| state.ok_or_else(|| "no exception".into()))
        .map_err(|why| {
            format!("RSP {rsp:#x}, return to {rip:#x}, with {stack:#x}, {flags:#x}: {why}")
        })
}

/// The kernel's entry here, the two attacks by it, and the ones by the instruction that is none.
fn attacks() -> ([Job; 2], [Job; 2]) {
    let sysenter = [by_sysenter as Job, by_sysenter_behind_ss];
    let syscall = [by_syscall as Job, by_syscall_behind_ss];
    match extension() {
        Extension::Vmx => (sysenter, syscall),
        Extension::Svm => (syscall, sysenter),
    }
}

/// An attack must end where the caller wanted it to, with an error and nothing of the kernel's.
fn lands(bench: &Bench<'_>, victim: &Victim, job: Job, rsp: u64, flags: u64) -> Check {
    let to = landing as *const () as u64;
    let state = strike(bench, victim, job, [rsp, to, good_stack(), flags | 0x202])?;
    check_eq!((state.vector, state.rip), (6, to + 1), "vector and RIP, with RSP {rsp:#x}");
    check_eq!(state.gpr.rax, Status::BadHypercall as u64, "status, with RSP {rsp:#x}");
    check_eq!(state.gpr.rsp, good_stack() - 8, "stack, with RSP {rsp:#x}");
    check_eq!(state.rflags & (CONTROL | 0x200), 0x200, "flags, with RSP {rsp:#x}");
    for (index, value) in (0_u64..).zip(state.gpr.to_array()) {
        let allowed = match index {
            0 | 4 => continue,
            // What the way back needs, and the caller has said itself.
            1 | 2 => value == to || value == good_stack() || value == 0,
            // Results, if there were any: something that the task has had before, and no address of the kernel's.
            6 | 7 => value < USER_TOP || value == u64::MAX,
            11 => value == raw::left_in_r11(),
            _ => value == 0,
        };
        check!(allowed, "register {index} is {value:#x}, with RSP {rsp:#x}");
    }
    Ok(())
}

fn entry(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let ([job, _], _) = attacks();
    for segments in [load_segments as Job, clear_segments] {
        check_eq!(victim.run(bench, segments, go_on)?, None, "loading segments");
        for (name, flags) in FLAGS {
            for rsp in NO_STACKS.into_iter().chain([good_stack(), good_stack() - 3]) {
                lands(bench, &victim, job, rsp, flags).map_err(|why| format!("{name}: {why}"))?;
            }
        }
    }
    Ok(())
}

fn entry_returns(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let ([job, _], _) = attacks();
    let to = landing as *const () as u64;
    for (name, flags) in FLAGS {
        for bad in NO_STACKS {
            for rsp in [good_stack(), bad] {
                // Neither of them is a fault of ring 0, which would be the kernel's end.
                let stack = strike(bench, &victim, job, [rsp, to, bad, flags | 0x202])?;
                check!(matches!(stack.vector, 12..=14), "{name}: vector {}", stack.vector);
                check_eq!(stack.rip, to, "{name}: RIP of a task with stack {bad:#x}");
                // The page for hypercalls is there to be run, and holds INT3 behind the stub.
                if bad == HYPERCALL_PAGE + 0x800 {
                    continue;
                }
                let code = strike(bench, &victim, job, [rsp, bad, good_stack(), flags | 0x202])?;
                check!(matches!(code.vector, 13..=14), "{name}: vector {}", code.vector);
                check!(code.rip >> 47 == 0, "{name}: returned to {:#x}", code.rip);
            }
        }
    }
    Ok(())
}

fn entry_behind_ss(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let ([_, job], _) = attacks();
    for (name, flags) in FLAGS {
        for rsp in NO_STACKS {
            lands(bench, &victim, job, rsp, flags).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

/// SYSCALL is undefined because EFER.SCE is clear (SDM 2B SYSCALL), SYSENTER because AMD's processors have none in long mode (APM 3
/// SYSENTER): it is the task's exception, with everything as it was.
fn other_entry(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    let to = landing as *const () as u64;
    let (_, jobs) = attacks();
    let instruction: u16 = if extension() == Extension::Vmx { 0x050f } else { 0x340f };
    for job in jobs {
        for (name, flags) in FLAGS {
            for rsp in NO_STACKS {
                let state = strike(bench, &victim, job, [rsp, to, good_stack(), flags | 0x202])?;
                check_eq!(state.vector, 6, "{name}: vector, with RSP {rsp:#x}");
                // SAFETY: the thread has just run it, unless the kernel is wrong.
                let at = unsafe { (state.rip as *const u16).read_unaligned() };
                check_eq!(at, instruction, "{name}: what RIP points to");
                let registers = (state.gpr.rax, state.gpr.rsp, state.gpr.rdx, state.gpr.rcx);
                check_eq!(registers, (0xff, rsp, to, good_stack()), "{name}: registers");
                // RF may be set; it is the exception's.
                check_eq!(state.rflags & ALL, flags & ALL, "{name}: flags");
            }
        }
    }
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn hypercall_without_stack() {
    naked_asm!("xor esp, esp", "mov rbx, 0x7ffffff00000", "mov eax, 0xff", "jmp rbx")
}

fn without_stack(bench: &mut Bench<'_>) -> Check {
    // The page for hypercalls takes the return address off the stack.
    let state = Victim::new(bench)?.fault(bench, hypercall_without_stack)?;
    check_eq!((state.vector, state.rip), (14, HYPERCALL_PAGE), "vector and RIP");
    Ok(())
}

/// A far address for [`far_jump`]: 32 bits of offset, and the selector.
static FAR: AtomicU64 = AtomicU64::new(0);

#[unsafe(naked)]
unsafe extern "C" fn far_jump() {
    naked_asm!("jmp fword ptr [rip + {far}]", far = sym FAR)
}

/// Nothing but 64-bit code can run in ring 3: the entries of 32-bit code (CSTAR, INT 0x80) are nowhere.
fn compatibility_mode(bench: &mut Bench<'_>) -> Check {
    let victim = Victim::new(bench)?;
    // Tasks are linked below 4 GiB.
    let to = landing as *const () as u64;
    let own: u64;
    // SAFETY: reads a selector.
    unsafe { core::arch::asm!("mov {:e}, cs", out(reg) own) };
    // All descriptors there are and some behind, with every privilege level. There is no LDT: a reset leaves one at address 0, and
    // there a task could write descriptors, call gates among them.
    for selector in (0..0x400).filter(|selector| selector & !7 != own & !7) {
        FAR.store(selector << 32 | to, Ordering::Relaxed);
        let state = victim.fault(bench, far_jump)?;
        check!(matches!(state.vector, 11 | 13), "CS {selector:#x}: vector {}", state.vector);
    }
    FAR.store(own << 32 | to, Ordering::Relaxed);
    let state = victim.fault(bench, far_jump)?;
    check_eq!((state.vector, state.rip), (6, to + 1), "vector and RIP with the right selector");
    Ok(())
}
