//! I/O APICs (82093AA data sheet): where device interrupts enter.

use crate::sync::Guarded;

/// I/O APICs that are supported.
const MAX: usize = 8;

#[derive(Clone, Copy)]
struct IoApic {
    registers: *mut u32,
    first: u32,
    pins: u32,
}

static IOAPICS: [Guarded<Option<IoApic>>; MAX] = [const { Guarded::new(None) }; MAX];

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const LOW: u32 = 1 << 13;

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: index and window of a mapped I/O APIC.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.byte_add(0x10).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as above.
        unsafe {
            self.registers.write_volatile(register);
            self.registers.byte_add(0x10).write_volatile(value);
        }
    }
}

/// Adds the I/O APIC whose registers are mapped at `registers` and masks all its pins. Returns the first interrupt number behind it.
pub fn add(registers: u64, first: u32) -> u32 {
    let mut ioapic = IoApic { registers: registers as *mut u32, first, pins: 0 };
    ioapic.pins = (ioapic.read(1) >> 16 & 0xff) + 1;
    for pin in 0..ioapic.pins {
        ioapic.write(0x10 + 2 * pin, MASKED);
    }
    let Some(slot) = IOAPICS.iter().find(|slot| slot.get().is_none()) else { return first };
    slot.set(Some(ioapic));
    first.saturating_add(ioapic.pins)
}

/// Where an interrupt enters: an I/O APIC and its pin.
fn find(interrupt: u32) -> Option<(IoApic, u32)> {
    IOAPICS.iter().filter_map(Guarded::get).find_map(|ioapic| {
        let pin = interrupt.checked_sub(ioapic.first)?;
        (pin < ioapic.pins).then_some((ioapic, pin))
    })
}

/// Routes an interrupt to a vector of the CPU with local APIC `apic`, and lets it through. Returns whether there is such an interrupt.
pub fn route(interrupt: u32, vector: u8, apic: u32, level: bool, low: bool) -> bool {
    let Some((ioapic, pin)) = find(interrupt) else { return false };
    let entry = u32::from(vector) | if level { LEVEL } else { 0 } | if low { LOW } else { 0 };
    ioapic.write(0x10 + 2 * pin, MASKED);
    ioapic.write(0x11 + 2 * pin, apic << 24);
    ioapic.write(0x10 + 2 * pin, entry);
    true
}

/// Holds an interrupt back or lets it through.
pub fn mask(interrupt: u32, masked: bool) {
    if let Some((ioapic, pin)) = find(interrupt) {
        let entry = ioapic.read(0x10 + 2 * pin) & !MASKED;
        ioapic.write(0x10 + 2 * pin, entry | if masked { MASKED } else { 0 });
    }
}
