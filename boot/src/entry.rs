//! What GRUB and QEMU look for in the file, and the way from their entry states to Rust.
//!
//! Both enter in 32-bit protected mode without paging, with flat segments and interrupts off:
//! Multiboot2 with EAX = 0x36d76289 and EBX = the information structure (specification 3.5; also
//! what GRUB for UEFI does, after it has left boot services), PVH with EBX = `hvm_start_info`
//! (Xen `docs/misc/pvh.pandoc`). The stack and descriptor tables are the loader's own from the
//! first instructions on.

use core::arch::global_asm;
use core::fmt::Display;
use core::panic::PanicInfo;

use boot::error::Error;
use boot::{multiboot2, pvh};

use crate::physical::IdentityMap;
use crate::{console, cpu, load, screen};

/// Bytes of the loader's own stack.
const STACK_LENGTH: usize = 256 << 10;

global_asm!(
    r#"
    .section .multiboot2, "a", @progbits
    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0                                 // i386, protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    .short 6, 0                             // modules page aligned
    .long 8
    .short 5, 1                             // a frame buffer is welcome, whatever its size
    .long 20
    .long 0, 0, 0
    .balign 8
    .short 0, 0                             // end
    .long 8
multiboot2_header_end:

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                          // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .text.entry, "ax", @progbits
    .code32
    .global multiboot2_entry
multiboot2_entry:
    mov %eax, %edi
    jmp 1f
    .global pvh_entry
pvh_entry:
    mov ${pvh_magic}, %edi
1:  cli
    cld
    mov %ebx, %esi
    mov $loader_stack_top, %esp
    lgdt loader_gdtr
    lidt no_idt
    ljmp $0x18, $2f
2:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs

    // CPUID exists if EFLAGS.ID can be changed (SDM 1 20.1).
    pushfl
    pop %eax
    mov %eax, %ecx
    xor $0x200000, %eax
    push %eax
    popfl
    pushfl
    pop %eax
    cmp %eax, %ecx
    je no_long_mode
    // CPUID.80000001H:EDX[29] is long mode.
    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb no_long_mode
    mov $0x80000001, %eax
    cpuid
    bt $29, %edx
    jnc no_long_mode

    // Identity mapping of the low 4 GiB: one PML4 entry, four of the PDPT, 2048 pages of 2 MiB.
    movl $first_pdpt + 3, first_pml4
    mov $first_directories + 3, %eax
    mov $first_pdpt, %ebx
3:  mov %eax, (%ebx)
    add $8, %ebx
    add $0x1000, %eax
    cmp $first_pdpt + 32, %ebx
    jb 3b
    mov $0x83, %eax
    mov $first_directories, %ebx
4:  mov %eax, (%ebx)
    add $8, %ebx
    add $0x200000, %eax
    jnc 4b

    // SDM 3A 11.8.5: PAE, CR3, EFER.LME, CR0.PG, in this order. All other bits get the values
    // the kernel is promised.
    mov $0x20, %eax                         // PAE
    mov %eax, %cr4
    mov $first_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx                   // IA32_EFER
    mov $0x100, %eax                        // LME
    xor %edx, %edx
    wrmsr
    mov $0x80010033, %eax                   // PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmp $0x08, $5f
    .code64
5:  xor %ebp, %ebp
    // Upper halves of registers are undefined after the switch.
    mov %edi, %edi
    mov %esi, %esi
    mov $loader_stack_top, %esp
    call loader_main
    ud2

    .code32
no_long_mode:
    mov $no_long_mode_text, %esi
    mov $0xb8000, %ebx
    mov $0x07, %ah                          // grey on black
6:  lodsb
    test %al, %al
    jz 9f
    mov %al, %cl
    cmp $0x20, %al
    jb 7f                                   // line ends are for the serial port only
    mov %ax, (%ebx)
    add $2, %ebx
7:  mov $0x10000, %edi                      // a serial port that is never ready is given up
    mov $0x3fd, %dx
8:  in (%dx), %al
    test $0x20, %al
    jnz 10f
    dec %edi
    jnz 8b
10: mov %cl, %al
    mov $0x3f8, %dx
    out %al, (%dx)
    jmp 6b
9:  hlt
    jmp 9b
    .code64

    .section .rodata.entry, "a", @progbits
no_long_mode_text:
    .asciz "Ferrite loader: error: this processor has no 64-bit mode; use an x86-64 machine\r\n"
    .balign 8
    .short 0
no_idt:
    .short 0
    .quad 0

    // In memory that stays writable: loading a segment sets the accessed bit. The code and data
    // segments in 0x08 and 0x10 are what the kernel starts with.
    .section .data.gdt, "aw", @progbits
    .balign 8
    .global loader_gdt
loader_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                // 0x08 64-bit code
    .quad 0x00cf93000000ffff                // 0x10 data
    .quad 0x00cf9b000000ffff                // 0x18 32-bit code
    .short 0, 0, 0
loader_gdtr:
    .short 31
    .quad loader_gdt

    .section .bss.entry, "aw", @nobits
    .balign 4096
    .global first_pml4
first_pml4:
    .skip 4096
    .global first_pdpt
first_pdpt:
    .skip 4096
first_directories:
    .skip 4 * 4096
    .skip {stack_length}
loader_stack_top:
    .text
    "#,
    pvh_magic = const pvh::MAGIC,
    stack_length = const STACK_LENGTH,
    options(att_syntax),
);

/// Called once by the assembly above, in long mode with the low 4 GiB identity mapped.
#[unsafe(no_mangle)]
extern "sysv64" fn loader_main(magic: u32, info: u32) -> ! {
    console::open_serial();
    let memory = IdentityMap;
    let (protocol, handoff) = match magic {
        multiboot2::MAGIC => ("Multiboot2", multiboot2::parse(&memory, info.into())),
        pvh::MAGIC => ("PVH", pvh::parse(&memory, info.into())),
        _ => ("nobody", Err(Error::BadHandoff("unknown boot protocol"))),
    };
    let found = match &handoff {
        // SAFETY: this is the one time.
        Ok(handoff) => unsafe { screen::find(handoff) },
        // Nobody knows what the screen shows, and writing text does no harm.
        Err(_) => screen::text(),
    };
    if let Some(found) = found {
        console::open_screen(found);
    }
    let started = handoff.and_then(|handoff| {
        let mebibytes = handoff.memory.ram_bytes() >> 20;
        console::line(format_args!("{protocol}, {mebibytes} MiB of memory"));
        load::start_kernel(&memory, &handoff)
    });
    match started {
        Ok(never) => match never {},
        Err(error) => fail(&error),
    }
}

/// Says why, and stops for good.
fn fail(reason: &dyn Display) -> ! {
    console::line(format_args!("error: {reason}"));
    cpu::halt()
}

/// A defect of the loader itself.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::take_back();
    fail(info)
}
