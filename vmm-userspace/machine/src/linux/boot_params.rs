//! The zero page, `struct boot_params` (Documentation/arch/x86/zero-page.rst).

use super::{
    Loaded,
    header::{Header, START},
};
use crate::memory::MemoryMap;

/// A boot loader without a registered number.
const LOADER_UNDEFINED: u8 = 0xff;
const E820_TABLE: usize = 0x2d0;
/// The header field ends before the next field of the zero page.
const HEADER_MAX: usize = 0x290 - START;

/// The zero page for a kernel, as bytes.
pub fn build(
    header: &Header<'_>,
    loaded: &Loaded,
    command_line: u64,
    rsdp: u64,
    map: &MemoryMap,
) -> [u8; 0x1000] {
    let mut page = [0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(slot) = page.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    };
    let length = header.bytes.len().min(HEADER_MAX);
    put(START, header.bytes.get(..length).unwrap_or(&[]));
    put(0x210, &[LOADER_UNDEFINED]);
    // Addresses are split into a field of the header and its upper half elsewhere.
    let mut split = |low: usize, high: usize, value: u64| {
        put(low, &(value as u32).to_le_bytes());
        put(high, &((value >> 32) as u32).to_le_bytes());
    };
    split(0x218, 0xc0, loaded.initrd.0);
    split(0x21c, 0xc4, loaded.initrd.1);
    split(0x228, 0xc8, command_line);
    put(0x214, &(loaded.kernel as u32).to_le_bytes());
    put(0x070, &rsdp.to_le_bytes());
    let mut count = 0u8;
    for entry in map.e820() {
        let at = E820_TABLE + usize::from(count) * 20;
        put(at, &entry.start.to_le_bytes());
        put(at + 8, &entry.len.to_le_bytes());
        put(at + 16, &(entry.usage as u32).to_le_bytes());
        count += 1;
    }
    put(0x1e8, &[count]);
    page
}
