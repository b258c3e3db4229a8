//! Hypercalls with every register under control.

use core::arch::naked_asm;

use abi::cap::Selector;
use abi::hypercall::{Number, Status, pack};
use abi::layout::HYPERCALL_PAGE;

use crate::processor::{Extension, extension};

/// The arguments in the order of `abi`: RDI, RSI, R8, R9, R10.
pub type Arguments = [u64; 5];

/// What a hypercall leaves: the registers by encoding, and the flags.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Registers {
    pub gpr: [u64; 16],
    pub flags: u64,
}

/// What a hypercall leaves in R11: nothing, or the flags that SYSRET takes from there (APM 3 SYSRET). They are the same after every
/// hypercall, so they tell nothing.
pub fn left_in_r11() -> u64 {
    match extension() {
        Extension::Vmx => 0,
        Extension::Svm => 0x202,
    }
}

static ENTRY: u64 = HYPERCALL_PAGE;

/// Enters the kernel with RAX and the arguments in `input`, junk in every other register and `flags` in RFLAGS.
///
/// # Safety
/// As for the hypercall.
#[unsafe(naked)]
unsafe extern "C" fn enter(input: *const [u64; 6], output: *mut Registers, flags: u64) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        "push rdx",
        "mov rbx, 0x1111",
        "mov rbp, rbx",
        "mov r11, rbx",
        "mov r12, rbx",
        "mov r13, rbx",
        "mov r14, rbx",
        "mov r15, rbx",
        "mov rax, [rdi]",
        "mov rsi, [rdi + 16]",
        "mov r8, [rdi + 24]",
        "mov r9, [rdi + 32]",
        "mov r10, [rdi + 40]",
        "mov rdi, [rdi + 8]",
        "popfq",
        "call qword ptr [rip + {entry}]",
        "pushfq",
        "push 2",
        "popfq",
        "push rax",
        "mov rax, [rsp + 16]",
        "mov [rax + 8], rcx",
        "mov [rax + 16], rdx",
        "mov [rax + 24], rbx",
        "mov [rax + 40], rbp",
        "mov [rax + 48], rsi",
        "mov [rax + 56], rdi",
        "mov [rax + 64], r8",
        "mov [rax + 72], r9",
        "mov [rax + 80], r10",
        "mov [rax + 88], r11",
        "mov [rax + 96], r12",
        "mov [rax + 104], r13",
        "mov [rax + 112], r14",
        "mov [rax + 120], r15",
        "pop qword ptr [rax]",
        "pop qword ptr [rax + 128]",
        // R15 was saved just above; how far RSP is off shows in how far it is from there.
        "pop rsi",
        "mov [rax + 32], rsp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        entry = sym ENTRY,
    )
}

/// A hypercall with RAX as given; RSP is as it was before the call.
///
/// # Safety
/// As for the hypercall.
pub unsafe fn with_flags(rax: u64, [rdi, rsi, r8, r9, r10]: Arguments, flags: u64) -> Registers {
    let mut output = Registers::default();
    // SAFETY: passed on to the caller; the structures are as the code expects them.
    unsafe { enter(&[rax, rdi, rsi, r8, r9, r10], &raw mut output, flags) };
    output
}

/// A hypercall: its status, RDI and RSI.
///
/// # Safety
/// As for the hypercall.
pub unsafe fn hypercall(
    number: Number,
    flags: u8,
    selector: Selector,
    arguments: Arguments,
) -> (Status, u64, u64) {
    // SAFETY: passed on to the caller.
    let output = unsafe { with_flags(pack(number, flags, selector), arguments, 0x202) };
    (Status::from_abi(output.gpr[0]), output.gpr[7], output.gpr[6])
}
