//! General-purpose registers by the decoder's names.

use abi::vcpu::{Groups, VcpuState};
use iced_x86::Register;

/// A part of a general-purpose register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the whole register.
    pub index: u8,
    /// Bytes.
    pub size: u8,
    /// Bits 8-15: AH, CH, DH, BH.
    pub high: bool,
}

/// Where `register` lies, if it is a general-purpose register.
pub fn part(register: Register) -> Option<Part> {
    let n = register as u32;
    let base = |first: Register| (n - first as u32) as u8;
    let within = |first: Register, last: Register| (first as u32..=last as u32).contains(&n);
    let (index, size, high) = if within(Register::AL, Register::BL) {
        (base(Register::AL), 1, false)
    } else if within(Register::AH, Register::BH) {
        (base(Register::AH), 1, true)
    } else if within(Register::SPL, Register::R15L) {
        (base(Register::SPL) + 4, 1, false)
    } else if within(Register::AX, Register::R15W) {
        (base(Register::AX), 2, false)
    } else if within(Register::EAX, Register::R15D) {
        (base(Register::EAX), 4, false)
    } else if within(Register::RAX, Register::R15) {
        (base(Register::RAX), 8, false)
    } else {
        return None;
    };
    Some(Part { index, size, high })
}

/// Value of a register part, zero-extended.
#[inline]
pub fn read(state: &VcpuState, part: Part) -> u64 {
    let whole = value(state, part.index);
    if part.high { whole >> 8 & 0xff } else { whole & mask(part.size) }
}

/// Writes a register part; 32-bit writes clear the upper half (SDM 1 3.4.1.1). Returns the group it is in.
#[inline]
pub fn write(state: &mut VcpuState, part: Part, value: u64) -> Groups {
    let whole = state.gpr.reg_mut(part.index);
    *whole = match (part.size, part.high) {
        (1, true) => *whole & !0xff00 | (value & 0xff) << 8,
        (1, false) => *whole & !0xff | value & 0xff,
        (2, _) => *whole & !0xffff | value & 0xffff,
        (4, _) => value & 0xffff_ffff,
        _ => value,
    };
    group(part.index)
}

/// The whole register with that number.
#[inline]
pub const fn value(state: &VcpuState, index: u8) -> u64 {
    let g = &state.gpr;
    match index & 15 {
        0 => g.rax,
        1 => g.rcx,
        2 => g.rdx,
        3 => g.rbx,
        4 => g.rsp,
        5 => g.rbp,
        6 => g.rsi,
        7 => g.rdi,
        8 => g.r8,
        9 => g.r9,
        10 => g.r10,
        11 => g.r11,
        12 => g.r12,
        13 => g.r13,
        14 => g.r14,
        _ => g.r15,
    }
}

/// The group of the state image that holds a register.
#[inline]
pub const fn group(index: u8) -> Groups {
    match index & 15 {
        0..=3 => Groups::ACDB,
        4 => Groups::RSP,
        5..=7 => Groups::BSD,
        _ => Groups::R8_R15,
    }
}

/// All ones in `size` bytes.
#[inline]
pub const fn mask(size: u8) -> u64 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Sign-extends a value of `size` bytes.
#[inline]
pub const fn sign_extend(value: u64, size: u8) -> u64 {
    match size {
        1 => value as i8 as u64,
        2 => value as i16 as u64,
        4 => value as i32 as u64,
        _ => value,
    }
}
