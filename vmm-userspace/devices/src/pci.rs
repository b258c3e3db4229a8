//! PCI configuration mechanism 1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2): an address
//! register at port 0xcf8 and a window to the addressed register at 0xcfc.

mod bus;
mod config_space;

pub use bus::{Bus, FunctionAddress};
pub use config_space::{Bar, ConfigSpace, Identity};
use serde::{Deserialize, Serialize};

/// First I/O port. The device has eight, but see [`ConfigPorts::read`].
pub const PORT: u16 = 0xcf8;

const ENABLE: u32 = 1 << 31;
/// Bits of the address register that are not reserved.
const ADDRESS_BITS: u32 = 0x80ff_fffc;

/// The address register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPorts {
    address: u32,
}

impl ConfigPorts {
    /// The register as it is at power-on: configuration accesses off.
    #[must_use]
    pub const fn new() -> Self {
        Self { address: 0 }
    }

    /// Back to the state of power-on; the functions have to be reset as well.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads `size` bytes (1, 2 or 4) at `offset` (0 to 7); the rest of the result is zero.
    ///
    /// The address register answers to accesses of four bytes only. Smaller ones at offsets 0 to 3
    /// belong to other devices, such as [`crate::reset_control`], and give all ones here, as does
    /// a function that is absent.
    pub fn read(&self, offset: u16, size: u8, bus: &mut (impl Bus + ?Sized)) -> u32 {
        let value = match self.target(offset, size) {
            Target::Address => Some(self.address),
            Target::Register(function, register) => bus.read(function, register, size),
            Target::None => None,
        };
        value.unwrap_or(u32::MAX) & ones(size)
    }

    /// Writes the low `size` bytes (1, 2 or 4) of `value` at `offset` (0 to 7).
    pub fn write(&mut self, offset: u16, size: u8, value: u32, bus: &mut (impl Bus + ?Sized)) {
        match self.target(offset, size) {
            Target::Address => self.address = value & ADDRESS_BITS,
            Target::Register(function, register) => {
                bus.write(function, register, size, value & ones(size));
            }
            Target::None => {}
        }
    }

    fn target(&self, offset: u16, size: u8) -> Target {
        match offset {
            0 if size == 4 => Target::Address,
            // An access never leaves the window.
            4..=7 if self.address & ENABLE != 0 && offset + u16::from(size) <= 8 => {
                let function = FunctionAddress {
                    bus: (self.address >> 16) as u8,
                    device: (self.address >> 11 & 0x1f) as u8,
                    function: (self.address >> 8 & 7) as u8,
                };
                Target::Register(function, self.address as u8 | (offset & 3) as u8)
            }
            _ => Target::None,
        }
    }
}

enum Target {
    Address,
    Register(FunctionAddress, u8),
    None,
}

/// As many ones as `size` bytes have bits.
fn ones(size: u8) -> u32 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}
