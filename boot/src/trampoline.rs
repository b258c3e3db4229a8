//! The jump: the one page of the loader that is mapped in the kernel's address space.

use core::arch::global_asm;

use boot::address_space::PHYSICAL_MEMORY_OFFSET;

// The GDTR gets an address that stays valid when the kernel drops the low half. The zero return
// address makes RSP what it is after a CALL (System V ABI, AMD64 supplement 3.2.2) and ends back
// traces.
global_asm!(
    r#"
    .section .trampoline, "ax", @progbits
    .balign 4096
trampoline_page:
    push %r8
    pushw $31
    lgdt (%rsp)
    mov %rdi, %cr3
    mov %rsi, %rsp
    mov %rdx, %rdi
    mov %rcx, %rax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    xor %esi, %esi
    xor %ebp, %ebp
    xor %r8d, %r8d
    xor %r9d, %r9d
    xor %r10d, %r10d
    xor %r11d, %r11d
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
    pushq $0
    jmp *%rax
    .text
    "#,
    options(att_syntax),
);

unsafe extern "sysv64" {
    /// Switches to the address space at physical address `root` and enters the kernel.
    ///
    /// `stack_top` is the first byte above the kernel's stack, 16-byte aligned; `boot_info`,
    /// `entry` and `gdt` are addresses in the new address space, which must map this page where
    /// it is, executable.
    fn trampoline_page(root: u64, stack_top: u64, boot_info: u64, entry: u64, gdt: u64) -> !;

    /// The descriptor table in `entry.rs`.
    static loader_gdt: [u64; 4];
}

/// Address of the page that must stay mapped.
pub fn address() -> u64 {
    trampoline_page as *const () as u64
}

/// Enters the kernel with all general registers but RDI and RSP meaningless.
///
/// # Safety
/// `root` is a page table that maps the trampoline's page where it is, executable, and all memory
/// at [`PHYSICAL_MEMORY_OFFSET`]; the other addresses are virtual addresses in it: the end of a
/// stack, a `BootInfo` that nobody else refers to, and code that expects both.
pub unsafe fn enter_kernel(root: u64, stack_top: u64, boot_info: u64, entry: u64) -> ! {
    let gdt = PHYSICAL_MEMORY_OFFSET + &raw const loader_gdt as u64;
    // SAFETY: the caller's promise; the descriptor table lies in the loader's image, which is
    // physical memory.
    unsafe { trampoline_page(root, stack_top, boot_info, entry, gdt) }
}
