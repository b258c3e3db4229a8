//! The Multiboot2 information structure (Multiboot2 specification 2.0, section 3.6).

use crate::error::Error;
use crate::framebuffer::{self, VideoMode};
use crate::handoff::{Handoff, Module};
use crate::memory::{PhysicalMemory, text, u32_at, u64_at};
use crate::span::{Span, align_up};

/// What a Multiboot2 loader leaves in EAX (section 3.5).
pub const MAGIC: u32 = 0x36d7_6289;

/// Far above any real information structure; bounds what a damaged length can make us read.
const MAX_LENGTH: u32 = 16 << 20;

/// Tag numbers of section 3.6.
mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const MODULE: u32 = 3;
    pub const MEMORY_MAP: u32 = 6;
    pub const FRAMEBUFFER: u32 = 8;
    pub const EFI32_SYSTEM_TABLE: u32 = 11;
    pub const EFI64_SYSTEM_TABLE: u32 = 12;
    pub const ACPI_OLD_RSDP: u32 = 14;
    pub const ACPI_NEW_RSDP: u32 = 15;
}

/// Reads the information structure at physical `address`.
///
/// # Errors
/// [`Error::BadHandoff`] if lengths contradict each other, [`Error::NoMemoryMap`] and
/// [`Error::MemoryMapTooLong`] for the map.
pub fn parse<M: PhysicalMemory>(memory: &M, address: u64) -> Result<Handoff<'_>, Error> {
    let unreadable = Error::BadHandoff("the Multiboot2 information cannot be read");
    let head = memory.bytes(address, 8).ok_or(unreadable)?;
    let length = u32_at(head, 0).filter(|length| *length <= MAX_LENGTH).ok_or(unreadable)?;
    let info = memory.bytes(address, u64::from(length)).ok_or(unreadable)?;

    let mut handoff = Handoff::default();
    handoff.keep = Span::new(address, u64::from(length));
    let mut screen = None;
    let mut firmware_is_efi = false;
    let mut new_rsdp = false;
    let mut offset = 8;
    loop {
        let (kind, tag) = tag_at(info, offset)?;
        let short = Error::BadHandoff("a Multiboot2 tag is too short");
        match kind {
            tag::END => break,
            tag::COMMAND_LINE => handoff.command_line = text(tag.get(8..).unwrap_or(&[])),
            tag::MODULE => handoff.push_module(module(tag).ok_or(short)?)?,
            tag::MEMORY_MAP => memory_map(tag, &mut handoff)?,
            tag::FRAMEBUFFER => screen = Some(framebuffer::parse(tag).ok_or(short)?),
            tag::EFI32_SYSTEM_TABLE | tag::EFI64_SYSTEM_TABLE => firmware_is_efi = true,
            // The tag carries a copy of the RSDP; that of ACPI 2.0 has the 64-bit table address.
            tag::ACPI_NEW_RSDP => {
                handoff.rsdp = Some(address + offset as u64 + 8);
                new_rsdp = true;
            }
            tag::ACPI_OLD_RSDP if !new_rsdp => handoff.rsdp = Some(address + offset as u64 + 8),
            _ => {}
        }
        offset += align_up(tag.len() as u64, 8) as usize;
    }

    if handoff.memory.entries().is_empty() {
        return Err(Error::NoMemoryMap);
    }
    match screen {
        Some(VideoMode::Linear(linear)) => handoff.framebuffer = Some(linear),
        Some(VideoMode::Text) => handoff.text_screen = true,
        Some(VideoMode::Other) => {}
        // A BIOS machine nobody switched to graphics shows text; UEFI has no text mode.
        None => handoff.text_screen = !firmware_is_efi,
    }
    Ok(handoff)
}

/// Type and bytes, header included, of the tag at `offset`.
fn tag_at(info: &[u8], offset: usize) -> Result<(u32, &[u8]), Error> {
    let missing = Error::BadHandoff("the Multiboot2 information has no end tag");
    let kind = u32_at(info, offset).ok_or(missing)?;
    let size = u32_at(info, offset + 4).ok_or(missing)? as usize;
    if size < 8 {
        return Err(Error::BadHandoff("a Multiboot2 tag is too short"));
    }
    let tag = info.get(offset..offset.saturating_add(size));
    Ok((kind, tag.ok_or(Error::BadHandoff("a Multiboot2 tag reaches past the end"))?))
}

/// A module tag (section 3.6.6).
fn module(tag: &[u8]) -> Option<Module<'_>> {
    let span = Span { start: u32_at(tag, 8)?.into(), end: u32_at(tag, 12)?.into() };
    Some(Module { span, text: text(tag.get(16..)?) })
}

/// The memory map tag (section 3.6.8).
fn memory_map(tag: &[u8], handoff: &mut Handoff<'_>) -> Result<(), Error> {
    let bad = Error::BadHandoff("the Multiboot2 memory map has a bad entry size");
    let entry_size = u32_at(tag, 8).ok_or(bad)? as usize;
    if entry_size < 24 {
        return Err(bad);
    }
    for entry in tag.get(16..).unwrap_or(&[]).chunks_exact(entry_size) {
        let (start, length) = (u64_at(entry, 0).ok_or(bad)?, u64_at(entry, 8).ok_or(bad)?);
        handoff.memory.push(Span::new(start, length), u32_at(entry, 16).ok_or(bad)?)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/multiboot2.rs"]
mod tests;
