//! Interrupts and exceptions that reach the kernel through its descriptor table.

use super::cpu::{Cpu, block, cpu};
use super::entry::Resume;
use super::{interrupts, space};
use crate::object::Ref;
use crate::object::ec::{Ec, Frame};
use crate::{ipc, println, sched};

const DEBUG: u64 = 1;
const NMI: u64 = 2;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
/// First vector that is not an exception.
const INTERRUPTS: u64 = 32;
const TRAP_FLAG: u64 = 1 << 8;

/// Entered from the stubs. Returns the context to resume, or null to go back to what was interrupted.
pub extern "C" fn trap(frame: &mut Frame) -> *const Ec {
    let cpu = cpu();
    if frame.vector == NMI {
        cpu.nmis.set(cpu.nmis.get().wrapping_add(1));
        return core::ptr::null();
    }
    if frame.cs & 3 == 0 {
        return in_kernel(cpu, frame);
    }
    let ec = cpu.current.get();
    *ec.regs() = *frame;
    ec.resume.set(Resume::frame());
    if frame.vector >= INTERRUPTS {
        interrupts::handle(cpu, frame.vector as u8);
        return sched::go_on(cpu, ec).as_ptr();
    }
    if frame.vector == GENERAL_PROTECTION && space::load_ports(cpu, &ec) {
        return ec.as_ptr();
    }
    if frame.vector == PAGE_FAULT {
        cpu.cr2_lost.set(true);
    }
    let selector = ec.events.wrapping_add(frame.vector as u32);
    ipc::event(cpu, ec, selector).as_ptr()
}

/// Ring 0 was interrupted: it waited for that, or it has a bug.
fn in_kernel(cpu: &Cpu, frame: &mut Frame) -> *const Ec {
    let idle = cpu.current_sc.get().is_none();
    match frame.vector {
        INTERRUPTS.. if idle => {
            interrupts::handle(cpu, frame.vector as u8);
            sched::dispatch(cpu).as_ptr()
        }
        // SYSENTER does not clear TF: a task that single-steps into the kernel loses its trap, no more.
        DEBUG if frame.rflags & TRAP_FLAG != 0 => {
            frame.rflags &= !TRAP_FLAG;
            core::ptr::null()
        }
        _ => die(frame),
    }
}

fn die(frame: &Frame) -> ! {
    crate::log::take_back();
    println!("kernel bug: exception {} in ring 0, stack block {:p}", frame.vector, block());
    dump(frame);
    super::halt_forever()
}

fn dump(frame: &Frame) {
    let gpr = &frame.gpr;
    println!(
        "  vector {:#x} error {:#x} rip {:#018x} rsp {:#018x} rflags {:#x} cs {:#x} ss {:#x}",
        frame.vector, frame.error, frame.rip, frame.rsp, frame.rflags, frame.cs, frame.ss
    );
    println!(
        "  rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}",
        gpr.rax, gpr.rbx, gpr.rcx, gpr.rdx
    );
    println!(
        "  rsi {:#018x} rdi {:#018x} rbp {:#018x} cr2 {:#018x}",
        gpr.rsi, gpr.rdi, gpr.rbp, gpr.rsp
    );
    println!(
        "  r8  {:#018x} r9  {:#018x} r10 {:#018x} r11 {:#018x}",
        gpr.r8, gpr.r9, gpr.r10, gpr.r11
    );
    println!(
        "  r12 {:#018x} r13 {:#018x} r14 {:#018x} r15 {:#018x}",
        gpr.r12, gpr.r13, gpr.r14, gpr.r15
    );
}

/// Tells people about a thread's exception that nobody takes.
pub fn report(ec: &Ec, why: &str) {
    let frame = ec.regs();
    println!(
        "a thread of domain {:#x} is ended by exception {}: {why}",
        Ref::of(&*ec.pd).address(),
        frame.vector
    );
    if frame.vector == PAGE_FAULT {
        println!("  page fault at {:#x}", frame.gpr.rsp);
    }
    dump(frame);
}
