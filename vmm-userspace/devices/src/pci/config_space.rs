//! Configuration space of one function, header type 0 (PCI Local Bus Specification 3.0, chapter 6).

use serde::{Deserialize, Serialize};

const COMMAND: u8 = 0x04;
const COMMAND_IO: u8 = 1 << 0;
const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_BUS_MASTER: u8 = 1 << 2;
/// High byte of the command register: interrupts off.
const COMMAND_INTX_OFF: u8 = 1 << 2;
const STATUS: u8 = 0x06;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const REVISION: u8 = 0x08;
const CLASS: u8 = 0x09;
const CACHE_LINE: u8 = 0x0c;
const LATENCY: u8 = 0x0d;
const BAR_0: u8 = 0x10;
const SUBSYSTEM: u8 = 0x2c;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT_LINE: u8 = 0x3c;
const INTERRUPT_PIN: u8 = 0x3d;

/// Base-address registers of a function.
const BARS: u8 = 6;

const BAR_IS_IO: u32 = 1 << 0;
const BAR_IS_64: u32 = 2 << 1;
const BAR_PREFETCHABLE: u32 = 1 << 3;

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, from the highest of three bytes down.
    pub class: u32,
    /// Vendor and device identifier of the subsystem; zeros for none.
    pub subsystem: (u16, u16),
}

/// A region that a base-address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Ports; the size in bytes is a power of two from 4 to 256.
    Io(u32),
    /// Memory below 4 GiB; the size in bytes is a power of two from 16.
    Memory32(u32),
    /// Prefetchable memory anywhere, taking two registers; the size in bytes is a power of two
    /// from 16.
    Memory64(u64),
}

/// The 256 bytes, and which of their bits the guest can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpace {
    #[serde(with = "crate::array")]
    bytes: [u8; 256],
    #[serde(with = "crate::array")]
    writable: [u8; 256],
}

impl ConfigSpace {
    /// A function with nothing but its identity, an interrupt line, and the right to be a bus
    /// master.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self { bytes: [0; 256], writable: [0; 256] };
        space.set(0, &identity.vendor.to_le_bytes());
        space.set(2, &identity.device.to_le_bytes());
        space.set(REVISION, &[identity.revision]);
        space.set(CLASS, &identity.class.to_le_bytes()[..3]);
        space.set(SUBSYSTEM, &identity.subsystem.0.to_le_bytes());
        space.set(SUBSYSTEM + 2, &identity.subsystem.1.to_le_bytes());
        space.set_writable(COMMAND, &[COMMAND_BUS_MASTER, COMMAND_INTX_OFF]);
        space.set_writable(CACHE_LINE, &[0xff]);
        space.set_writable(LATENCY, &[0xf8]);
        space.set_writable(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// The host bridge of the 440FX, whose PAM and SMRAM registers keep what firmware writes
    /// (82441FX datasheet, section 3.2).
    #[must_use]
    pub fn host_bridge_440fx() -> Self {
        const PAM: u8 = 0x59;
        const SMRAM: u8 = 0x72;
        let mut space = Self::new(Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06_00_00,
            subsystem: (0, 0),
        });
        space.set(COMMAND, &[COMMAND_MEMORY | COMMAND_BUS_MASTER]);
        space.set_writable(COMMAND, &[0, 0]);
        space.set_writable(PAM, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        space.set(SMRAM, &[0x02]);
        space.set_writable(SMRAM, &[0x78]);
        space
    }

    /// Adds a base-address register (`index` 0 to 5). Ignored if the register or the size does not
    /// exist.
    #[must_use]
    pub fn with_bar(mut self, index: u8, bar: Bar) -> Self {
        let (size, flags, registers, enable) = match bar {
            Bar::Io(size) => (u64::from(size), BAR_IS_IO, 1, COMMAND_IO),
            Bar::Memory32(size) => (u64::from(size), 0, 1, COMMAND_MEMORY),
            Bar::Memory64(size) => (size, BAR_IS_64 | BAR_PREFETCHABLE, 2, COMMAND_MEMORY),
        };
        let least = if flags & BAR_IS_IO != 0 { 4 } else { 16 };
        if size < least || !size.is_power_of_two() || index > BARS - registers {
            return self;
        }
        let (at, bytes) = (BAR_0 + 4 * index, usize::from(4 * registers));
        let fixed = u64::from(flags);
        self.set(at, &fixed.to_le_bytes()[..bytes]);
        self.set_writable(at, &(!(size - 1)).to_le_bytes()[..bytes]);
        self.writable[usize::from(COMMAND)] |= enable;
        self
    }

    /// Adds a capability at `at` (a multiple of four from 0x40): its identifier and `body`, of
    /// which the bits set in `writable` can be changed. The list leads from the last added to the
    /// first.
    #[must_use]
    pub fn with_capability(mut self, at: u8, id: u8, body: &[u8], writable: &[u8]) -> Self {
        let next = self.bytes[usize::from(CAPABILITIES)];
        self.set(at, &[id, next]);
        self.set(at.saturating_add(2), body);
        self.set_writable(at.saturating_add(2), writable);
        self.set(CAPABILITIES, &[at]);
        self.bytes[usize::from(STATUS)] |= STATUS_CAPABILITIES;
        self
    }

    /// Says that the function uses interrupt `pin` (1 is INTA), which is routed to `line`.
    #[must_use]
    pub fn with_interrupt(mut self, pin: u8, line: u8) -> Self {
        self.set(INTERRUPT_PIN, &[pin]);
        self.set(INTERRUPT_LINE, &[line]);
        self
    }

    /// Where base-address register `index` decodes now, from its first byte; `None` if there is no
    /// such register, it is the upper half of another, or its decoding is off.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<u64> {
        if index >= BARS {
            return None;
        }
        let is_64 = |i: u8| self.register(BAR_0 + 4 * i) & (BAR_IS_IO | BAR_IS_64) == BAR_IS_64;
        // Upper halves have no type bits; they follow a 64-bit register that is not one itself.
        let upper = (0..index).fold(false, |upper, i| !upper && is_64(i));
        let at = BAR_0 + 4 * index;
        if upper || self.writable_register(at) == 0 && !is_64(index) {
            return None;
        }
        let low = self.register(at);
        let command = self.bytes[usize::from(COMMAND)];
        if low & BAR_IS_IO != 0 {
            return (command & COMMAND_IO != 0).then(|| u64::from(low & !3));
        }
        let high = if is_64(index) { self.register(at + 4) } else { 0 };
        (command & COMMAND_MEMORY != 0).then(|| u64::from(high) << 32 | u64::from(low & !0xf))
    }

    /// True if the guest has switched the function's interrupt line off.
    #[must_use]
    pub fn interrupt_disabled(&self) -> bool {
        self.bytes[usize::from(COMMAND) + 1] & COMMAND_INTX_OFF != 0
    }

    /// True if the guest lets the function access memory.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.bytes[usize::from(COMMAND)] & COMMAND_BUS_MASTER != 0
    }

    /// Reads `size` bytes (1, 2 or 4). Bytes past the end of the space read as zero.
    #[must_use]
    pub fn read(&self, register: u8, size: u8) -> u32 {
        let mut value = [0; 4];
        let bytes = self.bytes.iter().skip(register.into()).take(size.into());
        for (to, from) in value.iter_mut().zip(bytes) {
            *to = *from;
        }
        u32::from_le_bytes(value)
    }

    /// The guest writes `size` bytes (1, 2 or 4) of `value`: bits that are not writable stay.
    pub fn write(&mut self, register: u8, size: u8, value: u32) {
        let value = value.to_le_bytes();
        let places = self.bytes.iter_mut().zip(&self.writable).skip(register.into());
        for ((byte, writable), new) in places.zip(&value[..usize::from(size.min(4))]) {
            *byte = *byte & !writable | new & writable;
        }
    }

    /// The owner sets bytes from `register` on, writable or not.
    pub fn set(&mut self, register: u8, values: &[u8]) {
        let places = self.bytes.iter_mut().skip(register.into());
        places.zip(values).for_each(|(byte, value)| *byte = *value);
    }

    /// Says which bits of the bytes from `register` on the guest can change.
    pub fn set_writable(&mut self, register: u8, masks: &[u8]) {
        let places = self.writable.iter_mut().skip(register.into());
        places.zip(masks).for_each(|(mask, value)| *mask = *value);
    }

    fn register(&self, at: u8) -> u32 {
        self.read(at, 4)
    }

    fn writable_register(&self, at: u8) -> u32 {
        let mut bytes = [0; 4];
        let masks = self.writable.iter().skip(at.into());
        bytes.iter_mut().zip(masks).for_each(|(byte, mask)| *byte = *mask);
        u32::from_le_bytes(bytes)
    }
}
