//! The modes that hostile guests run in, and the tables that they start with.
//!
//! | address | what |
//! |---|---|
//! | 0x0000 | interrupt vector table of real mode; HLT behind it |
//! | 0x1000 | code |
//! | 0x2000 | GDT |
//! | 0x3000 | IDT |
//! | 0x4800 | task state |
//! | 0x5000 | where entry `n` of all tables leads to, 16 bytes each: HLT |
//! | 0x6000 | stack |
//! | 0x8000 | HLT: what lies above the stack, and where an IDT leads to that is taken for a table of real mode |
//! | 0x9000 | operands in memory |
//! | 0xe000 | HLT |
//!
//! The guest cannot write the pages of [`READ_ONLY`]: wherever interrupts go off by an event, the next instruction is a HLT.
//!
//! | address | what |
//! |---|---|
//! | 0x10000 | page tables of long mode, which map the first 8 MiB as they are, the first 2 MiB in small pages |
//! | 0x14000 | page-directory pointers of PAE paging, on top of the same |

use alloc::vec;
use alloc::vec::Vec;

use abi::vcpu::{Segment, TableRegister, VcpuState, Window};

use super::operation::{CODE, OPERANDS};

/// A mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit real mode.
    #[default]
    Real,
    /// 32-bit protected mode without paging.
    Protected,
    /// 32-bit protected mode with PAE paging.
    Paged,
    /// 32-bit code in long mode.
    Compatibility,
    /// 64-bit mode.
    Long,
}

/// All of them.
pub const ALL: [Mode; 5] =
    [Mode::Real, Mode::Protected, Mode::Paged, Mode::Compatibility, Mode::Long];

/// Selectors of a ring-0 code segment: that of the interrupt handlers, and 32-bit code in every mode.
pub const HANDLER_CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const USER_DATA: u16 = 0x23;
const CODE_32: u16 = 0x28;
const USER_CODE_64: u16 = 0x33;

const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const TASK: u64 = 0x4800;
/// Where events lead to.
pub const STUBS: u64 = 0x5000;
const STACK: u64 = 0x8000;
/// HLT only, apart from the tables of real mode.
pub const HALTS: [u64; 2] = [STACK, 0xe000];
/// The pages that the guest cannot write.
pub const READ_ONLY: [u64; 6] = [0, GDT, IDT, STUBS, STACK, 0xe000];
/// Root of the page tables of long mode.
pub const TABLES: u64 = 0x1_0000;
/// Root of those of PAE paging.
pub const DIRECTORY_POINTERS: u64 = 0x1_4000;
/// Bytes of all page tables.
pub const TABLES_SIZE: usize = 0x5000;

impl Mode {
    /// Bits of code: 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Real => 16,
            Self::Long => 64,
            _ => 32,
        }
    }

    /// Whether gates and descriptors are those of long mode.
    const fn is_long(self) -> bool {
        matches!(self, Self::Compatibility | Self::Long)
    }
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(to) = bytes.get_mut(at..at + 8) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// What lies from the GDT to the end of the handlers.
#[must_use]
pub fn descriptors(mode: Mode) -> Vec<u8> {
    let mut bytes = vec![0; 0x4000];
    let handler = if mode.is_long() { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let entries = [
        0,
        handler,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00cf_9b00_0000_ffff,
        0x00af_fb00_0000_ffff,
        // Available task state, a local descriptor table over the operands; their high halves in long mode.
        0x0000_8900_0000_0067 | TASK << 16,
        0,
        0x0000_8200_0000_007f | OPERANDS << 16,
        0,
    ];
    for (index, entry) in entries.into_iter().enumerate() {
        put(&mut bytes, 8 * index, entry);
    }
    let (idt, size) = ((IDT - GDT) as usize, if mode.is_long() { 16 } else { 8 });
    for vector in 0..256 {
        // Trap gates, which leave interrupts on; from 80h on user mode may use them, and #BP.
        let attributes = if vector >= 0x80 || vector == 3 { 0xef00 } else { 0x8f00_u64 };
        let target = STUBS + 16 * vector as u64;
        let gate = target | u64::from(HANDLER_CODE) << 16 | attributes << 32;
        put(&mut bytes, idt + size * vector, gate);
    }
    let task = (TASK - GDT) as usize;
    // The stack of ring 0: an address, or an offset and SS behind it.
    put(&mut bytes, task + 4, if mode.is_long() { STACK } else { STACK | u64::from(DATA) << 32 });
    if let Some(stubs) = bytes.get_mut((STUBS - GDT) as usize..) {
        stubs.fill(HLT);
    }
    bytes
}

/// HLT.
pub const HLT: u8 = 0xf4;

/// The interrupt vector table of real mode.
#[must_use]
pub fn vectors() -> Vec<u8> {
    let mut bytes = vec![HLT; 0x1000];
    for (vector, entry) in bytes.chunks_exact_mut(4).take(256).enumerate() {
        entry.copy_from_slice(&(STUBS as u32 + 16 * vector as u32).to_le_bytes());
    }
    bytes
}

/// All page tables. Whatever is mapped user mode may use.
#[must_use]
pub fn tables() -> Vec<u8> {
    const TABLE: u64 = 0x7;
    const LARGE: u64 = 0x87;
    let mut bytes = vec![0; TABLES_SIZE];
    put(&mut bytes, 0, (TABLES + 0x1000) | TABLE);
    put(&mut bytes, 0x1000, (TABLES + 0x2000) | TABLE);
    put(&mut bytes, 0x2000, (TABLES + 0x3000) | TABLE);
    for index in 1..4 {
        put(&mut bytes, 0x2000 + 8 * index, (index as u64) << 21 | LARGE);
    }
    for index in 0..512 {
        put(&mut bytes, 0x3000 + 8 * index, (index as u64) << 12 | TABLE);
    }
    put(&mut bytes, 0x4000, pointer());
    bytes
}

/// The first page-directory pointer of PAE paging.
const fn pointer() -> u64 {
    (TABLES + 0x2000) | 1
}

/// The state of a virtual CPU in a mode, in ring 0 or ring 3.
#[must_use]
pub fn state(mode: Mode, user: bool) -> VcpuState {
    let mut state = VcpuState::default();
    let _ = runtime::vcpu::real_mode_state(&mut state, CODE as u16);
    state.gpr.rsp = STACK;
    state.window = Window(0);
    // From beyond the guest's memory on: devices.
    let devices = Segment { base: super::operation::DEVICES, ..state.fs };
    if mode == Mode::Real {
        (state.fs, state.gs) = (devices, devices);
        return state;
    }
    let (data, privilege) = if user { (USER_DATA, 0x60) } else { (DATA, 0) };
    let code = match (mode, user) {
        (Mode::Long, true) => USER_CODE_64,
        (_, true) => USER_CODE,
        (Mode::Compatibility, false) => CODE_32,
        (_, false) => HANDLER_CODE,
    };
    let flat = Segment { selector: data, attr: 0xc93 | privilege, limit: u32::MAX, base: 0 };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (flat, flat, flat, flat, flat);
    let size = if mode == Mode::Long { 0xa9b } else { 0xc9b };
    state.cs = Segment { selector: code, attr: size | privilege, ..flat };
    state.tr = Segment { selector: 0x38, attr: 0x8b, limit: 0x67, base: TASK };
    state.ldtr = Segment { selector: 0, attr: Segment::UNUSABLE, limit: 0, base: 0 };
    state.gdtr = TableRegister { base: GDT, limit: 11 * 8 - 1 };
    state.idtr = TableRegister { base: IDT, limit: if mode.is_long() { 0xfff } else { 0x7ff } };
    // PE, ET, NE.
    state.cr0 = 0x31;
    if mode != Mode::Protected {
        state.cr0 |= 1 << 31;
        // PAE; OSFXSR.
        state.cr4 = 1 << 5 | 1 << 9;
        state.cr3 = DIRECTORY_POINTERS;
        state.pdpte[0] = pointer();
    }
    if mode.is_long() {
        state.cr3 = TABLES;
        state.pdpte = [0; 4];
        // LME, LMA, SCE.
        state.efer = 0x501;
    }
    state
}
