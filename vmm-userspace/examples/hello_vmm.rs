//! The smallest virtual-machine monitor.
//!
//! Its guest is the 16-bit program below. It writes a text to I/O port 0x3f8, byte by byte, and
//! halts. The processor runs it natively; each OUT leaves the guest and arrives here as a message.
#![no_std]
#![no_main]

use core::arch::global_asm;

use runtime::abi::cap::MemRights;
use runtime::abi::vcpu::{Exit, Groups, PortAccess, VcpuState};
use runtime::console::Output;
use runtime::memory::Page;
use runtime::space::GuestSpace;
use runtime::vcpu::{VcpuBuilder, real_mode_state};
use runtime::{Outcome, Status, Task, exit, park, println};

runtime::entry!(main);

// The guest: one page of code, aligned, so that it can be given away as it is.
global_asm!(
    ".pushsection .text.guest, \"ax\"",
    ".balign 4096",
    "guest:",
    ".code16",
    "    mov dx, 0x3f8",
    "    mov si, offset text_address",
    "next:",
    "    lodsb",
    "    test al, al",
    "    jz done",
    "    out dx, al",
    "    jmp next",
    "done:",
    "    hlt",
    "text:",
    "    .asciz \"Hello from a virtual machine!\\r\\n\"",
    ".set text_address, 0x1000 + text - guest",
    ".code64",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    safe static guest: Page;
}

/// Where the guest finds its page.
const GUEST_ADDRESS: u16 = 0x1000;

/// What the exits work on: here, just where the text goes.
struct Serial(Output);

fn main(task: Task) -> Result<Outcome, Status> {
    let Some((output, _)) = task.console() else {
        println!("this task needs a console: set `console = true` in its manifest");
        return Ok(Outcome::Failed);
    };

    let memory = GuestSpace::create(runtime::pd::Pd::OWN)?;
    memory.grant((&guest).into(), GUEST_ADDRESS.into(), MemRights::RX)?;

    VcpuBuilder::new(memory, Serial(output))?
        .on(Exit::Startup, Groups::NONE, start)
        .on(Exit::Port, Groups::ACDB | Groups::QUAL, port)
        .on(Exit::Hlt, Groups::NONE, halt)
        .otherwise(Groups::ALL, unexpected)
        .run()?;
    park()
}

/// Before its first instruction: the guest gets its registers.
fn start(_: &mut Serial, vcpu: &mut VcpuState) -> Groups {
    real_mode_state(vcpu, GUEST_ADDRESS)
}

/// IN or OUT: port 0x3f8 passes the byte on. Then the guest goes on behind the instruction.
fn port(serial: &mut Serial, vcpu: &mut VcpuState) -> Groups {
    let access = PortAccess(vcpu.qual[0]);
    if access.port() == 0x3f8 && !access.is_in() {
        serial.0.write_all(&[vcpu.gpr.rax as u8]);
    }
    Groups::DONE
}

/// HLT: the guest's work is done.
fn halt(_: &mut Serial, _: &mut VcpuState) -> Groups {
    exit(Outcome::Done)
}

/// Anything else is a mistake.
fn unexpected(_: &mut Serial, vcpu: &mut VcpuState, exit_reason: Exit) -> Groups {
    println!("unexpected exit: {exit_reason:?} at {:#x}, {:x?}", vcpu.rip, vcpu.qual);
    exit(Outcome::Failed)
}
