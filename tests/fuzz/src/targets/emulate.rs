//! Executing an instruction that a guest chose, in a state that a guest made.

use abi::vcpu::{Groups, Segment, VcpuState};
use emulate::{Bus, Control, End, Hint};

use super::Target;
use crate::input::{Bytes, Input};

/// Mode, control bits, registers, what is changed in memory, and the code.
pub const TARGET: Target = Target { name: "emulate", longest: 512, dictionary: &[], seeds, run };

/// Bytes of RAM, from address 0 on.
const RAM: usize = 0x1_0000;
/// Where the top of the page tables lies; they map the first GiB and the local APIC's.
const TABLES: u64 = 0x8000;
/// More accesses than any one instruction makes before it lets the guest take interrupts.
const ACCESSES: usize = 10_000;

/// The guest's RAM, and devices everywhere else.
struct Machine {
    ram: Vec<u8>,
    accesses: usize,
    /// Where the first access to a device went.
    device: Option<u64>,
}

impl Machine {
    fn new(ram: Vec<u8>) -> Self {
        Self { ram, accesses: 0, device: None }
    }

    /// Where in RAM an access goes, if it does.
    fn place(&mut self, gpa: u64, size: u8) -> Option<std::ops::Range<usize>> {
        assert!(matches!(size, 1 | 2 | 4 | 8), "an access of {size} bytes");
        assert!((gpa & 0xfff) + u64::from(size) <= 0x1000, "an access across pages");
        self.count();
        let Some(start) = usize::try_from(gpa).ok().filter(|start| *start < RAM) else {
            self.device.get_or_insert(gpa);
            return None;
        };
        Some(start..start + usize::from(size))
    }

    fn count(&mut self) {
        self.accesses += 1;
        assert!(self.accesses < ACCESSES, "an instruction without end");
    }
}

impl Bus for Machine {
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        let mut bytes = gpa.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        if let Some(place) = self.place(gpa, size) {
            bytes[..size.into()].copy_from_slice(&self.ram[place]);
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, gpa: u64, size: u8, value: u64) {
        let place = self.place(gpa, size);
        assert!(size == 8 || value >> (8 * size) == 0, "{value:#x} has more than {size} bytes");
        if let Some(place) = place {
            self.ram[place].copy_from_slice(&value.to_le_bytes()[..size.into()]);
        }
    }

    fn port_read(&mut self, port: u16, size: u8) -> u32 {
        self.count();
        assert!(matches!(size, 1 | 2 | 4));
        u32::from(port).wrapping_mul(0x0101_0101)
    }

    fn port_write(&mut self, _: u16, size: u8, value: u32) {
        self.count();
        assert!(size == 4 || size <= 2 && value >> (8 * size) == 0);
    }

    fn physical_bits(&self) -> u32 {
        40
    }
}

/// A guest that executes `code`; its first registers point to a device and to RAM.
fn guest(mode: u8, code: &[u8]) -> Vec<u8> {
    let head = Bytes::default().put(&[mode, 0]).u16(0x100).u32(2);
    let registers = [0xfee0_0000, 3, 0x3f8, 0x1000, 0x4000, 0x2000, 0xfee0_0300, 0x1ff8];
    let head = registers.iter().fold(head, |bytes, value| bytes.u64(*value));
    head.put(&[0]).put(code).0
}

fn seeds() -> Vec<Vec<u8>> {
    let long: [&[u8]; 18] = [
        &[0x0f, 0x22, 0xc3],
        &[0x44, 0x0f, 0x20, 0xc0],
        &[0x0f, 0x01, 0x30],
        &[0x48, 0x0f, 0x01, 0xe3],
        &[0x89, 0x18],
        &[0x8b, 0x80, 0x20, 0, 0, 0],
        &[0xc7, 0, 1, 0, 0, 0],
        &[0xf0, 0x0f, 0xb1, 0x18],
        &[0x48, 0x0f, 0xc7, 0x08],
        &[0xf3, 0xa4],
        &[0xf3, 0x48, 0xab],
        &[0xf2, 0xae],
        &[0x6c],
        &[0xf3, 0x6f],
        &[0xff, 0x30],
        &[0x8f, 0],
        &[0x0f, 0xb6, 0x18],
        &[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0],
    ];
    let other: [&[u8]; 4] = [&[0x88, 0x07], &[0xa1, 0, 0], &[0x67, 0x8b, 0x18], &[0xd3, 0x27]];
    let long = long.iter().map(|code| guest(0, code));
    long.chain((1..4).flat_map(|mode| other.iter().map(move |code| guest(mode, code)))).collect()
}

/// Mode 0: 64 bits, 1: 32 bits, 2: 16 bits protected, 3: real. In modes without paging, memory is
/// as large as the segments reach.
fn state(mode: u8, bits: u8) -> VcpuState {
    let flat = |attr| Segment { selector: 0x18, attr, limit: u32::MAX, base: 0 };
    let small = |attr| Segment { selector: 0, attr, limit: 0xffff, base: 0 };
    let (cr0, cr4, efer, code, data) = match mode & 3 {
        0 => (0x8001_0031, 0x20, 0xd01, flat(0xa9b), flat(0xc93)),
        1 => (0x11, 0, 0, flat(0xc9b), flat(0xc93)),
        2 => (0x11, 0, 0, small(0x9b), small(0x93)),
        _ => (0x10, 0, 0, small(0x9b), small(0x93)),
    };
    // Privilege 3, a segment that grows down and one that cannot be used are worth a bit each.
    let privilege = if bits & 1 != 0 { 0x60 } else { 0 };
    let data = Segment { attr: data.attr | privilege, ..data };
    let down = if bits & 2 != 0 { 4 } else { 0 };
    let unusable = if bits & 4 != 0 { Segment::UNUSABLE } else { 0 };
    VcpuState {
        cr0,
        cr3: TABLES,
        // SMEP and SMAP.
        cr4: cr4 | if bits & 8 != 0 { 3 << 20 } else { 0 },
        efer,
        cs: Segment { attr: code.attr | privilege, ..code },
        ss: data,
        ds: Segment { attr: data.attr | down, ..data },
        es: Segment { attr: data.attr | unusable, ..data },
        fs: Segment { base: 0x1234, ..data },
        gs: Segment { base: 0xffff_8000_0000_0000, ..data },
        ..VcpuState::default()
    }
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mode, bits) = (input.byte(), input.byte());
    let mut state = state(mode, bits);
    state.rip = input.u16().into();
    state.rflags = u64::from(input.u32() & 0x0005_4dd5 | 2);
    let gpr = &mut state.gpr;
    let registers = [
        &mut gpr.rax,
        &mut gpr.rcx,
        &mut gpr.rdx,
        &mut gpr.rbx,
        &mut gpr.rsp,
        &mut gpr.rbp,
        &mut gpr.rsi,
        &mut gpr.rdi,
    ];
    for register in registers {
        *register = input.u64();
    }
    let mut ram = vec![0; RAM];
    let mut put = |at: usize, value: u64| {
        if let Some(slot) = ram.get_mut(at..at + 8) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    };
    let table = TABLES as usize;
    put(table, (TABLES + 0x1000) | 0x27);
    put(table + 0x1000, 0xe7);
    put(table + 0x1000 + 3 * 8, (3 << 30) | 0xe7);
    let changes = input.byte() & 15;
    for _ in 0..changes {
        put(input.u16().into(), input.u64());
    }
    let start = state.rip as usize;
    for (to, from) in ram.iter_mut().skip(start).zip(input.rest()) {
        *to = *from;
    }

    let length = length(state, ram.clone());
    control(state, ram.clone());
    let mut machine = Machine::new(ram.clone());
    let before = state;
    let report = emulate::emulate(&mut state, &mut machine, None);
    assert_eq!(state.rip, before.rip, "the owner moves RIP");
    assert!(!report.groups.contains(Groups::DONE));
    // Only with the tables as they were made is memory where its linear address says.
    let own_tables = changes == 0 && start + input.rest().len() <= TABLES as usize;
    if let Some(gpa) = machine.device.filter(|_| own_tables) {
        hinted(before, ram, gpa, &state, report.end);
    }
    match report.end {
        End::Done => assert_eq!(length, Some(state.inst_len)),
        End::Again => assert!(state.gpr.rcx != before.gpr.rcx),
        End::Fault(fault) => {
            fault.raise(&mut state);
            assert!(state.event.is_valid());
        }
        End::Unsupported(bytes) => assert!(!bytes.to_string().is_empty() || bytes.len == 0),
    }
}

/// The length of the instruction, if it has one.
fn length(mut state: VcpuState, ram: Vec<u8>) -> Option<u64> {
    let before = state;
    let end = emulate::length(&mut state, &mut Machine::new(ram), &[]);
    let length = state.inst_len;
    state.inst_len = before.inst_len;
    assert_eq!(state, before, "more than the length changed");
    (end == End::Done).then_some(length).inspect(|length| assert!((1..=15).contains(length)))
}

/// The instruction as an access to a control register, which it may be.
fn control(mut state: VcpuState, ram: Vec<u8>) {
    match emulate::control(&mut state, &mut Machine::new(ram)) {
        Ok(Control::Access(access)) => {
            assert!(access.is_decoded() && (1..=15).contains(&state.inst_len));
        }
        Ok(Control::Stored(groups)) => assert!(!groups.contains(Groups::DONE)),
        Ok(Control::Other(bytes)) => assert!(usize::from(bytes.len) <= bytes.bytes.len()),
        Err(fault) => assert!(fault.raise(&mut state).contains(Groups::EVENT)),
    }
}

/// The same with what an exit tells about the access to the device: it must change nothing.
fn hinted(mut state: VcpuState, ram: Vec<u8>, gpa: u64, expected: &VcpuState, end: End) {
    let mut machine = Machine::new(ram);
    let report = emulate::emulate(&mut state, &mut machine, Some(Hint { linear: gpa, gpa }));
    assert_eq!(report.end, end, "the hint changes the end");
    assert_eq!(state, *expected, "the hint changes the state");
}
