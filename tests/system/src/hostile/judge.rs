//! Whether an exit is one that `abi` explains.

use alloc::format;
use alloc::string::String;

use abi::vcpu::{ControlAccess, Event, EventKind, Exit, MemoryAccess, PortAccess, VcpuState};
use emulate::mode;
use emulate::paging::{self, Access};
use runtime::memory::GuestMemory;

use super::decode::{DUE_TO_INSTRUCTIONS, Reasons, decode};
use super::mode::READ_ONLY;
use super::operation::DEVICES;
use crate::processor::is_tcg;
use crate::report::Check;
use crate::{check, check_eq};

/// What the monitor asked for, which no guest can change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Like the others, as in the state image.
    pub exceptions: u32,
    /// What else exits.
    pub intercepts: u32,
    /// Of CR0.
    pub cr0_mask: u64,
    /// Of CR4.
    pub cr4_mask: u64,
    /// Offset of the guest's time-stamp counter.
    pub tsc_offset: u64,
    /// The deadline.
    pub deadline: u64,
    /// The first of those that were set since the last recall: it may have passed while the monitor set the next.
    pub first_deadline: u64,
}

/// What was found out about an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bits of code at the exit.
    pub bits: u32,
    /// Whether the instruction at RIP could be read, and explains the exit.
    pub explained: bool,
}

/// Guest memory, for walks through page tables. Nothing is written: the processor has set what it sets.
pub struct Memory(pub GuestMemory);

impl emulate::Bus for Memory {
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        let mut bytes = [0xff; 8];
        if let Some(part) = bytes.get_mut(..size.into()) {
            // What is not there reads as ones.
            let _ = self.0.read(gpa, part);
        }
        u64::from_le_bytes(bytes)
    }
    fn write(&mut self, _: u64, _: u8, _: u64) {}
    fn port_read(&mut self, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32) {}
    fn physical_bits(&self) -> u32 {
        52
    }
}

/// Bit of a segment's attributes: 64-bit code.
const LONG: u16 = 1 << 9;

/// Bits of the code at RIP. What CS says counts in real mode as well, until CS is loaded.
const fn bits(state: &VcpuState) -> u32 {
    const DEFAULT: u16 = 1 << 10;
    if state.efer & mode::EFER_LMA != 0 && state.cs.attr & LONG != 0 {
        64
    } else if state.cs.attr & DEFAULT != 0 && state.rflags & mode::RFLAGS_VM == 0 {
        32
    } else {
        16
    }
}

/// Guest-physical address of RIP, if it is mapped.
fn address(memory: GuestMemory, state: &VcpuState) -> Option<u64> {
    let linear = match bits(state) {
        64 => state.rip,
        _ => state.cs.base.wrapping_add(state.rip) & 0xffff_ffff,
    };
    // Of the privilege level of the system: the guest has executed what is there.
    paging::translate(state, &mut Memory(memory), linear, Access::Read, 0).ok()
}

/// Judges an exit. What is wrong with it is the error.
pub fn judge(
    memory: GuestMemory,
    exit: Exit,
    state: &VcpuState,
    settings: &Settings,
    last: &VcpuState,
) -> Result<Found, String> {
    if exit == Exit::BadState {
        // The monitor gives none: QEMU lets the guest write what it then refuses to enter with, where processors raise #GP. What
        // the state is it does not tell then.
        check!(is_tcg(), "{:x?}", state.qual);
        return Ok(Found { bits: 0, explained: is_refused_by_qemu(last) });
    }
    kept(state, settings)?;
    let bits = bits(state);
    let mut found = Found { bits, explained: false };
    if DUE_TO_INSTRUCTIONS >> exit as u32 & 1 != 0 {
        found.explained = match code(memory, state) {
            Some(bytes) => {
                let reasons = decode(&bytes, bits);
                if !reasons.include(exit) {
                    return Ok(found);
                }
                instruction(exit, state, &reasons).map_err(|why| format!("{why}: {bytes:02x?}"))?;
                true
            }
            None => false,
        };
        return Ok(found);
    }
    match exit {
        Exit::Memory => device(state)?,
        Exit::Exception => exception(state, settings)?,
        Exit::TripleFault => {
            // An exception that exits is no step to a triple fault; machine checks cannot be asked for.
            check!(settings.exceptions | 1 << 18 != u32::MAX, "no exception reaches the guest");
        }
        Exit::Recall => {
            let now = runtime::clock::now();
            check!(now >= settings.first_deadline, "before its time");
            // It is used up, unless there is a later one.
            let left = [u64::MAX, settings.deadline];
            check!(left.contains(&state.deadline), "deadline {:#x}", state.deadline);
        }
        Exit::TaskSwitch => {}
        _ => return Err("not one that this guest can cause".into()),
    }
    found.explained = true;
    Ok(found)
}

/// Whether QEMU (7.2) enters no guest like this (APM 2 15.5.1), though it has let one become like this.
const fn is_refused_by_qemu(state: &VcpuState) -> bool {
    const NOT_WRITE_THROUGH: u64 = 1 << 29;
    const CACHE_DISABLE: u64 = 1 << 30;
    /// What QEMU's `max` has no feature for, or no processor has.
    const CR4_RESERVED: u64 = !0x77_1fff;
    state.cr0 & (NOT_WRITE_THROUGH | CACHE_DISABLE) == NOT_WRITE_THROUGH
        || state.cr4 & CR4_RESERVED != 0
}

/// The bytes at RIP.
fn code(memory: GuestMemory, state: &VcpuState) -> Option<[u8; 15]> {
    let at = address(memory, state)?;
    let mut bytes = [0; 15];
    memory.read(at, &mut bytes).ok()?;
    Some(bytes)
}

/// What belongs to the monitor is as it has set it, and what the guest sees is possible.
fn kept(state: &VcpuState, settings: &Settings) -> Check {
    // Machine checks are the kernel's.
    check_eq!(state.exceptions, settings.exceptions & !(1 << 18), "exceptions that exit");
    check_eq!(state.intercepts, settings.intercepts, "intercepts");
    check_eq!(
        (state.cr0_mask, state.cr4_mask),
        (settings.cr0_mask, settings.cr4_mask),
        "masks of CR0 and CR4"
    );
    check_eq!(state.tsc_offset, settings.tsc_offset, "TSC offset");
    check_eq!(state.window.0, 0, "windows");
    check_eq!(state.xss, 0, "IA32_XSS");
    // QEMU lets SYSRET and IRET set reserved bits.
    let flags = state.rflags & 0xffff_ffff_ffc0_802a;
    check!(flags == 2 || is_tcg() && flags & 2 != 0, "RFLAGS {:#x}", state.rflags);
    check!(state.inst_len <= 15, "an instruction of {} bytes", state.inst_len);
    check!(state.xcr0 & 1 == 1, "XCR0 {:#x}", state.xcr0);
    check!(state.event.info & !(1 << 31 | 0xfff) == 0, "event {:#x}", state.event.info);
    Ok(())
}

/// An exit due to the instruction at RIP.
fn instruction(exit: Exit, state: &VcpuState, reasons: &Reasons) -> Check {
    let qual = state.qual[0];
    match exit {
        Exit::Port => {
            let access = PortAccess(qual);
            let told = (access.size(), access.is_in(), access.is_string(), access.is_rep());
            // Whether it repeats means nothing but with a string.
            let told = (told.0, told.1, told.2, told.2 && told.3);
            // QEMU lets 64-bit code turn paging off, where processors raise #GP, and goes on with 32 bits.
            let odd = is_tcg() && state.cs.attr & LONG != 0 && state.efer & mode::EFER_LMA == 0;
            check!(
                odd || reasons.port.is_none_or(|port| port == told),
                "size, direction, string and repetition {told:?}, not {:?}",
                reasons.port
            );
            let port = reasons.immediate.map_or(state.gpr.rdx as u16, u16::from);
            check_eq!(access.port(), port, "port");
            check!(state.inst_len != 0, "no length");
        }
        Exit::Control | Exit::Debug => {
            let access = ControlAccess(qual);
            let Some((number, kind)) = reasons.register else { return Ok(()) };
            // DR4 and DR5 are DR6 and DR7.
            let alias = exit == Exit::Debug && number | 2 == access.register();
            check!(alias || access.register() == number, "register in {qual:#x} is not {number}");
            let kinds = access.kind() == kind;
            // Without its decoding, an access is a read or a write.
            check!(
                kinds || !access.is_decoded() && access.kind() == u8::from(kind == 1),
                "kind in {qual:#x} is not {kind}"
            );
        }
        _ => {}
    }
    Ok(())
}

/// An access to memory that is not there, or is there for reading only.
fn device(state: &VcpuState) -> Check {
    let [access, address, linear] = state.qual;
    check!(access & 7 != 0, "neither read nor write nor fetch: {access:#x}");
    if access & MemoryAccess::LINEAR_VALID == 0 {
        check_eq!(linear, 0, "linear address that is not told");
    }
    let forbidden = address & !0xfff == READ_ONLY && access & MemoryAccess::WRITE != 0;
    check!(address >= DEVICES || forbidden, "access {access:#x} to memory at {address:#x}");
    check!(address >> 52 == 0, "address {address:#x}");
    Ok(())
}

/// An exception that was asked for, as it can be passed on.
fn exception(state: &VcpuState, settings: &Settings) -> Check {
    const WITH_ERROR: u32 = 0b11111 << 10 | 1 << 8 | 1 << 17 | 1 << 21;
    let event = Event { info: state.qual[0] as u32, error: state.qual[1] as u32 };
    check!(state.qual[0] >> 32 == 0 && event.is_valid(), "no event: {:#x}", state.qual[0]);
    check_eq!(event.kind(), EventKind::Exception as u8, "kind of event {:#x}", event.info);
    check_eq!(event.info & 0x7fff_f000, 0, "event {:#x}: what is beyond", event.info);
    let vector = event.vector();
    check!(vector < 32, "vector {vector}");
    check!(settings.exceptions >> vector & 1 != 0, "vector {vector}, which was not asked for");
    let has_error = event.info >> 11 & 1 != 0;
    let expected = WITH_ERROR >> vector & 1 != 0 && state.cr0 & mode::CR0_PE != 0;
    check_eq!(has_error, expected, "vector {vector}: has an error code");
    Ok(())
}
