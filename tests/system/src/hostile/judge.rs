//! Whether an exit is one that `abi` explains.

use alloc::format;
use alloc::string::String;

use abi::vcpu::{ControlAccess, Event, EventKind, Exit, MemoryAccess, PortAccess, VcpuState};
use emulate::mode;
use emulate::paging::{self, Access};
use runtime::memory::GuestMemory;

use super::decode::{DUE_TO_INSTRUCTIONS, Reasons, decode};
use super::mode::{DIRECTORY_POINTERS, READ_ONLY, TABLES, tables};
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
    /// Whether the exit has a reason.
    pub reason: Reason,
}

/// Whether an exit has a reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// The instruction at RIP, or another that the exit itself tells.
    #[default]
    Known,
    /// The guest has changed what maps the instruction, and the processor may still know it as it was.
    Stale,
    /// QEMU does not enter a guest that it has let become like this.
    Refused,
    /// None of these.
    Unknown,
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
        if gpa == DIRECTORY_POINTERS && is_tcg() {
            // QEMU sets the accessed bit in a page-directory pointer of PAE paging, which is reserved there.
            bytes[0] &= !0x20;
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
    let long_mode = state.efer & mode::EFER_LMA != 0;
    // QEMU lets SYSRET and IRET set RFLAGS.VM in long mode, which has no virtual-8086 mode, and goes on with what CS says.
    let virtual_8086 = state.rflags & mode::RFLAGS_VM != 0 && !long_mode;
    if long_mode && state.cs.attr & LONG != 0 {
        64
    } else if state.cs.attr & DEFAULT != 0 && !virtual_8086 {
        32
    } else {
        16
    }
}

/// Guest-physical address of RIP, if it is mapped.
fn address(memory: GuestMemory, state: &VcpuState) -> Option<u64> {
    let cpl = mode::cpl(state);
    paging::translate(state, &mut Memory(memory), linear(state), Access::Fetch, cpl).ok()
}

/// Judges an exit. What is wrong with it is the error.
pub fn judge(
    memory: GuestMemory,
    exit: Exit,
    state: &VcpuState,
    settings: &Settings,
) -> Result<Found, String> {
    if exit == Exit::BadState {
        // The monitor gives none: QEMU (7.2) lets the guest write what it then refuses to enter with (CR0.NW without CD, reserved bits
        // of CR4: APM 2 15.5.1), where processors raise #GP. What the state is it does not tell then.
        check!(is_tcg(), "{:x?}", state.qual);
        return Ok(Found { bits: 0, reason: Reason::Refused });
    }
    kept(state, settings)?;
    let bits = bits(state);
    if DUE_TO_INSTRUCTIONS >> exit as u32 & 1 != 0 {
        let result = match code(memory, state) {
            Some(bytes) => match decode(&bytes, bits) {
                reasons if reasons.include(exit) => instruction(exit, state, &reasons)
                    .map(|()| Reason::Known)
                    .map_err(|why| format!("{why}: {bytes:02x?}")),
                _ => Ok(Reason::Unknown),
            },
            None => Ok(Reason::Unknown),
        };
        let reason = match result {
            Ok(Reason::Known) => Reason::Known,
            _ if is_stale(memory, state) => Reason::Stale,
            other => other?,
        };
        return Ok(Found { bits, reason });
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
    Ok(Found { bits, reason: Reason::Known })
}

/// Linear address of RIP.
const fn linear(state: &VcpuState) -> u64 {
    match bits(state) {
        64 => state.rip,
        _ => state.cs.base.wrapping_add(state.rip) & 0xffff_ffff,
    }
}

/// Whether the page tables no longer map RIP as they did at the start of the burst. What a processor has cached of them it may use
/// until the guest has it forgotten.
#[must_use]
pub fn is_stale(memory: GuestMemory, state: &VcpuState) -> bool {
    /// Accessed, dirty.
    const SET_BY_PROCESSOR: u64 = 0x60;
    if state.cr0 & mode::CR0_PG == 0 {
        return false;
    }
    let (linear, tables) = (linear(state), tables());
    let (directory, table) = (linear >> 21 & 0x1ff, linear >> 12 & 0x1ff);
    let entries = [0, 0x1000, 0x2000 + 8 * directory, 0x3000 + 8 * table, 0x4000];
    let changed = entries.into_iter().any(|at| {
        let mut now = [0; 8];
        let read = memory.read(TABLES + at, &mut now);
        let before = tables.get(at as usize..).and_then(<[u8]>::first_chunk);
        let entry = |bytes| u64::from_le_bytes(bytes) & !SET_BY_PROCESSOR;
        read.is_err() || before.copied().map(entry) != Some(entry(now))
    });
    changed || ![TABLES, DIRECTORY_POINTERS].contains(&(state.cr3 & !0x1f)) || linear >> 23 != 0
}

/// The bytes at RIP.
#[must_use]
pub fn code(memory: GuestMemory, state: &VcpuState) -> Option<[u8; 15]> {
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
    let forbidden = READ_ONLY.contains(&(address & !0xfff)) && access & MemoryAccess::WRITE != 0;
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
