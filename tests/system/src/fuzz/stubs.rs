//! Places where contexts of the domain start or go on: a few instructions each, without a stack of their own.

use core::arch::naked_asm;

use abi::hypercall::{FOREVER, Number, SmOp, pack};
use abi::layout::HYPERCALL_PAGE;

use super::layout::PARK;
use super::{exits, walk};

static ENTRY: u64 = HYPERCALL_PAGE;

/// A thread that makes calls: slot and message page are on its stack.
#[unsafe(naked)]
pub unsafe extern "C" fn walker() {
    naked_asm!(
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "xor ebp, ebp",
        "jmp {walk}",
        walk = sym walk::walk,
    )
}

/// A handler that answers everything: RDI is the identifier, RSI the tag.
#[unsafe(naked)]
pub unsafe extern "C" fn handler() {
    naked_asm!(
        "mov rdx, [rsp]",
        "mov rcx, [rsp + 8]",
        "xor ebp, ebp",
        "jmp {serve}",
        serve = sym exits::serve,
    )
}

/// The end of a context that is of no use any more: a handler replies, a thread waits for ever, and one that cannot even do
/// that asks again and again.
#[unsafe(naked)]
pub unsafe extern "C" fn quit() {
    naked_asm!(
        "mov eax, {reply}",
        "xor esi, esi",
        "call qword ptr [rip + {entry}]",
        "2:",
        "mov rax, {down}",
        "mov rsi, {forever}",
        "call qword ptr [rip + {entry}]",
        "pause",
        "jmp 2b",
        entry = sym ENTRY,
        reply = const Number::Reply as u32,
        down = const pack(Number::CtrlSm, SmOp::Down as u8, PARK),
        forever = const FOREVER as i64,
    )
}

/// Never rests.
#[unsafe(naked)]
pub unsafe extern "C" fn spin() {
    naked_asm!("2:", "inc rax", "jmp 2b")
}

/// Faults.
#[unsafe(naked)]
pub unsafe extern "C" fn fault() {
    naked_asm!("mov rax, [rsi + rsi]", "ud2")
}

/// Calls the kernel with what is in its registers, again and again.
#[unsafe(naked)]
pub unsafe extern "C" fn nag() {
    naked_asm!(
        "2:",
        "add r15, 0x10f",
        "mov rax, r15",
        "and eax, 0xff0f",
        "call qword ptr [rip + {entry}]",
        "mov r15, rax",
        "jmp 2b",
        entry = sym ENTRY,
    )
}

/// Those that are good for any context.
pub const ALL: [unsafe extern "C" fn(); 5] = [handler, quit, spin, fault, nag];
