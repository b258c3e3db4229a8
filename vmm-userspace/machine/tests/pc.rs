//! The machine as a whole, exit by exit.

mod common;

use abi::vcpu::{Event, Exit, Groups, Window};
use common::{Vm, full, lengths, little};
use machine::{
    memory::GuestMemory,
    pc::{Clock, Outcome, Stop, portal_groups},
};
use proptest::prelude::*;

#[test]
fn cpuid_changes_four_registers() {
    let mut vm = Vm::new();
    vm.state.gpr.rax = 0x4000_0000;
    assert_eq!(vm.exit(Exit::Cpuid), Outcome::Continue(Groups::ACDB | Groups::DONE));
    assert_eq!(vm.state.gpr.rbx as u32, u32::from_le_bytes(*b"Ferr"));
}

#[test]
fn the_console_sends_and_receives() {
    let mut vm = Vm::new();
    for byte in *b"hi" {
        assert_eq!(vm.out(0x3f8, byte), Outcome::Continue(Groups::DONE));
    }
    assert_eq!((vm.pc.take_output(), vm.pc.take_output()), (Some(b'h'), Some(b'i')));
    assert_eq!(vm.pc.take_output(), None);
    // With the receive interrupt on, input asks for a window, and the vector comes through the 8259.
    vm.start_pic(!0x10);
    let _ = vm.out(0x3f9, 1);
    let _ = vm.out(0x3fc, 0x0b);
    assert!(!vm.pc.interrupt_waiting());
    vm.pc.input(b'x', &vm.clock);
    assert!(vm.pc.interrupt_waiting());
    vm.state.rflags = 2;
    let _ = vm.exit(Exit::Recall);
    assert!(vm.asked() && !vm.state.event.is_valid());
    let _ = vm.exit(Exit::InterruptWindow);
    assert_eq!(vm.state.event, Event::interrupt(0x34));
    assert!(!vm.asked() && !vm.pc.interrupt_waiting());
    assert_eq!(vm.input(0x3f8), b'x');
}

#[test]
fn unclaimed_ports_read_ones_and_the_debug_port_keeps_its_byte() {
    let mut vm = Vm::new();
    assert_eq!(vm.input(0x2f8), 0xff);
    assert_eq!(vm.out(0x2f8, 1), Outcome::Continue(Groups::DONE));
    assert_eq!(vm.out(0x80, 0x5a), Outcome::Continue(Groups::DONE));
    assert_eq!(vm.input(0x80), 0x5a);
    // A 32-bit IN clears the upper half of RAX, a byte leaves it.
    vm.state.gpr.rax = u64::MAX;
    let _ = vm.input(0x80);
    assert_eq!(vm.state.gpr.rax, !0xff | 0x5a);
    vm.state.qual[0] = 0x2f8 << 16 | 8 | 3;
    let _ = vm.exit(Exit::Port);
    assert_eq!(vm.state.gpr.rax, 0xffff_ffff);
}

#[test]
fn ports_that_nobody_claims_change_nothing() {
    let mut vm = Vm::new();
    let mut claimed = vec![];
    for port in 0..=u16::MAX {
        if vm.input(port) != 0xff || vm.out(port, 0) != Outcome::Continue(Groups::DONE) {
            claimed.push(port);
            vm = Vm::new();
        }
    }
    // All that answer with something else than ones, or act.
    for port in [0x20, 0x21, 0x40, 0x61, 0x64, 0x71, 0x80, 0xa0, 0x3f9, 0x604, 0xcf9] {
        assert!(claimed.contains(&port), "{port:x}");
    }
    assert!(claimed.iter().all(|&port| port < 0x1000));
}

#[test]
fn the_host_bridge_answers_configuration_cycles() {
    let mut vm = Vm::new();
    vm.state.gpr.rax = 0x8000_0000;
    vm.state.qual[0] = 0xcf8 << 16 | 3;
    let _ = vm.exit(Exit::Port);
    vm.state.qual[0] = 0xcfc << 16 | 8 | 3;
    let _ = vm.exit(Exit::Port);
    assert_eq!(vm.state.gpr.rax, 0x1237_8086);
    assert_eq!((vm.input(0xcfc), vm.input(0xcfd)), (0x86, 0x80));
}

#[test]
fn the_timer_interrupts_through_the_8259_and_wakes() {
    let mut vm = Vm::new();
    vm.start_pic(!1);
    // 8254 channel 0, mode 2, 11932 pulses: 10 ms.
    for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
        let _ = vm.out(port, value);
    }
    vm.state.rflags = 0x202;
    assert_eq!(vm.exit(Exit::Hlt), Outcome::Halt);
    let due = vm.pc.deadline();
    assert!((19_990_000..20_010_000).contains(&(due - 2000)), "{due}");
    assert_eq!(vm.pc.wake(&mut vm.state, &vm.clock), None);
    vm.clock.0.set(due.div_ceil(2));
    let groups = vm.pc.wake(&mut vm.state, &vm.clock).unwrap();
    assert!(groups.contains(Groups::DONE | Groups::EVENT | Groups::DEADLINE));
    assert_eq!(vm.state.event, Event::interrupt(0x30));
    assert!(vm.state.deadline > due);
}

#[test]
fn halting_with_interrupts_off_is_the_end() {
    let mut vm = Vm::new();
    vm.state.rflags = 2;
    assert_eq!(vm.exit(Exit::Hlt), Outcome::Stop(Stop::Halted));
}

#[test]
fn the_tsc_deadline_timer_fires_once_at_its_time() {
    let mut vm = Vm::new();
    assert!(matches!(vm.wrmsr(0x1b, 0xfee0_0d00), Outcome::Continue(_)));
    let _ = vm.wrmsr(0x832, 2 << 17 | 0x60);
    let outcome = vm.wrmsr(0x6e0, 50_000);
    assert_eq!(outcome, Outcome::Continue(Groups::DONE | Groups::DEADLINE));
    assert_eq!(vm.deadline, 50_000);
    vm.advance(24_000);
    vm.state.rflags = 0x202;
    let _ = vm.exit(Exit::Recall);
    assert_eq!(vm.state.event, Event::interrupt(0x60));
    let _ = vm.exit(Exit::Recall);
    assert!(!vm.state.event.is_valid());
    // A deadline that the host's counter cannot reach is none.
    let _ = vm.wrmsr(0x6e0, u64::MAX);
    assert!(vm.deadline > 50_000);
    // EOI with a reserved value faults.
    assert_eq!(vm.wrmsr(0x80b, 1), Outcome::Continue(Groups::EVENT));
    assert_eq!(vm.state.event, Event::exception(13, Some(0)));
}

#[test]
fn level_interrupts_through_the_io_apic_end_with_eoi() {
    let mut vm = Vm::new();
    // Pin 4, level, vector 0x41.
    for (register, value) in [(0x10 + 9, 0), (0x10 + 8, 0x8041)] {
        let _ = vm.store(0xfec0_0000, register);
        let _ = vm.store(0xfec0_0010, value);
    }
    let _ = vm.out(0x3f9, 1);
    let _ = vm.out(0x3fc, 8);
    vm.pc.input(b'a', &vm.clock);
    vm.state.rflags = 0x202;
    let _ = vm.exit(Exit::Recall);
    assert_eq!(vm.state.event, Event::interrupt(0x41));
    // The line is still high: the EOI sends it again.
    let outcome = vm.store(0xfee0_00b0, 0);
    assert_eq!(outcome, Outcome::Continue(Groups::DONE | Groups::WINDOW));
    let _ = vm.exit(Exit::InterruptWindow);
    assert_eq!(vm.state.event, Event::interrupt(0x41));
    let _ = vm.input(0x3f8);
    assert_eq!(vm.store(0xfee0_00b0, 0), Outcome::Continue(Groups::DONE));
}

#[test]
fn a_self_nmi_waits_for_its_window() {
    let mut vm = Vm::new();
    let outcome = vm.store(0xfee0_0300, 0x4_4400);
    assert_eq!(outcome, Outcome::Continue(Groups::DONE | Groups::WINDOW));
    assert_eq!(vm.window, Window::NMI);
    assert_eq!(vm.exit(Exit::NmiWindow), Outcome::Continue(Groups::WINDOW | Groups::EVENT));
    assert_eq!((vm.state.event, vm.window), (Event::nmi(), Window(0)));
}

#[test]
fn device_memory_needs_segments_only_for_complex_instructions() {
    let mut vm = Vm::new();
    let have = portal_groups(Exit::Memory, full());
    vm.state.qual = [0x182, 0xfee0_0080, 0xfee0_0080];
    (vm.state.gpr.rbx, vm.state.ds.limit) = (0xfee0_0080, u32::MAX);
    // or dword [ebx], 0x20
    vm.ram.write(0x1000, &[0x66, 0x67, 0x83, 0x0b, 0x20]).unwrap();
    let outcome = vm.pc.exit::<true>(Exit::Memory, have, &mut vm.state, &mut vm.ram, &vm.clock);
    assert!(matches!(outcome, Outcome::Need(_)));
    vm.state.inst_len = 0;
    let Outcome::Continue(groups) = vm.exit(Exit::Memory) else { panic!() };
    // The processor told no length: the decoded one counts.
    assert!(groups.contains(Groups::RFLAGS | Groups::DONE) && !groups.contains(Groups::RIP));
    assert_eq!(vm.state.inst_len, 5);
    assert_eq!(vm.store(0xfee0_0080, 0x30), Outcome::Continue(Groups::DONE));
    // A vector store is not emulated: the report has its bytes.
    vm.ram.write(0x1000, &[0x0f, 0x29, 0x07]).unwrap();
    vm.state.rip = 0x1000;
    let Outcome::Stop(stop) = vm.exit(Exit::Memory) else { panic!() };
    assert_eq!(
        stop.to_string(),
        "the instruction 0f 29 07 accessed 0xfee00080 and is not emulated"
    );
}

#[test]
fn string_output_reaches_the_console() {
    let mut vm = Vm::new();
    vm.ram.write(0x1000, &[0xf3, 0x6e]).unwrap();
    vm.ram.write(0x2000, b"text").unwrap();
    (vm.state.gpr.rcx, vm.state.gpr.rsi, vm.state.gpr.rdx) = (4, 0x2000, 0x3f8);
    (vm.state.rip, vm.state.inst_len) = (0x1000, 2);
    vm.state.qual[0] = 0x3f8 << 16 | 0x30;
    assert!(matches!(vm.exit(Exit::Port), Outcome::Continue(g) if g.contains(Groups::DONE)));
    let sent: Vec<u8> = std::iter::from_fn(|| vm.pc.take_output()).collect();
    assert_eq!(sent, b"text");
}

#[test]
fn the_machine_can_be_switched_off_and_reset() {
    let mut vm = Vm::new();
    let _ = vm.out(0x604, 0);
    assert_eq!(vm.out(0x605, 0x20 | 5 << 2), Outcome::PowerOff);
    assert_eq!(vm.out(0xcf9, 6), Outcome::Reset);
    assert_eq!(Vm::new().out(0x64, 0xfe), Outcome::Reset);
    assert_eq!(Vm::new().out(0x92, 1), Outcome::Reset);
}

#[test]
fn the_power_button_raises_the_sci() {
    let mut vm = Vm::new();
    let _ = vm.out(0xb2, 0xf1);
    let _ = vm.out(0x603, 1);
    for (register, value) in [(0x10 + 19, 0), (0x10 + 18, 0x8051)] {
        let _ = vm.store(0xfec0_0000, register);
        let _ = vm.store(0xfec0_0010, value);
    }
    vm.pc.press_power_button();
    assert!(vm.pc.interrupt_waiting());
    vm.state.rflags = 0x202;
    let _ = vm.exit(Exit::Recall);
    assert_eq!(vm.state.event, Event::interrupt(0x51));
}

#[test]
fn a_short_period_does_not_starve_the_guest() {
    let mut vm = Vm::new();
    // 8254 channel 0, mode 2, 2 pulses: 1.7 us.
    for (port, value) in [(0x43, 0x34), (0x40, 2), (0x40, 0)] {
        let _ = vm.out(port, value);
    }
    for _ in 0..100 {
        vm.clock.0.set(vm.pc.deadline().div_ceil(2));
        let _ = vm.exit(Exit::Recall);
        assert!(vm.deadline >= vm.clock.tsc() + 10_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a guest does, the machine answers, and the kernel's windows and deadline are what the machine believes.
    #[test]
    fn random_exits_are_answered(tells in prop::sample::select(vec![full(), lengths(), little()]), accesses in prop::collection::vec((0..5u8, any::<u16>(), any::<u32>(), 0..200_000u64), 1..200)) {
        let mut vm = Vm::on(tells);
        let ports = [0x20, 0x21, 0xa0, 0xa1, 0x40, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x3f8, 0x3f9, 0x3fa, 0x3fc, 0x3fd, 0x4d0, 0x600, 0x602, 0x604, 0x608, 0xb2, 0xcf8, 0xcfc, 0x92, 0x80];
        let registers = [0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x360, 0x370, 0x380, 0x3e0];
        for (kind, which, value, ns) in accesses {
            vm.advance(ns);
            vm.state.rflags = 2 | u64::from(value & 0x200);
            vm.state.rip = 0x1000;
            let which = usize::from(which);
            let outcome = match kind {
                0 | 1 => {
                    vm.state.gpr.rax = u64::from(value);
                    let size = [0, 1, 3][which % 3];
                    let port = ports[which / 3 % ports.len()];
                    vm.state.qual[0] = port << 16 | u64::from(kind) << 3 | size;
                    vm.exit(Exit::Port)
                }
                2 => vm.store(0xfee0_0000 + registers[which % registers.len()], value),
                3 => vm.store(0xfec0_0000 + (which as u64 & 1) * 0x10, value & 0x1_ffff),
                _ if vm.asked() => vm.exit(Exit::InterruptWindow),
                _ => vm.exit(Exit::Recall),
            };
            match outcome {
                Outcome::Continue(groups) => {
                    prop_assert!(!vm.pc.interrupt_waiting(), "{groups:?}");
                    prop_assert_eq!(vm.deadline, vm.pc.deadline());
                }
                Outcome::Reset | Outcome::PowerOff => return Ok(()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
