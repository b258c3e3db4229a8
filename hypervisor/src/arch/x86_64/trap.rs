//! Interrupts and exceptions that reach the kernel through its descriptor table.

use core::sync::atomic::Ordering;

use abi::fault::Gprs;

use super::cpu::{Cpu, block, cpu, enter};
use super::entry::Resume;
use super::{entry, interrupts, machine_check, space};
use crate::log::RING;
use crate::object::ec::{Ec, Frame};
use crate::{ipc, println, sched};

const DEBUG: u64 = 1;
const NMI: u64 = 2;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const MACHINE_CHECK: u64 = 18;
/// An INIT that AMD-V turned into an exception (APM 2 15.28). Reserved on processors with VT-x, where an INIT waits.
const SECURITY: u64 = 30;
/// First vector that is not an exception.
const INTERRUPTS: u64 = 32;
const TRAP_FLAG: u64 = 1 << 8;
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Entered from the stubs. Returns the context to resume, or null to go back to what was interrupted.
pub extern "C" fn trap(frame: &mut Frame) -> *const Ec {
    let cpu = cpu();
    if frame.vector == NMI {
        RING.nmis.fetch_add(1, Ordering::Relaxed);
        // Between STI and SYSEXIT: returning there would end the shadow of STI, and an interrupt would find ring 0.
        if let Some(again) = entry::before_sysexit(frame.rip) {
            frame.rip = again;
            frame.rflags &= !INTERRUPT_FLAG;
        }
        return core::ptr::null();
    }
    if frame.vector == SECURITY {
        // The kernel does not let itself be reset; what a guest was told of it, it was told by its exit.
        RING.spurious.fetch_add(1, Ordering::Relaxed);
        return core::ptr::null();
    }
    if frame.vector == MACHINE_CHECK {
        die(frame);
    }
    if frame.cs & 3 == 0 {
        return in_kernel(cpu, frame);
    }
    let cpu = enter();
    let ec = cpu.current.get();
    *ec.regs() = *frame;
    ec.resume.set(Resume::frame());
    if frame.vector >= INTERRUPTS {
        interrupts::handle(cpu, frame.vector as u8);
        return sched::go_on(cpu, ec).as_ptr();
    }
    if frame.vector == GENERAL_PROTECTION && space::load_ports(cpu, ec) {
        return ec.as_ptr();
    }
    if matches!(frame.vector, PAGE_FAULT | DEBUG) {
        cpu.cr2_dr6_lost.set(true);
    }
    let selector = ec.events.wrapping_add(frame.vector as u32);
    sched::settle(cpu, ipc::event(cpu, ec, selector)).as_ptr()
}

/// Ring 0 was interrupted: it waited for that or was open to it, or it has a bug.
fn in_kernel(cpu: &Cpu, frame: &mut Frame) -> *const Ec {
    match frame.vector {
        INTERRUPTS.. if entry::is_idle(frame.rip) => {
            let cpu = enter();
            interrupts::handle(cpu, frame.vector as u8);
            sched::dispatch(cpu).as_ptr()
        }
        // In Bochs (3.0) with several CPUs, STI does not always hold interrupts back for an instruction. The context has left the
        // kernel but for SYSEXIT, and can leave it once more.
        INTERRUPTS.. if entry::before_sysexit(frame.rip).is_some() => {
            let cpu = enter();
            interrupts::handle(cpu, frame.vector as u8);
            sched::go_on(cpu, cpu.current.get()).as_ptr()
        }
        INTERRUPTS.. if entry::is_open(frame.rip) => {
            interrupts::handle(cpu, frame.vector as u8);
            // One at a time: a timer that is due again at once must not keep the kernel here.
            frame.rflags &= !INTERRUPT_FLAG;
            core::ptr::null()
        }
        // SYSENTER does not clear TF: a task that single-steps into the kernel loses its trap, no more.
        DEBUG if frame.rflags & TRAP_FLAG != 0 => {
            frame.rflags &= !TRAP_FLAG;
            cpu.cr2_dr6_lost.set(true);
            core::ptr::null()
        }
        _ => die(frame),
    }
}

fn die(frame: &Frame) -> ! {
    if frame.vector == MACHINE_CHECK {
        machine_check::report();
    } else {
        crate::log::take_back();
        println!("kernel bug: exception {} in ring 0, stack block {:p}", frame.vector, block());
    }
    dump(frame);
    super::halt_forever()
}

fn dump(frame: &Frame) {
    let Frame { gpr, vector, error, rip, cs, rflags, rsp, ss } = frame;
    let cr2 = gpr.rsp;
    println!(
        "  vector {vector:#x} error {error:#x} rip {rip:#018x} rsp {rsp:#018x} rflags {rflags:#x} cs {cs:#x} ss {ss:#x} cr2 {cr2:#x}"
    );
    print_registers(gpr);
}

/// Prints the general registers but RSP.
pub fn print_registers(gpr: &Gprs) {
    let Gprs { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = gpr;
    println!("  rax {rax:016x} rbx {rbx:016x} rcx {rcx:016x} rdx {rdx:016x}");
    println!("  rsi {rsi:016x} rdi {rdi:016x} rbp {rbp:016x} r8  {r8:016x}");
    println!("  r9  {r9:016x} r10 {r10:016x} r11 {r11:016x} r12 {r12:016x}");
    println!("  r13 {r13:016x} r14 {r14:016x} r15 {r15:016x}");
}

/// Tells people about a thread's exception that nobody takes.
pub fn report(ec: &Ec, why: &str) {
    let frame = ec.regs();
    let (domain, vector) = (ec.pd.address(), frame.vector);
    println!("a thread of domain {domain:#x} is ended by exception {vector}: {why}");
    if vector == PAGE_FAULT {
        println!("  page fault at {:#x}", frame.gpr.rsp);
    }
    dump(frame);
}
