//! Real and protected mode: address sizes, segments, limits; string port access; incomplete instructions.

mod common;

use abi::vcpu::{Groups, VcpuState};
use common::Ram;
use emulate::{End, Fault};

fn run(state: &mut VcpuState, ram: &mut Ram, code: &[u8]) -> End {
    let base = state.cs.base + state.rip;
    ram.put(base, code);
    let report = emulate::emulate(state, ram, None);
    if report.end == End::Done {
        assert_eq!(state.inst_len, code.len() as u64);
    }
    report.end
}

#[test]
fn real_mode_adds_the_segment_base() {
    let (mut state, mut ram) = (common::real(), Ram::default());
    state.es.base = 0xb8000;
    (state.rip, state.gpr.rbx, state.gpr.rdi, state.gpr.rax) = (0x100, 0xfff0, 0x20, 0x0741);
    // mov es:[bx+di], ax: the offset wraps at 64 KiB.
    assert_eq!(run(&mut state, &mut ram, &[0x26, 0x89, 0x01]), End::Done);
    assert_eq!(ram.get(0xb8010, 2), [0x41, 0x07]);
    // mov eax, [ds:0x10] with 32-bit operand and address size.
    ram.put(0x10, &[1, 2, 3, 4]);
    assert_eq!(run(&mut state, &mut ram, &[0x66, 0x67, 0xa1, 0x10, 0, 0, 0]), End::Done);
    assert_eq!(state.gpr.rax, 0x0403_0201);
}

#[test]
fn real_mode_checks_limits() {
    let (mut state, mut ram) = (common::real(), Ram::default());
    state.gpr.rbx = 0xffff;
    // mov ax, [bx] crosses the limit; mov ax, ss:[bx] the stack's.
    assert_eq!(run(&mut state, &mut ram, &[0x8b, 0x07]), End::Fault(Fault::General(0)));
    assert_eq!(run(&mut state, &mut ram, &[0x36, 0x8b, 0x07]), End::Fault(Fault::Stack(0)));
    // A byte fits, and so does big real mode.
    assert_eq!(run(&mut state, &mut ram, &[0x8a, 0x07]), End::Done);
    state.ds.limit = u32::MAX;
    state.gpr.rbx = 0x10_0000;
    ram.put(0x10_0000, &[0xaa]);
    assert_eq!(run(&mut state, &mut ram, &[0x67, 0x8a, 0x03]), End::Done);
    assert_eq!(state.gpr.rax & 0xff, 0xaa);
}

#[test]
fn protected_mode_checks_types() {
    let (mut state, mut ram) = (common::protected(), Ram::default());
    let write = [0x88, 0x03];
    let read = [0x8a, 0x03];
    state.gpr.rbx = 0x3000;
    let general = End::Fault(Fault::General(0));
    // Read-only data, execute-only code, not present, unusable.
    for (attr, may_read, may_write) in [
        (0xc93, true, true),
        (0xc91, true, false),
        (0xc99, false, false),
        (0xc9b, true, false),
        (0xc13, false, false),
        (0x1_c93 & 0xfff | 1 << 12, false, false),
    ] {
        state.ds.attr = attr;
        let expect = |allowed| if allowed { End::Done } else { general };
        assert_eq!(run(&mut state, &mut ram, &read), expect(may_read), "{attr:x}");
        assert_eq!(run(&mut state, &mut ram, &write), expect(may_write), "{attr:x}");
    }
    // Expand-down: valid above the limit, to 64 KiB or 4 GiB by the B bit.
    (state.ds.attr, state.ds.limit) = (0x97, 0x2fff);
    assert_eq!(run(&mut state, &mut ram, &read), End::Done);
    state.gpr.rbx = 0x2fff;
    assert_eq!(run(&mut state, &mut ram, &read), general);
    state.gpr.rbx = 0x1_0000;
    assert_eq!(run(&mut state, &mut ram, &read), general);
    state.ds.attr |= 1 << 10;
    assert_eq!(run(&mut state, &mut ram, &read), End::Done);
}

#[test]
fn long_mode_checks_canonical_addresses() {
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    state.gpr.rbx = 0x8000_0000_0000;
    assert_eq!(run(&mut state, &mut ram, &[0x8a, 0x03]), End::Fault(Fault::General(0)));
    state.gpr.rbp = 0x7fff_ffff_ffff;
    assert_eq!(run(&mut state, &mut ram, &[0x8b, 0x45, 0]), End::Fault(Fault::Stack(0)));
    // FS and GS keep their bases, DS does not have one.
    state.ds.base = 0x1_0000;
    state.gs.base = 0x2_0000;
    state.gpr.rbx = 0x10;
    ram.put(0x2_0010, &[7]);
    assert_eq!(run(&mut state, &mut ram, &[0x65, 0x8a, 0x03]), End::Done);
    assert_eq!(state.gpr.rax & 0xff, 7);
    assert_eq!(run(&mut state, &mut ram, &[0x8a, 0x03]), End::Done);
    assert_eq!(state.gpr.rax & 0xff, 0);
    // RIP-relative: from the end of the instruction.
    state.rip = 0x5000;
    ram.put(0x5106, &[0x99]);
    assert_eq!(run(&mut state, &mut ram, &[0x8a, 0x05, 0, 1, 0, 0]), End::Done);
    assert_eq!(state.gpr.rax & 0xff, 0x99);
}

#[test]
fn string_port_access_moves_memory_and_ports() {
    let (mut state, mut ram) = (common::real(), Ram::default());
    state.es.base = 0x1_0000;
    (state.gpr.rdx, state.gpr.rcx, state.gpr.rdi) = (0x1f0, 3, 0x100);
    assert_eq!(run(&mut state, &mut ram, &[0xf3, 0x6d]), End::Done);
    assert_eq!(ram.ports, [(0x1f0, 2, u32::MAX); 3]);
    assert_eq!(ram.get(0x1_0100, 6), [1, 1, 2, 2, 3, 3]);
    assert_eq!((state.gpr.rcx, state.gpr.rdi), (0, 0x106));
    ram.ports.clear();
    // rep fs: outsb, backwards.
    state.fs.base = 0x2_0000;
    ram.put(0x2_0000, b"abc");
    (state.gpr.rcx, state.gpr.rsi) = (3, 2);
    state.rflags |= 0x400;
    assert_eq!(run(&mut state, &mut ram, &[0x64, 0xf3, 0x6e]), End::Done);
    let sent: Vec<u8> = ram.ports.iter().map(|&(.., value)| value as u8).collect();
    assert_eq!((sent.as_slice(), state.gpr.rsi), (&b"cba"[..], 0xffff));
}

#[test]
fn long_repeats_pause() {
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    (state.gpr.rcx, state.gpr.rdi, state.gpr.rax) = (100, 0x3000, 0x55);
    assert_eq!(run(&mut state, &mut ram, &[0xf3, 0xaa]), End::Again);
    assert_eq!((state.gpr.rcx, state.gpr.rdi), (36, 0x3040));
    assert_eq!(run(&mut state, &mut ram, &[0xf3, 0xaa]), End::Done);
    assert_eq!(ram.get(0x3000, 101), [vec![0x55; 100], vec![0]].concat());
}

#[test]
fn a_fault_in_a_repeat_keeps_what_was_done() {
    let (mut state, mut ram) = (common::protected(), Ram::default());
    state.es.limit = 0x3003;
    (state.gpr.rcx, state.gpr.rdi) = (8, 0x3000);
    ram.put(0, &[0xf3, 0xaa]);
    let report = emulate::emulate(&mut state, &mut ram, None);
    assert_eq!(report.end, End::Fault(Fault::General(0)));
    assert_eq!((state.gpr.rcx, state.gpr.rdi), (4, 0x3004));
    assert!(report.groups.contains(Groups::ACDB | Groups::BSD));
}

#[test]
fn unknown_instructions_are_reported_with_their_bytes() {
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    // movaps [rax], xmm0
    let End::Unsupported(bytes) = run(&mut state, &mut ram, &[0x0f, 0x29, 0x00]) else { panic!() };
    assert_eq!(bytes.to_string(), "0f 29 00");
}

#[test]
fn length_crosses_pages_only_if_needed() {
    let mut ram = Ram::default();
    let mut state = common::long(&mut ram);
    // The last byte below the 8 GiB that are mapped.
    state.rip = 0x1_ffff_ffff;
    ram.put(state.rip, &[0xf4]);
    assert_eq!(length(&mut state, &mut ram, &[]), (End::Done, 1));
    ram.put(state.rip, &[0x0f]);
    let fault = Fault::Page { address: 0x2_0000_0000, code: 16 };
    assert_eq!(length(&mut state, &mut ram, &[]).0, End::Fault(fault));
    // What is usual is only that if all of it is there.
    assert_eq!(length(&mut state, &mut ram, &[0x0f, 0xa2]).0, End::Fault(fault));
    state.rip = 0x1ffe;
    ram.put(state.rip, &[0x0f, 0xae, 0x38]);
    assert_eq!(length(&mut state, &mut ram, &[0x0f, 0xa2]), (End::Done, 3));
}

fn length(state: &mut VcpuState, ram: &mut Ram, usual: &[u8]) -> (End, u64) {
    state.inst_len = 0;
    let end = emulate::length(state, ram, usual);
    (end, state.inst_len)
}

#[test]
fn lengths_of_what_exits_are_found() {
    let mut ram = Ram::default();
    let prefixes: [&[u8]; 5] = [&[], &[0x66], &[0x48], &[0x2e, 0x67], &[0x65, 0x66, 0x4b]];
    // CPUID, RDMSR, WRMSR, HLT, XSETBV, WBINVD, INVD, WBNOINVD, PAUSE, RDTSC, RDTSCP, MOV DR, two calls of hypervisors.
    let codes: [&[u8]; 14] = [
        &[0x0f, 0xa2],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0xf4],
        &[0x0f, 0x01, 0xd1],
        &[0x0f, 0x09],
        &[0x0f, 0x08],
        &[0xf3, 0x0f, 0x09],
        &[0xf3, 0x90],
        &[0x0f, 0x31],
        &[0x0f, 0x01, 0xf9],
        &[0x0f, 0x23, 0xc0],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd9],
    ];
    for prefix in prefixes {
        for code in codes {
            // XSETBV and its neighbours allow no operand-size prefix, and REX comes last.
            let mandatory = code.starts_with(&[0x0f, 0x01]) || code[0] == 0xf3;
            if mandatory && !prefix.is_empty() && prefix != [0x2e, 0x67] {
                continue;
            }
            let bytes = [prefix, code].concat();
            for at in [0x3000, 0x3fff] {
                let mut state = common::long(&mut ram);
                state.rip = at;
                ram.put(at, &[bytes.as_slice(), &[0x90; 15]].concat());
                let expected = (End::Done, bytes.len() as u64);
                for usual in [&[][..], code] {
                    assert_eq!(length(&mut state, &mut ram, usual), expected, "{bytes:02x?}");
                }
            }
        }
    }
    let mut state = common::long(&mut ram);
    state.rip = 0x3000;
    // In 64-bit mode there is no PUSH ES.
    ram.put(0x3000, &[0x06]);
    assert!(matches!(length(&mut state, &mut ram, &[]).0, End::Unsupported(_)));
}
