//! Memory accesses at linear addresses.

use abi::vcpu::VcpuState;

use crate::{bus::Bus, fault::Fault, mode, paging, paging::Access};

/// A translated place in memory of 1 to 16 bytes; it may cross into a second page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    first: u64,
    /// Where the bytes from the next page boundary on lie, if the place crosses one.
    second: Option<u64>,
}

impl Place {
    /// Translates `size` bytes at `linear`.
    pub fn translate(
        state: &VcpuState,
        bus: &mut impl Bus,
        linear: u64,
        size: u8,
        access: Access,
    ) -> Result<Self, Fault> {
        let cpl = mode::cpl(state);
        let first = paging::translate(state, bus, linear, access, cpl)?;
        let second = if (linear & 0xfff) + u64::from(size) > 0x1000 {
            let next = (linear | 0xfff).wrapping_add(1);
            Some(paging::translate(state, bus, next, access, cpl)?)
        } else {
            None
        };
        Ok(Self { first, second })
    }

    /// The part of 1 to 8 bytes that starts `offset` bytes in. An access that crosses pages is made byte by byte.
    pub fn read(self, bus: &mut impl Bus, offset: u8, size: u8) -> u64 {
        if self.whole(offset, size) {
            return bus.read(self.first + u64::from(offset), size);
        }
        let mut value = 0;
        for i in 0..size {
            value |= (bus.read(self.byte(offset + i), 1) & 0xff) << (8 * u32::from(i));
        }
        value
    }

    /// Writes a part of 1 to 8 bytes.
    pub fn write(self, bus: &mut impl Bus, offset: u8, size: u8, value: u64) {
        if self.whole(offset, size) {
            bus.write(self.first + u64::from(offset), size, value);
            return;
        }
        for i in 0..size {
            bus.write(self.byte(offset + i), 1, value >> (8 * u32::from(i)) & 0xff);
        }
    }

    const fn whole(self, offset: u8, size: u8) -> bool {
        self.second.is_none() || (self.first & 0xfff) + (offset + size) as u64 <= 0x1000
    }

    fn byte(self, offset: u8) -> u64 {
        let in_first = 0x1000 - (self.first & 0xfff);
        match self.second {
            Some(second) if u64::from(offset) >= in_first => second + u64::from(offset) - in_first,
            _ => self.first + u64::from(offset),
        }
    }
}
