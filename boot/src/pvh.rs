//! The start-of-day structure of the PVH boot protocol (Xen public headers,
//! `arch-x86/hvm/start_info.h`), as QEMU's `-kernel` passes it.

use crate::error::Error;
use crate::handoff::{Handoff, Module};
use crate::memory::{PhysicalMemory, text, u32_at, u64_at};
use crate::span::Span;

/// `XEN_HVM_START_MAGIC_VALUE`: the first field of the structure.
pub const MAGIC: u32 = 0x336e_c578;

/// Bytes of the structure from version 1 on.
const START_INFO_LENGTH: u64 = 56;
/// Bytes of a module list entry.
const MODULE_LENGTH: usize = 32;
/// Bytes of a memory map entry.
const MEMORY_LENGTH: usize = 24;
/// Longest text that is read.
const MAX_TEXT: u64 = 4096;

/// Reads `hvm_start_info` at physical `address`.
///
/// # Errors
/// [`Error::BadHandoff`] if the structure or one it points to cannot be read,
/// [`Error::NoMemoryMap`] for a structure of version 0, [`Error::MemoryMapTooLong`].
pub fn parse<M: PhysicalMemory>(memory: &M, address: u64) -> Result<Handoff<'_>, Error> {
    let unreadable = Error::BadHandoff("the PVH start info cannot be read");
    let head = memory.bytes(address, 8).ok_or(unreadable)?;
    if u32_at(head, 0) != Some(MAGIC) {
        return Err(Error::BadHandoff("the PVH start info has no magic"));
    }
    if u32_at(head, 4) == Some(0) {
        return Err(Error::NoMemoryMap);
    }
    let info = memory.bytes(address, START_INFO_LENGTH).ok_or(unreadable)?;
    let word = |offset| u32_at(info, offset).ok_or(unreadable);
    let long = |offset| u64_at(info, offset).ok_or(unreadable);

    let mut handoff = Handoff::default();
    handoff.rsdp = Some(long(32)?).filter(|&rsdp| rsdp != 0);
    handoff.command_line = string(memory, long(24)?);
    // SeaBIOS has run, and nothing after it changed the video mode.
    handoff.text_screen = true;
    let map = table(memory, long(40)?, word(48)?, MEMORY_LENGTH)
        .ok_or(Error::BadHandoff("the PVH memory map cannot be read"))?;
    for entry in map.chunks_exact(MEMORY_LENGTH) {
        let start = u64_at(entry, 0).ok_or(unreadable)?;
        let length = u64_at(entry, 8).ok_or(unreadable)?;
        handoff.memory.push(Span::new(start, length), u32_at(entry, 16).ok_or(unreadable)?)?;
    }
    if handoff.memory.entries().is_empty() {
        return Err(Error::NoMemoryMap);
    }
    let modules = table(memory, long(16)?, word(12)?, MODULE_LENGTH)
        .ok_or(Error::BadHandoff("the PVH module list cannot be read"))?;
    for entry in modules.chunks_exact(MODULE_LENGTH) {
        let start = u64_at(entry, 0).ok_or(unreadable)?;
        let length = u64_at(entry, 8).ok_or(unreadable)?;
        let name = string(memory, u64_at(entry, 16).ok_or(unreadable)?);
        handoff.push_module(Module { span: Span::new(start, length), text: name })?;
    }
    Ok(handoff)
}

/// The bytes of `count` entries of `length` bytes at `address`; `None` if they are out of reach.
fn table<M: PhysicalMemory>(memory: &M, address: u64, count: u32, length: usize) -> Option<&[u8]> {
    match count {
        0 => Some(&[]),
        _ => memory.bytes(address, u64::from(count) * length as u64),
    }
}

/// The NUL-terminated text at `address`; empty if there is none.
fn string<M: PhysicalMemory>(memory: &M, address: u64) -> &str {
    if address == 0 {
        return "";
    }
    let byte = |index| address.checked_add(index).and_then(|at| memory.bytes(at, 1));
    let length = (0..MAX_TEXT).find(|&index| byte(index).is_none_or(|byte| byte == [0]));
    text(memory.bytes(address, length.unwrap_or(MAX_TEXT)).unwrap_or(&[]))
}

#[cfg(test)]
#[path = "tests/pvh.rs"]
mod tests;
