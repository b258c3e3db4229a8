//! Processors that tell less about an exit: the machine finds out the rest, and the guest notices nothing.

mod common;

use abi::vcpu::{Event, Exit, Groups, Segment, VcpuState};
use common::{Vm, full, lengths, little};
use machine::{
    memory::GuestMemory,
    pc::{Outcome, Stop, Tells},
};
use proptest::prelude::*;

const TABLES: u64 = 0x1_0000;

fn all() -> [Tells; 3] {
    [full(), lengths(), little()]
}

/// 32-bit protected mode without paging.
fn protected(state: &mut VcpuState) {
    let flat = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (flat, flat, flat, flat, flat);
    state.cs = Segment { attr: 0xc9b, ..flat };
    state.cr0 = 0x11;
}

/// 64-bit mode, the lowest 4 GiB mapped to themselves.
fn long(vm: &mut Vm) {
    vm.ram.write(TABLES, &(TABLES | 0x1023).to_le_bytes()).unwrap();
    for gib in 0..4 {
        let entry: u64 = gib << 30 | 0xe3;
        vm.ram.write(TABLES + 0x1000 + 8 * gib, &entry.to_le_bytes()).unwrap();
    }
    let state = &mut vm.state;
    protected(state);
    state.cs.attr = 0xa9b;
    (state.cr0, state.cr3, state.cr4, state.efer) = (0x8000_0011, TABLES, 0x20, 0x500);
}

fn enter(vm: &mut Vm, mode: u8) {
    match mode {
        0 => vm.state.ds.limit = u32::MAX,
        1 => protected(&mut vm.state),
        _ => long(vm),
    }
}

#[test]
fn every_answer_brings_the_length() {
    // CPUID, RDMSR and WRMSR of TSC_ADJUST, WBINVD, INVD, PAUSE, with prefixes that change nothing.
    let exits: [(Exit, &[u8]); 6] = [
        (Exit::Cpuid, &[0x0f, 0xa2]),
        (Exit::MsrRead, &[0x0f, 0x32]),
        (Exit::MsrWrite, &[0x0f, 0x30]),
        (Exit::CacheInvalidate, &[0x0f, 0x09]),
        (Exit::CacheInvalidate, &[0x0f, 0x08]),
        (Exit::Pause, &[0xf3, 0x90]),
    ];
    for tells in all() {
        for mode in 0..3 {
            for (exit, code) in exits {
                let prefixes: &[&[u8]] =
                    if mode == 2 { &[&[], &[0x2e], &[0x48]] } else { &[&[], &[0x66]] };
                for prefix in prefixes {
                    let mut vm = Vm::on(tells);
                    enter(&mut vm, mode);
                    if exit == Exit::Pause && !prefix.is_empty() {
                        continue;
                    }
                    let code = [prefix, code].concat();
                    vm.at(&code);
                    (vm.state.gpr.rax, vm.state.gpr.rcx, vm.state.gpr.rdx) = (0, 0x3b, 0);
                    let outcome = vm.exit(exit);
                    assert!(matches!(outcome, Outcome::Continue(g) if g.contains(Groups::DONE)));
                    assert_eq!(vm.state.rip, 0x1000 + code.len() as u64, "{tells:?} {exit:?}");
                }
            }
            // HLT is answered later.
            let mut vm = Vm::on(tells);
            enter(&mut vm, mode);
            vm.start_pic(!1);
            for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
                let _ = vm.out(port, value);
            }
            vm.at(&[0xf4]);
            vm.state.rflags = 0x202;
            assert_eq!(vm.exit(Exit::Hlt), Outcome::Halt);
            vm.advance(20_000_000);
            let groups = vm.pc.wake(&mut vm.state, &vm.clock).unwrap();
            assert!(groups.contains(Groups::DONE | Groups::EVENT));
            assert!(tells.lengths || vm.state.inst_len == 1);
        }
    }
}

#[test]
fn an_instruction_that_is_gone_has_no_effect() {
    let mut vm = Vm::on(little());
    long(&mut vm);
    // Another page is there now: the write of TSC_ADJUST must not happen.
    vm.at(&[0x0f, 0x30]);
    vm.state.rip = 1 << 40;
    (vm.state.gpr.rax, vm.state.gpr.rcx, vm.state.gpr.rdx) = (77, 0x3b, 0);
    let outcome = vm.exit(Exit::MsrWrite);
    assert_eq!(outcome, Outcome::Continue(Groups::EVENT | Groups::CR2));
    assert_eq!((vm.state.event, vm.state.cr2), (Event::exception(14, Some(0)), 1 << 40));
    vm.at(&[0x0f, 0x32]);
    let _ = vm.exit(Exit::MsrRead);
    assert_eq!(vm.state.gpr.rax, 0);
    // Bytes that are no instruction end the guest, by name.
    vm.at(&[0x06]);
    let Outcome::Stop(stop) = vm.exit(Exit::Cpuid) else { panic!() };
    assert!(stop.to_string().starts_with("the instruction 06"), "{stop}");
}

/// One access to a control register: what a processor tells of it, and its encoding.
fn control_instruction(mode: u8, kind: u8, register: u8, gpr: u8, operand: u16) -> (u64, Vec<u8>) {
    let (register, gpr) = if mode == 2 { (register, gpr) } else { (register & 7, gpr & 7) };
    let access = |kind: u64| u64::from(register) | kind << 4 | u64::from(gpr) << 8;
    match kind {
        0 | 1 => {
            let rex = 0x40 | register >> 3 << 2 | gpr >> 3;
            let mut code = if rex == 0x40 { vec![] } else { vec![rex] };
            code.extend([
                0x0f,
                [0x22, 0x20][usize::from(kind)],
                0xc0 | (register & 7) << 3 | gpr & 7,
            ]);
            (access(kind.into()), code)
        }
        2 => (2 << 4, vec![0x0f, 0x06]),
        // LMSW AX.
        _ => (3 << 4 | u64::from(operand) << 16, vec![0x0f, 0x01, 0xf0]),
    }
}

proptest! {
    /// MOV CR, CLTS and LMSW do the same whether or not the processor describes them.
    #[test]
    fn control_registers_do_not_depend_on_what_is_told(mode in 0..3u8, kind in 0..4u8, register in prop::sample::select(vec![0u8, 3, 4, 8]), gpr in 0..16u8, value in prop::sample::select(vec![0u64, 1, 0x11, 0x20, 0x80, 0xf0, 0x6000_0011, 0x8000_0011, 0x2000_0011, 0x8000_0010, 0x1_0000, 0x4_0020, 9, 16, 0xffff, 0xfff0, 1 << 40, u64::MAX]), junk: u64) {
        let value = value ^ if junk % 4 == 0 { junk & 0xff } else { 0 };
        let (access, code) = control_instruction(mode, kind, register, gpr, value as u16);
        let run = |tells| {
            let mut vm = Vm::on(tells);
            enter(&mut vm, mode);
            vm.state.gpr.rax = value;
            *vm.state.gpr.reg_mut(gpr) = value;
            vm.state.cr0 |= 8;
            let outcome = vm.control(access, &code);
            let mut state = vm.state;
            (state.qual, state.inst_len) = ([0; 3], 0);
            (outcome, state)
        };
        let expected = run(full());
        prop_assert_eq!(&run(lengths()), &expected);
        prop_assert_eq!(&run(little()), &expected);
        // All of them do something.
        prop_assert!(matches!(expected.0, Outcome::Continue(_)));
    }
}

#[test]
fn control_registers_follow_the_policy() {
    for tells in all() {
        let mut vm = Vm::on(tells);
        long(&mut vm);
        let refused = Outcome::Continue(Groups::EVENT);
        let fault = Event::exception(13, Some(0));
        // CPUID shows OSXSAVE only after CR4 has it, and here XSAVE is not offered. MOV CR4, RBX.
        vm.state.gpr.rbx = 1 << 18 | 0x20;
        assert_eq!(vm.control(4 | 3 << 8, &[0x0f, 0x22, 0xe3]), refused);
        assert_eq!((vm.state.event, vm.state.rip, vm.state.cr4), (fault, 0x1000, 0x20));
        vm.state.gpr.rbx = 0x220;
        let outcome = vm.control(4 | 3 << 8, &[0x0f, 0x22, 0xe3]);
        assert!(matches!(outcome, Outcome::Continue(g) if g.contains(Groups::CR | Groups::DONE)));
        assert_eq!((vm.state.rip, vm.state.cr4), (0x1003, 0x220));
        // A write that changes nothing is one all the same: PAE cannot be cleared in long mode.
        let outcome = vm.control(4 | 3 << 8, &[0x0f, 0x22, 0xe3]);
        assert!(matches!(outcome, Outcome::Continue(g) if g.contains(Groups::DONE)));
        vm.state.gpr.rbx = 0x200;
        assert_eq!(vm.control(4 | 3 << 8, &[0x0f, 0x22, 0xe3]), refused);
        // CR8 is the task priority: MOV CR8, RBX and MOV RSI, CR8.
        vm.state.gpr.rbx = 9;
        let _ = vm.control(8 | 3 << 8, &[0x44, 0x0f, 0x22, 0xc3]);
        let outcome = vm.control(8 | 1 << 4 | 6 << 8, &[0x44, 0x0f, 0x20, 0xc6]);
        assert_eq!(outcome, Outcome::Continue(Groups::BSD | Groups::DONE));
        assert_eq!(vm.state.gpr.rsi, 9);
        vm.state.gpr.rbx = 16;
        assert_eq!(vm.control(8 | 3 << 8, &[0x44, 0x0f, 0x22, 0xc3]), refused);
        // LMSW never clears PE.
        vm.state.gpr.rax = 0xfff8;
        let outcome = vm.control(3 << 4 | 0xfff8 << 16, &[0x0f, 0x01, 0xf0]);
        assert_eq!(outcome, Outcome::Continue(Groups::CR | Groups::DONE));
        assert_eq!(vm.state.cr0, 0x8000_0019);
    }
}

#[test]
fn the_machine_status_word_can_be_read() {
    // Only processors that do not describe accesses exit for SMSW. SMSW ECX, SMSW [RBX].
    let mut vm = Vm::on(little());
    long(&mut vm);
    vm.state.gpr.rcx = u64::MAX;
    let outcome = vm.control(1 << 4, &[0x0f, 0x01, 0xe1]);
    assert_eq!(outcome, Outcome::Continue(Groups::ACDB | Groups::DONE));
    assert_eq!((vm.state.gpr.rcx, vm.state.rip), (0x8000_0011, 0x1003));
    vm.state.gpr.rbx = 0x3000;
    assert_eq!(vm.control(1 << 4, &[0x0f, 0x01, 0x23]), Outcome::Continue(Groups::DONE));
    assert_eq!(vm.ram.load(0x3000, 4), Some(0x11));
    // What is none of these is an invalid opcode: CR8 by LOCK, which CPUID does not offer.
    vm.state.cs.attr = 0xc9b;
    assert_eq!(vm.control(8, &[0xf0, 0x0f, 0x22, 0xc0]), Outcome::Continue(Groups::EVENT));
    assert_eq!(vm.state.event, Event::exception(6, None));
}

/// Instructions that access what RBX, RSI or RDI point to.
const ACCESSES: [&[u8]; 14] = [
    &[0x89, 0x03],
    &[0x8b, 0x03],
    &[0x88, 0x23],
    &[0x0f, 0xb6, 0x0b],
    &[0xc7, 0x03, 0x78, 0x56, 0x34, 0x12],
    &[0x89, 0x43, 0x10],
    &[0x83, 0x0b, 0x20],
    &[0x81, 0x23, 0xff, 0xff, 0xfe, 0xff],
    &[0x87, 0x03],
    &[0xa5],
    &[0xf3, 0xa5],
    &[0xf3, 0xab],
    &[0xac],
    &[0x3b, 0x03],
];
/// Those that access a byte.
const BYTES: [usize; 3] = [2, 3, 12];
/// The one that accesses 16 bytes further on.
const DISPLACED: usize = 5;

proptest! {
    /// An access to a device does the same whether or not the processor tells where it goes, wherever it lies on its page.
    #[test]
    fn memory_does_not_depend_on_what_is_told(mode in 1..3u8, which in 0..ACCESSES.len(), device in prop::sample::select(vec![0xfee0_0080u64, 0xfee0_0300, 0xfec0_0000, 0xfec0_0010, 0xd000_0123, 0xfedf_fffe, 0x1f_fffd]), value: u32, reversed: bool) {
        prop_assume!(device > 0x20_0000 || !BYTES.contains(&which));
        let run = |tells| {
            let mut vm = Vm::on(tells);
            enter(&mut vm, mode);
            vm.ram.write(0x4000, &[0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]).unwrap();
            let gpr = &mut vm.state.gpr;
            (gpr.rax, gpr.rbx, gpr.rcx) = (value.into(), device, 2);
            (gpr.rsi, gpr.rdi) = if reversed { (device, 0x4000) } else { (0x4000, device) };
            vm.at(ACCESSES[which]);
            // Where RAM ends in the middle of an access, the address is that of the page that is missing.
            let address = device + if which == DISPLACED { 0x10 } else { 0 };
            let address = address.max(0x20_0000);
            vm.state.qual = [0x182, address, address];
            let outcome = vm.exit(Exit::Memory);
            vm.state.qual = [0; 3];
            (outcome, vm.state, vm.ram.load(0x4000, 8), vm.ram.load(0x1f_fff8, 8), vm.window, vm.deadline)
        };
        let expected = run(full());
        prop_assert_eq!(&run(lengths()), &expected);
        prop_assert_eq!(&run(little()), &expected);
    }
}

#[test]
fn string_ports_need_no_address() {
    for tells in all() {
        let mut vm = Vm::on(tells);
        vm.at(&[0xf3, 0x6e]);
        vm.ram.write(0x2ffe, b"text").unwrap();
        (vm.state.gpr.rcx, vm.state.gpr.rsi, vm.state.gpr.rdx) = (4, 0x2ffe, 0x3f8);
        vm.state.qual = [0x3f8 << 16 | 0x30, 0x5e5e, 0];
        assert!(matches!(vm.exit(Exit::Port), Outcome::Continue(g) if g.contains(Groups::DONE)));
        let sent: Vec<u8> = std::iter::from_fn(|| vm.pc.take_output()).collect();
        assert_eq!((sent.as_slice(), vm.state.rip), (&b"text"[..], 0x1002));
        // REP INSW of the host bridge's number.
        vm.state.gpr.rax = 0x8000_0000;
        vm.state.qual[0] = 0xcf8 << 16 | 3;
        let _ = vm.exit(Exit::Port);
        vm.at(&[0xf3, 0x6d]);
        (vm.state.gpr.rcx, vm.state.gpr.rdi, vm.state.gpr.rdx) = (2, 0x3fff, 0xcfc);
        vm.state.qual = [0xcfc << 16 | 0x39, 0, 0];
        assert!(matches!(vm.exit(Exit::Port), Outcome::Continue(g) if g.contains(Groups::DONE)));
        assert_eq!(vm.ram.load(0x3fff, 1), Some(0x86));
        assert_eq!(vm.ram.load(0x4000, 2), Some(0x8680));
        assert_eq!(vm.ram.load(0x4002, 1), Some(0x80));
    }
}

#[test]
fn page_tables_outside_of_ram_are_the_guests_fault() {
    for tells in all() {
        let mut vm = Vm::on(tells);
        long(&mut vm);
        // The table for the second 512 GiB is where no device answers: ones, with reserved bits.
        vm.ram.write(TABLES + 8, &0xd000_0003_u64.to_le_bytes()).unwrap();
        vm.at(&[0x8b, 0x03]);
        vm.state.gpr.rbx = 1 << 39;
        // A read, of a paging structure.
        vm.state.qual = [0x81, 0xd000_0000, 1 << 39];
        let outcome = vm.exit(Exit::Memory);
        assert_eq!(outcome, Outcome::Continue(Groups::EVENT | Groups::CR2), "{tells:?}");
        assert_eq!((vm.state.event, vm.state.cr2), (Event::exception(14, Some(9)), 1 << 39));
        // The same for the fetch of an instruction.
        vm.state.rip = 1 << 39;
        let outcome = vm.exit(Exit::Memory);
        assert_eq!(outcome, Outcome::Continue(Groups::EVENT | Groups::CR2), "{tells:?}");
        assert_eq!((vm.state.event, vm.state.cr2), (Event::exception(14, Some(9)), 1 << 39));
    }
}

#[test]
fn what_cannot_go_on_is_said() {
    let stop = |vm: &mut Vm, exit| match vm.exit(exit) {
        Outcome::Stop(stop) => stop,
        other => panic!("{other:?}"),
    };
    for tells in all() {
        let mut vm = Vm::on(tells);
        vm.state.qual = [0x28 | 2 << 30, 0, 0];
        assert_eq!(stop(&mut vm, Exit::TaskSwitch), Stop::TaskSwitch(0x28));
        // An instruction outside of RAM.
        vm.state.qual = [0x104, 0xd000_0000, 0];
        assert_eq!(stop(&mut vm, Exit::Memory), Stop::FetchOutsideRam(0xd000_0000));
    }
    // A stack outside of RAM, at the delivery of an interrupt: nothing of it is an instruction's.
    let mut vm = Vm::on(little());
    vm.at(&[0x89, 0x03]);
    vm.state.qual = [0x102, 0xd000_0ffc, 0];
    vm.state.event = Event::interrupt(0x30);
    assert_eq!(vm.redelivered(), Outcome::Stop(Stop::DeliveryOutsideRam(0xd000_0ffc)));
}
