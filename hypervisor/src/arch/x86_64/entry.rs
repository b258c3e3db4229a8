//! The ways into and out of the kernel.
//!
//! Every entry takes the kernel's lock and calls a Rust function, which returns the context to go on with; that context's `resume`
//! field holds the address of its exit path, which gives the lock back. [`super::trap::trap`] takes it itself, where it is needed. There is one kernel stack for each CPU, and it is empty at
//! every entry. What an entry saves before it has the lock, and an exit loads without it, is in the context that runs on this CPU: another
//! CPU changes nothing of it.
//!
//! | entry | from | saves | calls |
//! |---|---|---|---|
//! | `sysenter_entry`, `syscall_entry` | ring 3, VT-x and AMD-V | RIP and RSP (the caller keeps nothing else) | an entry of [`crate::hypercall::TABLE`] |
//! | `trap_entry` | interrupts and exceptions | everything, on the kernel stack | [`super::trap::trap`] |
//! | `vm_exit_entry` | VT-x, through the host RSP | general registers, straight into the virtual CPU | [`super::vmx::exit::vm_exit`] |
//! | `resume_svm` goes on with it | AMD-V, behind VMRUN | the same, but RAX, which is in the VMCB | [`super::svm::exit::vm_exit`] |
//!
//! With VT-x `SYSENTER` it is, because its MSRs are host-state fields of the VMCS: `SYSCALL`'s belong to the guest all the time and no VM exit has to
//! switch them (`docs/src/entry-paths.md` tells what else was found). With AMD-V it is `SYSCALL`: there is no `SYSENTER` in long mode, and
//! VMSAVE and VMLOAD move its registers.

use core::arch::global_asm;
use core::mem::offset_of;

use hypervisor_logic::lock::TicketLock;

use super::cpu::{Cpu, STACK_TOP};
use super::vcpu::Vcpu;
use super::vendor::{Vendor, vendor};
use crate::object::ec::{Ec, Frame};

/// The address of an exit path.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Resume(u64);

/// The address of a label in the code below.
macro_rules! address {
    ($label:ident) => {{
        unsafe extern "C" {
            fn $label();
        }
        $label as *const () as u64
    }};
}

impl Resume {
    /// Return from a hypercall, or enter a portal.
    pub fn hypercall() -> Self {
        match vendor() {
            Vendor::Vmx => Self(address!(resume_hypercall)),
            Vendor::Svm => Self(address!(resume_syscall)),
        }
    }
    /// Restore every register from the frame.
    pub fn frame() -> Self {
        Self(address!(resume_frame))
    }
    /// Enter the guest with VMLAUNCH; from then on with VMRESUME.
    pub fn launch() -> Self {
        Self(address!(launch_vm))
    }
    /// Enter the guest with VMRUN.
    pub fn svm() -> Self {
        Self(address!(resume_svm))
    }
    /// Wait for an interrupt.
    pub fn idle() -> Self {
        Self(address!(resume_idle))
    }
    /// Of a dead context.
    pub fn never() -> Self {
        Self(address!(resume_never))
    }
}

/// Address of the SYSENTER entry.
pub fn sysenter_address() -> u64 {
    address!(sysenter_entry)
}

/// Address of the SYSCALL entry.
pub fn syscall_address() -> u64 {
    address!(syscall_entry)
}

/// Lets interrupts in that wait, where ring 0 would otherwise go on for ever without: what they do to the scheduler is done when this
/// returns, and nothing else may be in progress.
pub fn open_to_interrupts() {
    // SAFETY: leaves registers and flags as a function may; `trap` knows the place.
    unsafe { core::arch::asm!("call take_interrupts", clobber_abi("C")) };
}

/// Whether an interrupt came where [`open_to_interrupts`] lets it in.
pub fn is_open(rip: u64) -> bool {
    rip == address!(interrupts_taken) || rip == address!(interrupts_soon)
}

/// Whether it came where a CPU waits for one, without the lock.
pub fn is_idle(rip: u64) -> bool {
    rip == address!(idle_halt) || rip == address!(idle_woken)
}

/// Where to go on instead of at `rip`, if that is the instruction which relies on the STI before it.
pub fn before_sysexit(rip: u64) -> Option<u64> {
    (rip == address!(sysexit_instruction)).then_some(address!(sysexit_sti))
}

/// Address of the VM-exit entry.
pub fn vm_exit_address() -> u64 {
    address!(vm_exit_entry)
}

/// Address of the entry stub of an interrupt vector.
pub fn trap_stub_address(vector: u8) -> u64 {
    address!(trap_stubs) + 16 * u64::from(vector)
}

/// The code of the user page at [`abi::layout::HYPERCALL_PAGE`].
pub fn hypercall_code() -> &'static [u8] {
    let (start, end) = match vendor() {
        Vendor::Vmx => (address!(hypercall_stub), address!(hypercall_stub_end)),
        Vendor::Svm => (address!(syscall_stub), address!(syscall_stub_end)),
    };
    // SAFETY: the two symbols enclose code in the kernel's text.
    unsafe { core::slice::from_raw_parts(start as *const u8, (end - start) as usize) }
}

/// Goes on with a context, from a stack that is not needed any more.
pub fn resume(ec: crate::object::Ref<Ec>) -> ! {
    // SAFETY: the context was dispatched, so its exit path has what it needs.
    unsafe {
        core::arch::asm!("jmp [rax + {resume}]", in("rax") ec.as_ptr(), resume = const offset_of!(Ec, resume), options(noreturn));
    }
}

/// Ends the blocking of NMIs after a VM exit for one: an IRET to the next instruction (SDM 3A 7.7.1).
pub fn unblock_nmi() {
    // SAFETY: returns to the label with the same stack, segments and flags.
    unsafe {
        core::arch::asm!(
            "mov {t}, rsp",
            "push {ss}",
            "push {t}",
            "pushfq",
            "push {cs}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "iretq",
            "2:",
            t = out(reg) _,
            ss = const super::gdt::KERNEL_DATA,
            cs = const super::gdt::KERNEL_CODE,
        );
    }
}

const GPR: usize = offset_of!(Ec, frame) + offset_of!(Frame, gpr);
const REG: usize = 8;

global_asm!(
    // The same instruction for several registers.
    ".macro each instruction, registers:vararg",
    ".irp register, \\registers",
    "\\instruction \\register",
    ".endr",
    ".endm",
    ".macro clear register",
    "xor \\register, \\register",
    ".endm",
    // The registers above the slot of RSP.
    ".macro push_upper",
    "each push, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp",
    ".endm",
    ".macro pop_upper",
    "each pop, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15",
    ".endm",
    // Gives the lock of the kernel back: what is left to do concerns this CPU alone.
    ".macro leave_kernel",
    "inc dword ptr [{kernel} + {serving}]",
    ".endm",
    // Takes it, as `TicketLock::acquire` does, and keeps the arguments of the call that follows. EBX is free.
    ".macro enter_kernel",
    "mov ebx, 1",
    "lock xadd [{kernel}], ebx",
    "cmp ebx, [{kernel} + {serving}]",
    "jne 7f",
    "6:",
    ".endm",
    ".macro wait_for_kernel",
    "7:",
    "each push, rdi, rsi, rcx, rdx, r8, r9",
    "mov edi, ebx",
    "call {wait}",
    "each pop, r9, r8, rdx, rcx, rsi, rdi",
    "jmp 6b",
    ".endm",
    ".macro pop_registers",
    "each pop, rax, rcx, rdx, rbx",
    "lea rsp, [rsp + 8]",
    "pop_upper",
    ".endm",
    // ---- ring 3 to ring 0 ------------------------------------------------------------------------------------------
    // RSP = top of the kernel stack (IA32_SYSENTER_ESP), interrupts off; RDX = return address, RCX = user RSP.
    ".balign 64",
    "sysenter_entry:",
    // SYSENTER leaves TF, NT, AC and DF as the task had them.
    "push 2",
    "popfq",
    // SYSEXIT faults in ring 0 if either is not canonical: keep them in the lower half.
    ".macro hypercall_entry stack, resume",
    "mov r11, [rsp - {top} + {current}]",
    "shl rdx, 17",
    "shr rdx, 17",
    "shl \\stack, 17",
    "shr \\stack, 17",
    "mov [r11 + {rip}], rdx",
    "mov [r11 + {rsp}], \\stack",
    "mov qword ptr [r11 + {resume}], offset \\resume",
    "mov [r11 + {r10}], r10",
    "mov rcx, rdi",
    "mov rdi, r11",
    "mov rdx, rax",
    "enter_kernel",
    "movzx eax, dl",
    "cmp eax, {hypercalls}",
    "jae 2f",
    "call [rax * 8 + {table}]",
    "jmp [rax + {resume}]",
    "2:",
    "call {unknown}",
    "jmp [rax + {resume}]",
    "wait_for_kernel",
    ".endm",
    "hypercall_entry rcx, resume_hypercall",

    // RSP = the task's, RCX and R11 = return address and flags of no interest, interrupts off and flags as FMASK leaves them;
    // RDX = return address, RBX = user RSP. KERNEL_GS_BASE leads to the CPU's block; nothing else uses GS.
    ".balign 64",
    "syscall_entry:",
    "swapgs",
    "mov rsp, gs:[{stack_top}]",
    "swapgs",
    "hypercall_entry rbx, resume_syscall",

    // The page through which tasks come here: takes the return address off the stack.
    "hypercall_stub:",
    "pop rdx",
    "mov rcx, rsp",
    "sysenter",
    "hypercall_stub_end:",
    "syscall_stub:",
    "pop rdx",
    "mov rbx, rsp",
    "syscall",
    "syscall_stub_end:",

    // ---- ring 0 to ring 3, after a hypercall ------------------------------------------------------------------------
    // Nothing of the kernel or of another domain is left in a register.
    ".balign 64",
    "resume_hypercall:",
    ".macro hypercall_exit",
    "mov rdi, [rax + {rdi}]",
    "mov rsi, [rax + {rsi}]",
    "mov rax, [rax + {rax}]",
    "leave_kernel",
    "each clear, ebx, ebp, r8d, r9d, r10d, r12d, r13d, r14d, r15d",
    ".endm",
    "mov rdx, [rax + {rip}]",
    "mov rcx, [rax + {rsp}]",
    "xor r11d, r11d",
    "hypercall_exit",
    // STI holds interrupts back for one more instruction.
    "sysexit_sti:",
    "sti",
    "sysexit_instruction:",
    "sysexitq",

    // SYSRET takes RIP from RCX and the flags from R11. With the task's RSP in ring 0 nothing can come but an NMI, which has a
    // stack of its own.
    ".balign 64",
    "resume_syscall:",
    "mov rcx, [rax + {rip}]",
    "mov rsp, [rax + {rsp}]",
    "mov r11d, 0x202",
    "xor edx, edx",
    "hypercall_exit",
    "sysretq",

    // ---- ring 0 to ring 3, all registers ------------------------------------------------------------------------------
    ".balign 16",
    "resume_frame:",
    "leave_kernel",
    "lea rsp, [rax + {gpr}]",
    "2:",
    "pop_registers",
    "lea rsp, [rsp + 16]",
    "iretq",

    // ---- interrupts and exceptions -----------------------------------------------------------------------------------
    ".balign 16",
    "trap_entry:",
    "push_upper",
    // The slot of RSP carries CR2.
    "mov rbp, cr2",
    "push rbp",
    "each push, rbx, rdx, rcx, rax",
    // An interrupt gate leaves AC and DF as the task had them.
    "push 2",
    "popfq",
    "mov rdi, rsp",
    "sub rsp, 8",
    "call {trap}",
    // Null: go back to what was interrupted.
    "lea rsp, [rsp + 8]",
    "test rax, rax",
    "jz 2b",
    "jmp [rax + {resume}]",

    ".altmacro",
    ".macro trap_stub vector",
    ".balign 16",
    ".if (\\vector == 8) || (\\vector >= 10 && \\vector <= 14) || (\\vector == 17) || (\\vector == 21) || (\\vector == 29) || (\\vector == 30)",
    ".else",
    "push 0",
    ".endif",
    "push \\vector",
    "jmp trap_entry",
    ".endm",
    ".balign 16",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    "trap_stub %vector",
    ".set vector, vector + 1",
    ".endr",
    ".noaltmacro",

    // ---- guest to ring 0 ------------------------------------------------------------------------------------------------
    // RSP = end of the general registers inside the virtual CPU (host RSP), interrupts off, flags clear.
    ".balign 64",
    "vm_exit_entry:",
    "push_upper",
    "lea rsp, [rsp - 8]",
    "each push, rbx, rdx, rcx, rax",
    "lea rdi, [rsp - {gpr}]",
    "mov rsp, [rdi + {kernel_stack}]",
    "enter_kernel",
    "call {vm_exit}",
    "jmp [rax + {resume}]",
    "wait_for_kernel",

    // ---- ring 0 to guest ------------------------------------------------------------------------------------------------
    ".macro enter_guest instruction",
    "leave_kernel",
    "lea rsp, [rax + {gpr}]",
    "pop_registers",
    "\\instruction",
    // Only when the control or host state is bad.
    "lea rdi, [rsp - {gpr} - 128]",
    "mov rsp, [rdi + {kernel_stack}]",
    "enter_kernel",
    "call {vm_entry_refused}",
    "jmp [rax + {resume}]",
    "wait_for_kernel",
    ".endm",
    ".balign 64",
    "resume_vm:",
    "enter_guest vmresume",
    ".balign 16",
    "launch_vm:",
    "mov qword ptr [rax + {resume}], offset resume_vm",
    "enter_guest vmlaunch",

    // RAX is in the VMCB. The global interrupt flag holds everything back while the stack is the register array; IF is set, so that
    // interrupts leave the guest (APM 2 15.21.1), and VMRUN sets the global flag.
    ".balign 64",
    "resume_svm:",
    "leave_kernel",
    "clgi",
    "sti",
    "lea rsp, [rax + {gpr} + 8]",
    "mov rax, [rax + {control}]",
    "vmload rax",
    "each pop, rcx, rdx, rbx",
    "lea rsp, [rsp + 8]",
    "pop_upper",
    "vmrun rax",
    "push_upper",
    "lea rsp, [rsp - 8]",
    "each push, rbx, rdx, rcx",
    "vmsave rax",
    "lea rdi, [rsp - {gpr} - 8]",
    "mov rsp, [rdi + {kernel_stack}]",
    "mov rax, [rsp - {top} + {host_state}]",
    "vmload rax",
    // What was held back and is not an interrupt comes here.
    "cli",
    "stgi",
    "enter_kernel",
    "call {svm_exit}",
    "jmp [rax + {resume}]",
    "wait_for_kernel",

    // ---- nothing to do ---------------------------------------------------------------------------------------------------
    // An interrupt abandons this frame: it returns to some context's exit path.
    ".balign 16",
    "resume_idle:",
    "mov rsp, [rax + {kernel_stack}]",
    "leave_kernel",
    "3:",
    "sti",
    "idle_halt:",
    "hlt",
    "idle_woken:",
    "cli",
    "jmp 3b",

    // ---- an opening for interrupts -------------------------------------------------------------------------------------------
    // The first instruction at which one can be taken is the CLI.
    "take_interrupts:",
    "sti",
    // An NMI that comes here ends the shadow of STI when it returns.
    "interrupts_soon:",
    "nop",
    "interrupts_taken:",
    "cli",
    "ret",

    "resume_never:",
    "ud2",

    kernel = sym crate::sync::KERNEL,
    serving = const TicketLock::SERVING,
    wait = sym super::cpu::wait,
    top = const STACK_TOP,
    current = const offset_of!(Cpu, current),
    rip = const offset_of!(Ec, frame) + offset_of!(Frame, rip),
    rsp = const offset_of!(Ec, frame) + offset_of!(Frame, rsp),
    rax = const GPR,
    rsi = const GPR + 6 * REG,
    rdi = const GPR + 7 * REG,
    gpr = const GPR,
    resume = const offset_of!(Ec, resume),
    kernel_stack = const offset_of!(Ec, kernel_stack),
    r10 = const GPR + 10 * REG,
    hypercalls = const crate::hypercall::TABLE.len(),
    table = sym crate::hypercall::TABLE,
    unknown = sym crate::hypercall::unknown,
    trap = sym super::trap::trap,
    stack_top = const offset_of!(Cpu, stack_top),
    host_state = const offset_of!(Cpu, host_state),
    control = const offset_of!(Ec, vcpu) + offset_of!(Vcpu, control),
    svm_exit = sym super::svm::exit::vm_exit,
    vm_exit = sym super::vmx::exit::vm_exit,
    vm_entry_refused = sym super::vmx::exit::vm_entry_refused,
);
