//! Integer arithmetic with the status flags it leaves (SDM 1 3.4.3.1).
//!
//! Operands and results are zero-extended values of `size` bytes (1, 2, 4, 8). Where the manual leaves a flag undefined, it
//! keeps its value or is cleared.

use crate::registers::{mask, sign_extend};

/// Carry flag.
pub const CF: u64 = 1 << 0;
/// Parity flag.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry flag.
pub const AF: u64 = 1 << 4;
/// Zero flag.
pub const ZF: u64 = 1 << 6;
/// Sign flag.
pub const SF: u64 = 1 << 7;
/// Direction flag.
pub const DF: u64 = 1 << 10;
/// Overflow flag.
pub const OF: u64 = 1 << 11;
/// All status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// Shifts and rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// SHL, SAL.
    Left,
    /// SHR.
    Right,
    /// SAR.
    Arithmetic,
    /// ROL.
    RotateLeft,
    /// ROR.
    RotateRight,
    /// RCL.
    CarryLeft,
    /// RCR.
    CarryRight,
}

const fn sign(size: u8) -> u64 {
    1 << (size as u32 * 8 - 1)
}

/// Replaces the bits of `which` in `flags` by those of `new`.
const fn put(flags: &mut u64, which: u64, new: u64) {
    *flags = *flags & !which | new & which;
}

const fn set(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// ZF, SF and PF of a result.
const fn result_flags(result: u64, size: u8) -> u64 {
    set(result & mask(size) == 0, ZF)
        | set(result & sign(size) != 0, SF)
        | set((result as u8).count_ones() & 1 == 0, PF)
}

/// ADD and, with `carry`, ADC.
#[must_use]
pub const fn add(a: u64, b: u64, carry: bool, size: u8, flags: &mut u64) -> u64 {
    let (a, b) = (a & mask(size), b & mask(size));
    let result = a.wrapping_add(b).wrapping_add(carry as u64) & mask(size);
    let carries = a & b | (a | b) & !result;
    let new = result_flags(result, size)
        | set(carries & sign(size) != 0, CF)
        | set((a ^ b ^ result) & 0x10 != 0, AF)
        | set((a ^ result) & (b ^ result) & sign(size) != 0, OF);
    put(flags, STATUS, new);
    result
}

/// SUB, CMP and, with `borrow`, SBB.
#[must_use]
pub const fn sub(a: u64, b: u64, borrow: bool, size: u8, flags: &mut u64) -> u64 {
    let (a, b) = (a & mask(size), b & mask(size));
    let result = a.wrapping_sub(b).wrapping_sub(borrow as u64) & mask(size);
    let borrows = !a & b | (!a | b) & result;
    let new = result_flags(result, size)
        | set(borrows & sign(size) != 0, CF)
        | set((a ^ b ^ result) & 0x10 != 0, AF)
        | set((a ^ b) & (a ^ result) & sign(size) != 0, OF);
    put(flags, STATUS, new);
    result
}

/// Flags of AND, OR, XOR and TEST for their result.
#[must_use]
pub const fn logic(result: u64, size: u8, flags: &mut u64) -> u64 {
    let result = result & mask(size);
    put(flags, STATUS & !AF, result_flags(result, size));
    result
}

/// INC: ADD 1 that keeps CF.
#[must_use]
pub const fn inc(a: u64, size: u8, flags: &mut u64) -> u64 {
    let carry = *flags & CF;
    let result = add(a, 1, false, size, flags);
    put(flags, CF, carry);
    result
}

/// DEC: SUB 1 that keeps CF.
#[must_use]
pub const fn dec(a: u64, size: u8, flags: &mut u64) -> u64 {
    let carry = *flags & CF;
    let result = sub(a, 1, false, size, flags);
    put(flags, CF, carry);
    result
}

/// Shifts and rotations by `count`; only its low five bits count, six for 64-bit operands. A masked
/// count of zero changes no flags.
#[must_use]
pub fn shift(kind: Shift, a: u64, count: u8, size: u8, flags: &mut u64) -> u64 {
    let bits = u32::from(size) * 8;
    let count = u32::from(count) & if size == 8 { 63 } else { 31 };
    let a = a & mask(size);
    if count == 0 {
        return a;
    }
    let top = |value: u64| value & sign(size) != 0;
    match kind {
        Shift::Left => {
            let result = (u128::from(a) << count) as u64 & mask(size);
            let carry = count <= bits && a >> (bits - count) & 1 != 0;
            let new = result_flags(result, size) | set(carry, CF);
            put(flags, STATUS & !AF, new | set(top(result) != carry, OF));
            result
        }
        Shift::Right | Shift::Arithmetic => {
            let signed = kind == Shift::Arithmetic;
            let wide = if signed { sign_extend(a, size) as i64 as i128 } else { i128::from(a) };
            let result = (wide >> count) as u64 & mask(size);
            let carry = wide >> (count - 1) & 1 != 0;
            let new = result_flags(result, size) | set(carry, CF);
            put(flags, STATUS & !AF, new | set(!signed && top(a), OF));
            result
        }
        Shift::RotateLeft => {
            let n = count % bits;
            let result = rotate_left(a, n, bits) & mask(size);
            let carry = result & 1 != 0;
            put(flags, CF | OF, set(carry, CF) | set(top(result) != carry, OF));
            result
        }
        Shift::RotateRight => {
            let n = count % bits;
            let result = rotate_left(a, (bits - n) % bits, bits) & mask(size);
            let second = result << 1 & sign(size) != 0;
            put(flags, CF | OF, set(top(result), CF) | set(top(result) != second, OF));
            result
        }
        Shift::CarryLeft | Shift::CarryRight => {
            // A rotation of size*8+1 bits with CF on top.
            let width = bits + 1;
            let n = count % width;
            let left = if kind == Shift::CarryLeft { n } else { (width - n) % width };
            let whole = u128::from(a) | u128::from(*flags & CF) << bits;
            let all = (1u128 << width) - 1;
            let turned = (whole << left | whole >> (width - left)) & all;
            let result = turned as u64 & mask(size);
            let carry = turned >> bits & 1 != 0;
            let overflow = match kind {
                Shift::CarryLeft => top(result) != carry,
                _ => top(result) != (result << 1 & sign(size) != 0),
            };
            put(flags, CF | OF, set(carry, CF) | set(overflow, OF));
            result
        }
    }
}

const fn rotate_left(a: u64, n: u32, bits: u32) -> u64 {
    if n == 0 { a } else { a << n | a >> (bits - n) }
}

/// Whether condition `code` (the low four bits of Jcc, SETcc and CMOVcc opcodes) holds.
#[must_use]
pub const fn condition(code: u8, flags: u64) -> bool {
    let less = (flags & SF != 0) != (flags & OF != 0);
    let holds = match code >> 1 & 7 {
        0 => flags & OF != 0,
        1 => flags & CF != 0,
        2 => flags & ZF != 0,
        3 => flags & (CF | ZF) != 0,
        4 => flags & SF != 0,
        5 => flags & PF != 0,
        6 => less,
        _ => less || flags & ZF != 0,
    };
    holds != (code & 1 != 0)
}
