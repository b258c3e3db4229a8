//! The functions that configuration accesses reach.

use super::ConfigSpace;

/// Place of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number on the bus, 0 to 31.
    pub device: u8,
    /// Function number in the device, 0 to 7.
    pub function: u8,
}

/// Everything behind the configuration ports. An owner with functions whose registers do something
/// implements this itself.
pub trait Bus {
    /// Reads `size` bytes (1, 2 or 4) from `register`; `None` if there is no such function. An
    /// access does not cross a multiple of four.
    fn read(&mut self, at: FunctionAddress, register: u8, size: u8) -> Option<u32>;

    /// Writes the low `size` bytes of `value`; lost if there is no such function.
    fn write(&mut self, at: FunctionAddress, register: u8, size: u8, value: u32);
}

/// Bus 0 with one function in each of the first devices.
impl Bus for [ConfigSpace] {
    fn read(&mut self, at: FunctionAddress, register: u8, size: u8) -> Option<u32> {
        Some(find(self, at)?.read(register, size))
    }

    fn write(&mut self, at: FunctionAddress, register: u8, size: u8, value: u32) {
        if let Some(function) = find(self, at) {
            function.write(register, size, value);
        }
    }
}

fn find(bus: &mut [ConfigSpace], at: FunctionAddress) -> Option<&mut ConfigSpace> {
    if at.bus != 0 || at.function != 0 {
        return None;
    }
    bus.get_mut(usize::from(at.device))
}
