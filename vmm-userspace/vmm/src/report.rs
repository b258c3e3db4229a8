//! What people are told about a guest that cannot go on.

use runtime::abi::vcpu::VcpuState;
use runtime::println;

/// Prints the registers of the state image.
pub fn registers(state: &VcpuState) {
    let gpr = &state.gpr;
    println!(
        "  rip {:04x}:{:016x} rflags {:08x} cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {:x}",
        state.cs.selector,
        state.rip,
        state.rflags,
        state.cr0,
        state.cr2,
        state.cr3,
        state.cr4,
        state.efer
    );
    println!(
        "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
        gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx
    );
    println!(
        "  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
        gpr.rsi, gpr.rdi, gpr.rbp, gpr.rsp
    );
    println!("  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", gpr.r8, gpr.r9, gpr.r10, gpr.r11);
    println!(
        "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
        gpr.r12, gpr.r13, gpr.r14, gpr.r15
    );
}
