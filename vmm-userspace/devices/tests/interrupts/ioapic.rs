//! The I/O APIC.

use devices::ioapic::{IoApic, PINS};
use devices::lapic::{BROADCAST, DeliveryMode, DestinationMode, Message, TriggerMode};
use proptest::prelude::*;

const MASK: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const ACTIVE_LOW: u32 = 1 << 13;

fn get(ioapic: &mut IoApic, index: u8) -> u32 {
    ioapic.write(0, 4, index.into());
    ioapic.read(0x10, 4)
}

fn put(ioapic: &mut IoApic, index: u8, value: u32) {
    ioapic.write(0, 4, index.into());
    ioapic.write(0x10, 4, value);
}

fn low(pin: u8) -> u8 {
    0x10 + 2 * pin
}

/// An I/O APIC with one programmed pin, physical destination 3.
fn with_entry(pin: u8, entry: u32) -> IoApic {
    let mut ioapic = IoApic::new(0);
    put(&mut ioapic, low(pin) + 1, 3 << 24);
    put(&mut ioapic, low(pin), entry);
    ioapic
}

fn vector_of(ioapic: &mut IoApic) -> Option<u8> {
    ioapic.take_message().map(|message| message.vector)
}

#[test]
fn registers_after_reset() {
    let mut ioapic = IoApic::new(0);
    assert_eq!(get(&mut ioapic, 0), 0);
    assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
    assert_eq!(get(&mut ioapic, 2), 0);
    for pin in 0..PINS {
        assert_eq!(get(&mut ioapic, low(pin)), MASK);
        assert_eq!(get(&mut ioapic, low(pin) + 1), 0);
    }
    assert_eq!(get(&mut ioapic, 0x40), 0);
    assert_eq!(get(&mut ioapic, 0x0f), 0);
}

#[test]
fn reserved_and_read_only_bits() {
    let mut ioapic = IoApic::new(0);
    put(&mut ioapic, 0, u32::MAX);
    assert_eq!(get(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(get(&mut ioapic, 2), 0x0f00_0000, "loaded with the ID");
    put(&mut ioapic, 1, u32::MAX);
    assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
    put(&mut ioapic, 2, 0);
    assert_eq!(get(&mut ioapic, 2), 0x0f00_0000);
    put(&mut ioapic, low(23), u32::MAX);
    assert_eq!(get(&mut ioapic, low(23)), 0x0001_afff);
    put(&mut ioapic, low(23) + 1, u32::MAX);
    assert_eq!(get(&mut ioapic, low(23) + 1), 0xff00_0000);
}

#[test]
fn access_sizes() {
    let mut ioapic = IoApic::new(0);
    // Firmware writes the index as a byte.
    ioapic.write(0, 1, 0x10);
    assert_eq!(ioapic.read(0, 4), 0x10);
    assert_eq!(ioapic.read(0x10, 4), MASK);
    assert_eq!(ioapic.read(0x10, 2), 0);
    ioapic.write(0x10, 1, 0);
    ioapic.write(0x10, 2, 0);
    ioapic.write(0x12, 4, 0);
    assert_eq!(ioapic.read(0x10, 4), MASK, "narrow writes of the window are ignored");
    assert_eq!(ioapic.read(0x20, 4), 0);
    assert_eq!(ioapic.read(0x40, 4), 0, "the EOI register is write-only");
}

#[test]
fn an_edge_is_one_message() {
    let mut ioapic = with_entry(4, 0x41);
    ioapic.set_line(4, true);
    assert_eq!(get(&mut ioapic, low(4)) & 1 << 12, 1 << 12, "delivery status: pending");
    assert_eq!(
        ioapic.take_message(),
        Some(Message {
            destination: 3,
            destination_mode: DestinationMode::Physical,
            delivery_mode: DeliveryMode::Fixed,
            vector: 0x41,
            trigger: TriggerMode::Edge,
        })
    );
    assert_eq!(get(&mut ioapic, low(4)), 0x41);
    ioapic.set_line(4, true);
    assert_eq!(ioapic.take_message(), None);
    ioapic.set_line(4, false);
    assert_eq!(ioapic.take_message(), None);
    ioapic.set_line(4, true);
    assert!(ioapic.take_message().is_some());
}

#[test]
fn a_masked_edge_is_lost() {
    let mut ioapic = with_entry(4, MASK | 0x41);
    ioapic.set_line(4, true);
    put(&mut ioapic, low(4), 0x41);
    assert_eq!(ioapic.take_message(), None);
    // And one that is masked before it was sent is withdrawn.
    ioapic.set_line(4, false);
    ioapic.set_line(4, true);
    put(&mut ioapic, low(4), MASK | 0x41);
    put(&mut ioapic, low(4), 0x41);
    assert_eq!(ioapic.take_message(), None);
    // As is one whose pin goes through level mode.
    ioapic.set_line(4, false);
    ioapic.set_line(4, true);
    put(&mut ioapic, low(4), LEVEL | 0x41);
    put(&mut ioapic, low(4), 0x41);
    assert_eq!(ioapic.take_message(), None);
}

#[test]
fn a_level_is_sent_again_after_each_eoi() {
    let mut ioapic = with_entry(9, LEVEL | MASK | 0x59);
    ioapic.set_line(9, true);
    assert_eq!(ioapic.take_message(), None);
    put(&mut ioapic, low(9), LEVEL | 0x59);
    let message = ioapic.take_message().unwrap();
    assert_eq!((message.vector, message.trigger), (0x59, TriggerMode::Level));
    assert_eq!(get(&mut ioapic, low(9)), LEVEL | REMOTE_IRR | 0x59);
    assert_eq!(ioapic.take_message(), None);
    ioapic.eoi(0x58);
    assert_eq!(ioapic.take_message(), None, "another vector");
    ioapic.eoi(0x59);
    assert_eq!(vector_of(&mut ioapic), Some(0x59));
    ioapic.set_line(9, false);
    // Directed EOI.
    ioapic.write(0x40, 4, 0x59);
    assert_eq!(get(&mut ioapic, low(9)), LEVEL | 0x59);
    assert_eq!(ioapic.take_message(), None);
}

#[test]
fn an_eoi_reaches_all_entries_with_the_vector() {
    let mut ioapic = with_entry(9, LEVEL | 0x59);
    put(&mut ioapic, low(16), LEVEL | 0x59);
    ioapic.set_line(9, true);
    ioapic.set_line(16, true);
    assert!(ioapic.take_message().is_some());
    assert!(ioapic.take_message().is_some());
    assert!(ioapic.take_message().is_none());
    ioapic.eoi(0x59);
    assert!(ioapic.take_message().is_some());
    assert!(ioapic.take_message().is_some());
}

#[test]
fn remote_irr_survives_a_write_but_not_edge_mode() {
    let mut ioapic = with_entry(9, LEVEL | 0x59);
    ioapic.set_line(9, true);
    assert!(ioapic.take_message().is_some());
    put(&mut ioapic, low(9), LEVEL | MASK | 0x59);
    assert_eq!(get(&mut ioapic, low(9)), LEVEL | MASK | REMOTE_IRR | 0x59);
    put(&mut ioapic, low(9), LEVEL | 0x59);
    assert_eq!(ioapic.take_message(), None);
    put(&mut ioapic, low(9), MASK | 0x59);
    put(&mut ioapic, low(9), LEVEL | 0x59);
    assert!(ioapic.take_message().is_some());
}

#[test]
fn polarity() {
    let mut ioapic = IoApic::new(1 << 20);
    put(&mut ioapic, low(20), LEVEL | ACTIVE_LOW | 0x60);
    assert_eq!(ioapic.take_message(), None, "rests high");
    ioapic.set_line(20, false);
    assert_eq!(vector_of(&mut ioapic), Some(0x60));
    ioapic.set_line(20, true);
    ioapic.eoi(0x60);
    assert_eq!(ioapic.take_message(), None);

    put(&mut ioapic, low(3), ACTIVE_LOW | 0x61);
    ioapic.set_line(3, true);
    assert_eq!(ioapic.take_message(), None);
    ioapic.set_line(3, false);
    assert_eq!(vector_of(&mut ioapic), Some(0x61));
    // The lines outlive a reset.
    ioapic.reset();
    assert_eq!(ioapic, IoApic::new(1 << 20));
}

#[test]
fn delivery_and_destination_modes() {
    let modes = [
        (0, Some(DeliveryMode::Fixed)),
        (1, Some(DeliveryMode::LowestPriority)),
        (2, Some(DeliveryMode::Smi)),
        (3, None),
        (4, Some(DeliveryMode::Nmi)),
        (5, Some(DeliveryMode::Init)),
        (6, None),
        (7, Some(DeliveryMode::ExtInt)),
    ];
    for (bits, mode) in modes {
        for trigger in [0, LEVEL] {
            let mut ioapic = with_entry(0, bits << 8 | 1 << 11 | trigger | 0x30);
            ioapic.set_line(0, true);
            let message = ioapic.take_message();
            assert_eq!(message.map(|m| m.delivery_mode), mode);
            assert_eq!(ioapic.take_message(), None);
            let Some(message) = message else { continue };
            assert_eq!(message.destination_mode, DestinationMode::Logical);
            // Only interrupts with a vector have a level mode.
            let level = trigger != 0 && bits <= 1;
            assert_eq!(message.trigger == TriggerMode::Level, level);
            assert_eq!(get(&mut ioapic, low(0)) & REMOTE_IRR != 0, level);
        }
    }
}

#[test]
fn broadcast_is_widened() {
    let mut ioapic = with_entry(1, 0x31);
    put(&mut ioapic, low(1) + 1, 0xff << 24);
    ioapic.set_line(1, true);
    assert_eq!(ioapic.take_message().unwrap().destination, BROADCAST);
}

#[test]
fn pins_that_do_not_exist() {
    let mut ioapic = IoApic::new(0);
    for pin in PINS..=255 {
        ioapic.set_line(pin, true);
    }
    assert_eq!(ioapic, IoApic::new(0));
}

proptest! {
    /// Between two EOIs a level pin sends once, if at any time it is active and unmasked.
    #[test]
    fn level_pins_follow_their_definition(
        operations in prop::collection::vec((0u8..4, any::<bool>()), 1..100),
    ) {
        let mut ioapic = with_entry(17, LEVEL | 0x71);
        let (mut active, mut masked, mut waiting) = (false, false, false);
        for (kind, on) in operations {
            match kind {
                0 => {
                    active = on;
                    ioapic.set_line(17, on);
                }
                1 => {
                    masked = on;
                    put(&mut ioapic, low(17), LEVEL | 0x71 | if on { MASK } else { 0 });
                }
                2 => {
                    waiting = false;
                    ioapic.eoi(0x71);
                }
                _ => {
                    let due = active && !masked && !waiting;
                    prop_assert_eq!(ioapic.take_message().is_some(), due);
                    waiting |= due;
                }
            }
        }
    }

    #[test]
    fn anything_goes(
        operations in prop::collection::vec((0u8..4, any::<u32>(), any::<u8>()), 1..200),
    ) {
        let mut ioapic = IoApic::new(0);
        for (kind, value, small) in operations {
            match kind {
                0 => ioapic.set_line(small & 31, value & 1 != 0),
                1 => put(&mut ioapic, small & 0x3f, value),
                2 => ioapic.write((value & 0xfff) as u16, small & 7, value >> 12),
                _ => {
                    // Messages come to an end without an EOI.
                    let count = (0..100).take_while(|_| ioapic.take_message().is_some()).count();
                    prop_assert!(count <= usize::from(PINS));
                }
            }
        }
        let bytes = postcard::to_allocvec(&ioapic).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<IoApic>(&bytes).unwrap(), &ioapic);
    }
}
