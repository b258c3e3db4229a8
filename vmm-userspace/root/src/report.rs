//! What happened to a partition, for people.

use abi::fault::FaultState;
use root_task::hang::PATIENCE;

use crate::say;

/// Names of the exceptions (SDM 3A 6.15).
const NAMES: [&str; 22] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection",
    "page fault",
    "reserved exception",
    "floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point exception",
    "virtualization exception",
    "control protection exception",
];

const PAGE_FAULT: u64 = 14;

/// Shows an exception with all registers.
pub fn fault(name: &str, state: &FaultState) {
    let known = usize::try_from(state.vector).ok().and_then(|vector| NAMES.get(vector));
    let what = known.copied().unwrap_or("reserved exception");
    let FaultState { rip, vector, error, address, .. } = state;
    match *vector {
        PAGE_FAULT => say!("{name}: {what} at {rip:#x}, address {address:#x}, error {error:#x}"),
        _ => say!("{name}: {what} at {rip:#x}, vector {vector}, error {error:#x}"),
    }
    registers(name, state);
}

/// Shows a monitor that does not answer an exit.
pub fn hang(name: &str, exits: u64, state: &FaultState) {
    let (rip, seconds) = (state.rip, PATIENCE / 1_000_000_000);
    say!("{name}: its monitor has not answered exit {exits} for {seconds} s, at {rip:#x}");
    registers(name, state);
}

fn registers(name: &str, state: &FaultState) {
    let FaultState { gpr, rflags, .. } = state;
    for (names, values) in [
        (["rax", "rbx", "rcx", "rdx"], [gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx]),
        (["rsi", "rdi", "rbp", "rsp"], [gpr.rsi, gpr.rdi, gpr.rbp, gpr.rsp]),
        (["r8 ", "r9 ", "r10", "r11"], [gpr.r8, gpr.r9, gpr.r10, gpr.r11]),
        (["r12", "r13", "r14", "r15"], [gpr.r12, gpr.r13, gpr.r14, gpr.r15]),
    ] {
        let [n0, n1, n2, n3] = names;
        let [v0, v1, v2, v3] = values;
        say!("{name}:   {n0} {v0:016x}  {n1} {v1:016x}  {n2} {v2:016x}  {n3} {v3:016x}");
    }
    say!("{name}:   rflags {rflags:#x}");
}
