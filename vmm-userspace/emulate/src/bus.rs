//! What the owner of a virtual CPU provides to the emulator.

/// The guest-physical address space and the ports.
///
/// Sizes are in bytes: 1, 2, 4 or 8 for memory, 1, 2 or 4 for ports. No memory access crosses a 4 KiB page.
/// Values are little-endian, bits above the size are zero on writes and ignored on reads.
pub trait Bus {
    /// Reads RAM or a device register.
    fn read(&mut self, gpa: u64, size: u8) -> u64;
    /// Writes RAM or a device register.
    fn write(&mut self, gpa: u64, size: u8, value: u64);
    /// Reads a port, for INS.
    fn port_read(&mut self, port: u16, size: u8) -> u32;
    /// Writes a port, for OUTS.
    fn port_write(&mut self, port: u16, size: u8, value: u32);
    /// Width of guest-physical addresses (CPUID leaf 8000_0008): address bits of paging entries above it are reserved.
    fn physical_bits(&self) -> u32;
}
