//! The modes guests run in, and the tables they need.
//!
//! | address | what |
//! |---|---|
//! | 0x0000 | interrupt vector table of real mode |
//! | 0x1000 | code |
//! | 0x2000 | GDT |
//! | 0x3000 | IDT |
//! | 0x5000 | entry `n` of all tables leads to 0x5000 + 16 * n: HLT, then IRET |
//! | 0x6000 | stack |
//! | 0x9000 | data |
//! | 0x10000 | page tables of long mode: the first 512 MiB are mapped as they are |
//!
//! So the delivery of an event shows as HLT at an address that tells its vector.

use alloc::string::String;

use abi::vcpu::{Segment, TableRegister, VcpuState, Window};
use runtime::memory::GuestMemory;

use super::vm::{CODE, STACK};

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit real mode.
    Real,
    /// 32-bit protected mode without paging.
    Protected,
    /// 64-bit mode.
    Long,
}

/// All modes.
pub const ALL: [Mode; 3] = [Mode::Real, Mode::Protected, Mode::Long];

/// Selector of the code segment, except in real mode.
pub const CODE_SELECTOR: u16 = 8;
/// Selector of the data segments, except in real mode.
pub const DATA_SELECTOR: u16 = 16;
/// Selector of a second task's state segment in protected mode.
pub const TASK_SELECTOR: u16 = 32;

const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const STUBS: u64 = 0x5000;
/// Root of the page tables of long mode.
pub const TABLES: u64 = 0x1_0000;

/// Where the guest is when it has entered the handler of `vector`.
pub const fn stub(vector: u8) -> u64 {
    STUBS + 16 * vector as u64
}

/// Whether the processor pushes an error code for the exception.
const fn has_error(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// Writes the tables of a mode.
pub fn prepare(memory: GuestMemory, mode: Mode) -> Result<(), String> {
    let outside = |_| String::from("outside of guest memory");
    memory.fill(0, 0xf000, 0).map_err(outside)?;
    for vector in 0..=255_u8 {
        let code: &[u8] = match mode {
            Mode::Real => &[0xf4, 0xcf],
            // ADD ESP, 4 before IRET where there is an error code.
            Mode::Protected if has_error(vector) => &[0xf4, 0x83, 0xc4, 4, 0xcf],
            Mode::Protected => &[0xf4, 0xcf],
            Mode::Long if has_error(vector) => &[0xf4, 0x48, 0x83, 0xc4, 8, 0x48, 0xcf],
            Mode::Long => &[0xf4, 0x48, 0xcf],
        };
        memory.write(stub(vector), code).map_err(outside)?;
        // A gate's low and high half (SDM 3A 6.11, 6.14.1): present interrupt gates.
        let low = stub(vector) & 0xffff
            | u64::from(CODE_SELECTOR) << 16
            | 0x8e00 << 32
            | (stub(vector) >> 16) << 48;
        match mode {
            Mode::Real => memory.store_u32(4 * u64::from(vector), stub(vector) as u32),
            Mode::Protected => memory.store_u64(IDT + 8 * u64::from(vector), low),
            Mode::Long => memory.store_u64(IDT + 16 * u64::from(vector), low),
        }
        .map_err(outside)?;
    }
    let code = if mode == Mode::Long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    // Available 32-bit TSS, base 0x4000.
    let task = 0x0000_8900_4000_0067_u64;
    for (index, entry) in [0, code, 0x00cf_9300_0000_ffff, 0, task].into_iter().enumerate() {
        memory.store_u64(GDT + 8 * index as u64, entry).map_err(outside)?;
    }
    if mode == Mode::Long {
        memory.fill(TABLES, 0x3000, 0).map_err(outside)?;
        memory.store_u64(TABLES, TABLES + 0x1003).map_err(outside)?;
        memory.store_u64(TABLES + 0x1000, TABLES + 0x2003).map_err(outside)?;
        for index in 0..256 {
            // Present, writable, large.
            memory.store_u64(TABLES + 0x2000 + 8 * index, index << 21 | 0x83).map_err(outside)?;
        }
    }
    Ok(())
}

/// The state of a virtual CPU in a mode, about to run what is at [`CODE`].
pub fn state(mode: Mode) -> VcpuState {
    let mut state = VcpuState::default();
    // Everything that does not depend on the mode.
    let _ = runtime::vcpu::real_mode_state(&mut state, CODE as u16);
    state.gpr.rsp = STACK;
    state.window = Window(0);
    if mode == Mode::Real {
        return state;
    }
    let flat = Segment { selector: DATA_SELECTOR, attr: 0xc93, limit: u32::MAX, base: 0 };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (flat, flat, flat, flat, flat);
    state.cs = Segment { selector: CODE_SELECTOR, attr: 0xc9b, ..flat };
    state.tr = Segment { selector: 24, attr: 0x8b, limit: 0x67, base: 0x4800 };
    state.ldtr = Segment { selector: 0, attr: Segment::UNUSABLE, limit: 0, base: 0 };
    state.gdtr = TableRegister { base: GDT, limit: 39 };
    state.idtr = TableRegister { base: IDT, limit: 256 * 8 - 1 };
    // PE, ET, NE.
    state.cr0 = 0x31;
    if mode == Mode::Long {
        state.cs.attr = 0xa9b;
        state.idtr.limit = 256 * 16 - 1;
        state.cr0 |= 1 << 31;
        // PAE; OSFXSR.
        state.cr4 = 1 << 5 | 1 << 9;
        state.cr3 = TABLES;
        // LME, LMA.
        state.efer = 0x500;
    }
    state
}
