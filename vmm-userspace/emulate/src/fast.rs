//! A decoder for the MOV forms that drivers use on device registers.
//!
//! Opcodes 88, 89, 8A, 8B, C6, C7, 0F B6, 0F B7 and A0 to A3 with a memory operand. The exit has already told
//! the address of the access, so nothing is translated here. Whatever is not recognized goes to
//! the full decoder, and a property test holds both to the same results.

use abi::vcpu::{Groups, VcpuState};

use crate::{
    Hint,
    bus::Bus,
    fault::{End, Report},
    registers::{self, Part, mask, sign_extend},
};

/// A recognized MOV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mov {
    /// Length of the instruction in bytes.
    pub len: u8,
    /// Bytes of memory accessed: 1, 2, 4 or 8.
    pub size: u8,
    /// What moves.
    pub kind: Kind,
}

/// What a [`Mov`] moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A register part to memory.
    Store(Part),
    /// A constant to memory.
    StoreImmediate(u64),
    /// Memory, zero-extended, to a register part.
    Load(Part),
}

/// The bytes of an instruction, read from front to back.
struct Reader<'a> {
    bytes: &'a [u8; 16],
    at: usize,
}

impl Reader<'_> {
    #[inline(always)]
    fn next(&mut self) -> u8 {
        let byte = self.bytes[self.at & 15];
        self.at += 1;
        byte
    }

    #[inline(always)]
    fn immediate(&mut self, size: u8) -> u64 {
        let mut value = 0;
        let mut shift = 0;
        while shift < u32::from(size) * 8 {
            value |= u64::from(self.next()) << shift;
            shift += 8;
        }
        value
    }
}

/// Decodes `bytes` as code of `bits` (16, 32 or 64). `None` if it is not one of the forms above. The caller checks that
/// the length does not exceed what was fetched.
#[inline]
#[must_use]
pub fn decode(bytes: &[u8; 16], bits: u32) -> Option<Mov> {
    let mut code = Reader { bytes, at: 0 };
    let mut rex = 0;
    let mut operand_override = false;
    let mut address_override = false;
    let mut opcode = code.next();
    loop {
        match opcode {
            0x66 => operand_override = true,
            0x67 => address_override = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            0x40..=0x4f if bits == 64 => {
                // Only the REX prefix right before the opcode counts; anything else is rare enough.
                rex = opcode;
                opcode = code.next();
                break;
            }
            _ => break,
        }
        if code.at > 4 {
            return None;
        }
        opcode = code.next();
    }
    let operand = match (rex & 8 != 0, operand_override, bits) {
        (true, ..) => 8,
        (_, true, 16) | (_, false, 32 | 64) => 4,
        _ => 2,
    };
    let address = match (bits, address_override) {
        (64, false) => 8,
        (64, true) | (32, false) | (16, true) => 4,
        _ => 2,
    };
    let accumulator = |size| Part { index: 0, size, high: false };
    let (size, kind) = match opcode {
        0x88..=0x8b => {
            let reg = modrm(&mut code, address, rex)?;
            let size = if opcode & 1 == 0 { 1 } else { operand };
            let part = register(reg, size, rex);
            (size, if opcode & 2 == 0 { Kind::Store(part) } else { Kind::Load(part) })
        }
        0xa0..=0xa3 => {
            code.at += usize::from(address);
            let size = if opcode & 1 == 0 { 1 } else { operand };
            let part = accumulator(size);
            (size, if opcode & 2 == 0 { Kind::Load(part) } else { Kind::Store(part) })
        }
        0xc6 | 0xc7 => {
            if modrm(&mut code, address, rex)? & 7 != 0 {
                return None;
            }
            let size = if opcode == 0xc6 { 1 } else { operand };
            let value = code.immediate(size.min(4));
            let value = if size == 8 { sign_extend(value, 4) } else { value };
            (size, Kind::StoreImmediate(value))
        }
        0x0f => {
            let size = match code.next() {
                0xb6 => 1,
                0xb7 => 2,
                _ => return None,
            };
            let reg = modrm(&mut code, address, rex)?;
            (size, Kind::Load(Part { index: reg, size: operand, high: false }))
        }
        _ => return None,
    };
    if code.at > 15 {
        return None;
    }
    Some(Mov { len: code.at as u8, size, kind })
}

/// Skips a ModR/M byte with its SIB byte and displacement. Returns the register field with REX.R, or `None` for a
/// register operand.
#[inline(always)]
fn modrm(code: &mut Reader<'_>, address: u8, rex: u8) -> Option<u8> {
    let byte = code.next();
    let (mode, rm) = (byte >> 6, byte & 7);
    if mode == 3 {
        return None;
    }
    if address == 2 {
        code.at += match (mode, rm) {
            (0, 6) | (2, _) => 2,
            (1, _) => 1,
            _ => 0,
        };
    } else {
        let base = if rm == 4 { code.next() & 7 } else { rm };
        code.at += match (mode, base) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
    }
    Some(byte >> 3 & 7 | (rex & 4) << 1)
}

/// The register part that a register field names (SDM 2A table 2-2 and 2.2.1.2).
#[inline(always)]
const fn register(reg: u8, size: u8, rex: u8) -> Part {
    if size == 1 && rex == 0 && reg >= 4 {
        return Part { index: reg - 4, size: 1, high: true };
    }
    Part { index: reg, size, high: false }
}

/// Carries out a MOV at the address the exit told. `None` if that address may not be where
/// the operand starts: the processor reports the start of the second page for an operand that crosses into it.
#[inline]
pub fn execute(mov: &Mov, state: &mut VcpuState, bus: &mut impl Bus, hint: Hint) -> Option<Report> {
    let offset = hint.linear & 0xfff;
    if mov.size > 1 && (offset == 0 || offset + u64::from(mov.size) > 0x1000) {
        return None;
    }
    state.inst_len = u64::from(mov.len);
    let groups = match mov.kind {
        Kind::Store(part) => {
            bus.write(hint.gpa, mov.size, registers::read(state, part));
            Groups::NONE
        }
        Kind::StoreImmediate(value) => {
            bus.write(hint.gpa, mov.size, value);
            Groups::NONE
        }
        Kind::Load(part) => {
            let value = bus.read(hint.gpa, mov.size) & mask(mov.size);
            registers::write(state, part, value)
        }
    };
    Some(Report { groups, end: End::Done })
}
