//! What EXITINFO1 and EXITINFO2 tell, as the qualification of the neutral exit.

use super::exits::code;
use abi::vcpu::{ControlAccess, Event, MemoryAccess, PortAccess};

const fn bit(value: u64, bit: u32) -> u64 {
    value >> bit & 1
}

/// The [`PortAccess`] of [`code::IOIO`] (APM 2 15.10.2). The linear address of a string access is not
/// told.
#[inline(always)]
pub const fn port_access(info1: u64) -> PortAccess {
    // One of SZ8, SZ16, SZ32 is set: as a number, the size in bytes.
    let size = (info1 >> 4 & 7).saturating_sub(1);
    // TYPE is bit 0; STR and REP are bits 2 and 3.
    PortAccess(size | bit(info1, 0) << 3 | (info1 & 0b1100) << 2 | info1 & 0xffff_0000)
}

/// Length in bytes of the I/O instruction at `rip`: EXITINFO2 is the address behind it (APM 2
/// 15.10.2), whichever way that wraps.
#[inline(always)]
pub const fn port_length(rip: u64, info2: u64) -> u64 {
    info2.wrapping_sub(rip) & 0xf
}

/// The [`MemoryAccess`] of [`code::NPF`] (APM 2 15.25.6). There is never a linear address.
#[inline(always)]
pub const fn memory_access(info1: u64) -> MemoryAccess {
    const WRITE: u32 = 1;
    const FETCH: u32 = 4;
    const FINAL: u32 = 32;
    let access = match (bit(info1, WRITE), bit(info1, FETCH)) {
        (1, _) => MemoryAccess::WRITE,
        (_, 1) => MemoryAccess::FETCH,
        _ => MemoryAccess::READ,
    };
    MemoryAccess(access | if bit(info1, FINAL) != 0 { MemoryAccess::FINAL } else { 0 })
}

/// The [`ControlAccess`] of a read or write of a control register. `decode_assists` is
/// [`super::Controls::decode_assists`]: only then EXITINFO1 means anything, and only of MOV, not of
/// CLTS, LMSW and SMSW (APM 2 15.8.1).
pub const fn control_access(code: u64, info1: u64, decode_assists: bool) -> ControlAccess {
    let access = match code {
        code::CR0_SEL_WRITE => 0,
        _ => code & 0xf | ((code < code::WRITE_CR0) as u64) << 4,
    };
    if decode_assists && bit(info1, 63) != 0 {
        ControlAccess(access | ControlAccess::DECODED | (info1 & 0xf) << 8)
    } else {
        ControlAccess(access)
    }
}

/// `qual[0]` of a read or write of a debug register: bits 0-2 = register, 4 = MOV from, and with
/// `decode_assists` bit 7 and in bits 8-11 the general register.
pub const fn debug_access(code: u64, info1: u64, decode_assists: bool) -> u64 {
    let access = code & 7 | ((code < code::WRITE_DR0) as u64) << 4;
    if decode_assists { access | ControlAccess::DECODED | (info1 & 0xf) << 8 } else { access }
}

/// `qual[0]` of [`code::TASK_SWITCH`] (APM 2 15.14.1). `int_info` is EXITINTINFO: a task gate in the
/// IDT is only met while an event is being delivered.
pub const fn task_switch(info1: u64, info2: u64, int_info: u64) -> u64 {
    const IRET: u32 = 36;
    const JMP: u32 = 38;
    let source = match (bit(info2, IRET), bit(info2, JMP), bit(int_info, 31)) {
        (1, ..) => 1,
        (_, 1, _) => 2,
        (.., 1) => 3,
        _ => 0,
    };
    info1 & 0xffff | source << 30
}

/// The exception of an exit from [`code::EXCEPTION_0`] on (APM 2 15.12), ready to be passed on.
/// `protected` is the guest's CR0.PE: in real mode no exception has an error code.
pub const fn exception(code: u64, info1: u64, protected: bool) -> Event {
    /// #DF, whose error code is always 0 and is not told.
    const ZERO: u32 = 1 << 8;
    /// #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX (APM 2 table 8-1).
    const TOLD: u32 = 0b11111 << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;
    let vector = code as u8 & 31;
    let error = match (protected, ZERO >> vector & 1, TOLD >> vector & 1) {
        (true, 1, _) => Some(0),
        (true, _, 1) => Some(info1 as u32),
        _ => None,
    };
    Event::exception(vector, error)
}
