//! What a boot protocol tells, in one form for all protocols.

use crate::error::Error;
use crate::framebuffer::LinearFramebuffer;
use crate::span::Span;

/// Memory map entries the loader can take in.
pub const MAX_MEMORY_ENTRIES: usize = 512;

/// Modules the loader can take in; further ones are an error of the boot configuration.
pub const MAX_MODULES: usize = 8;

/// The E820 type of RAM that the operating system may use (ACPI 6.5 15, table 15.4). Multiboot2
/// and PVH use the same numbers.
pub const E820_RAM: u32 = 1;

/// The E820 type of RAM that holds ACPI tables and may be used after they are read.
pub const E820_ACPI_RECLAIMABLE: u32 = 3;

/// The E820 type of RAM that the firmware keeps across sleep states.
pub const E820_ACPI_NVS: u32 = 4;

/// One stretch of the physical address space, as the firmware describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Where it lies; neither bound need be page aligned.
    pub span: Span,
    /// E820 type.
    pub kind: u32,
}

/// The firmware's memory map, in the order given: it may be unsorted and overlap itself.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    entries: [MemoryEntry; MAX_MEMORY_ENTRIES],
    count: usize,
}

impl MemoryMap {
    /// A map with no entries.
    pub const fn new() -> Self {
        let empty = MemoryEntry { span: Span { start: 0, end: 0 }, kind: 0 };
        Self { entries: [empty; MAX_MEMORY_ENTRIES], count: 0 }
    }

    /// Adds `span`; an empty one is ignored.
    ///
    /// # Errors
    /// [`Error::MemoryMapTooLong`] if the map is full.
    pub fn push(&mut self, span: Span, kind: u32) -> Result<(), Error> {
        if span.is_empty() {
            return Ok(());
        }
        let slot = self.entries.get_mut(self.count).ok_or(Error::MemoryMapTooLong)?;
        *slot = MemoryEntry { span, kind };
        self.count += 1;
        Ok(())
    }

    /// The entries, in the order they were added.
    pub fn entries(&self) -> &[MemoryEntry] {
        self.entries.get(..self.count).unwrap_or(&[])
    }

    /// One past the highest address of RAM, ACPI's parts of it included; zero if there is none.
    ///
    /// Reserved stretches do not count: firmware reserves address space far above the last RAM.
    pub fn end_of_ram(&self) -> u64 {
        let is_ram = |kind| matches!(kind, E820_RAM | E820_ACPI_RECLAIMABLE | E820_ACPI_NVS);
        self.entries().iter().filter(|e| is_ram(e.kind)).map(|e| e.span.end).max().unwrap_or(0)
    }

    /// Bytes of RAM the firmware leaves to the operating system, counting overlaps twice.
    pub fn ram_bytes(&self) -> u64 {
        let ram = self.entries().iter().filter(|e| e.kind == E820_RAM);
        ram.fold(0, |sum, e| sum.saturating_add(e.span.length()))
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

/// A file the boot loader before us put into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Module<'a> {
    /// Physical addresses of its bytes.
    pub span: Span,
    /// The text given with it: the first word names what it is.
    pub text: &'a str,
}

impl Module<'_> {
    /// The first word of the module's text.
    pub fn name(&self) -> &str {
        self.text.split_ascii_whitespace().next().unwrap_or("")
    }
}

/// Everything the loader learns from the boot protocol.
#[derive(Clone, Debug, Default)]
pub struct Handoff<'a> {
    /// The firmware's memory map.
    pub memory: MemoryMap,
    modules: [Module<'a>; MAX_MODULES],
    module_count: usize,
    /// Physical address of the ACPI root system description pointer, or of a copy of it.
    pub rsdp: Option<u64>,
    /// The linear framebuffer, if the screen shows one.
    pub framebuffer: Option<LinearFramebuffer>,
    /// Whether the screen shows VGA text memory at 0xb8000.
    pub text_screen: bool,
    /// The loader's own command line.
    pub command_line: &'a str,
    /// Memory of the boot protocol that the kernel will still read (the copy of the RSDP).
    pub keep: Span,
}

impl<'a> Handoff<'a> {
    /// Adds a module.
    ///
    /// # Errors
    /// [`Error::BadHandoff`] if there are more than [`MAX_MODULES`].
    pub fn push_module(&mut self, module: Module<'a>) -> Result<(), Error> {
        let slot = self.modules.get_mut(self.module_count);
        *slot.ok_or(Error::BadHandoff("too many modules"))? = module;
        self.module_count += 1;
        Ok(())
    }

    /// The modules, in the order they were loaded.
    pub fn modules(&self) -> &[Module<'a>] {
        self.modules.get(..self.module_count).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_ram_ignores_reserved_address_space() {
        let mut map = MemoryMap::new();
        map.push(Span::new(0xfd_0000_0000, 0x1000), 2).unwrap();
        map.push(Span::new(0, 0x8000_0000), E820_RAM).unwrap();
        map.push(Span::new(0x8000_0000, 0x1000), E820_ACPI_NVS).unwrap();
        assert_eq!(map.end_of_ram(), 0x8000_1000);
        assert_eq!(map.ram_bytes(), 0x8000_0000);
    }

    #[test]
    fn limits_are_errors() {
        let mut map = MemoryMap::new();
        for index in 0..MAX_MEMORY_ENTRIES as u64 {
            map.push(Span::new(index * 0x1000, 0x1000), E820_RAM).unwrap();
        }
        map.push(Span::new(0, 0), E820_RAM).unwrap();
        assert_eq!(map.push(Span::new(0, 1), E820_RAM), Err(Error::MemoryMapTooLong));
        let mut handoff = Handoff::default();
        for _ in 0..MAX_MODULES {
            handoff.push_module(Module::default()).unwrap();
        }
        assert!(handoff.push_module(Module::default()).is_err());
    }
}
