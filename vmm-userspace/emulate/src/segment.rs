//! Logical to linear addresses with the checks of SDM 3A 5.3 to 5.5.

use abi::vcpu::{Segment, VcpuState};
use iced_x86::Register;

use crate::{fault::Fault, mode::Mode, paging::Access};

/// The hidden part of a segment register.
const fn hidden(state: &VcpuState, register: Register) -> Segment {
    match register {
        Register::CS => state.cs,
        Register::SS => state.ss,
        Register::ES => state.es,
        Register::FS => state.fs,
        Register::GS => state.gs,
        _ => state.ds,
    }
}

/// The linear address of `size` bytes at `offset` in a segment.
///
/// # Errors
/// #SS(0) for the stack segment, else #GP(0): a limit, a type, or a form that is not canonical.
pub fn linear(
    state: &VcpuState,
    mode: Mode,
    register: Register,
    offset: u64,
    size: u64,
    access: Access,
) -> Result<u64, Fault> {
    let segment = hidden(state, register);
    let fault = match register {
        Register::SS => Fault::Stack(0),
        _ => Fault::General(0),
    };
    if mode == Mode::Long {
        let base = match register {
            Register::FS | Register::GS => segment.base,
            _ => 0,
        };
        let address = base.wrapping_add(offset);
        let last = address.wrapping_add(size.wrapping_sub(1));
        return if canonical(address) && canonical(last) { Ok(address) } else { Err(fault) };
    }
    if mode != Mode::Real && !usable(segment, access) {
        return Err(fault);
    }
    let offset = offset & 0xffff_ffff;
    if !within_limit(segment, mode, offset, size) {
        return Err(fault);
    }
    Ok(segment.base.wrapping_add(offset) & 0xffff_ffff)
}

/// Whether all bits above bit 47 equal it (SDM 1 3.3.7.1).
pub const fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// Whether the segment's type allows the access (SDM 3A 5.5).
const fn usable(segment: Segment, access: Access) -> bool {
    if segment.attr & Segment::UNUSABLE != 0 || segment.attr & 0x80 == 0 {
        return false;
    }
    let code = segment.attr & 8 != 0;
    let second = segment.attr & 2 != 0;
    match access {
        Access::Read => !code || second,
        Access::Write => !code && second,
        Access::Fetch => code,
    }
}

const fn within_limit(segment: Segment, mode: Mode, offset: u64, size: u64) -> bool {
    let last = offset + (size - 1);
    let limit = segment.limit as u64;
    let expand_down = !matches!(mode, Mode::Real) && segment.attr & 0b1100 == 0b0100;
    if expand_down {
        let top = if segment.attr & 1 << 10 != 0 { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}
