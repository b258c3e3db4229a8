//! Configuration mechanism 1 as operating systems probe it.

use devices::pci::{Bar, ConfigPorts, ConfigSpace, Identity};
use proptest::prelude::*;

const VIRTIO: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: 0x01_80_00,
    subsystem: (0x1af4, 0x1100),
};

/// Ports and bus, accessed the way a driver does.
struct Machine {
    ports: ConfigPorts,
    bus: Vec<ConfigSpace>,
}

impl Machine {
    fn new() -> Self {
        let disk = ConfigSpace::new(VIRTIO)
            .with_bar(0, Bar::Io(0x40))
            .with_bar(1, Bar::Memory32(0x1000))
            .with_bar(4, Bar::Memory64(0x10_0000))
            .with_capability(0x40, 0x09, &[0x10, 0x01], &[])
            .with_capability(0x50, 0x11, &[0x00, 0x80], &[0x00, 0xc0])
            .with_interrupt(1, 11);
        Self { ports: ConfigPorts::new(), bus: vec![ConfigSpace::host_bridge_440fx(), disk] }
    }

    fn select(&mut self, bus: u32, device: u32, function: u32, register: u32) {
        let address = 1 << 31 | bus << 16 | device << 11 | function << 8 | register & 0xfc;
        self.ports.write(0, 4, address, self.bus.as_mut_slice());
    }

    fn read(&mut self, device: u32, register: u32, size: u8) -> u32 {
        self.select(0, device, 0, register);
        self.ports.read(4 + (register & 3) as u16, size, self.bus.as_mut_slice())
    }

    fn write(&mut self, device: u32, register: u32, size: u8, value: u32) {
        self.select(0, device, 0, register);
        self.ports.write(4 + (register & 3) as u16, size, value, self.bus.as_mut_slice());
    }
}

/// What Linux does before it trusts the mechanism (`pci_check_type1`), and a byte to 0xcfb.
#[test]
fn address_register_takes_four_bytes_only() {
    let mut m = Machine::new();
    m.ports.write(3, 1, 0x01, m.bus.as_mut_slice());
    m.ports.write(0, 4, 0x8000_0000, m.bus.as_mut_slice());
    assert_eq!(m.ports.read(0, 4, m.bus.as_mut_slice()), 0x8000_0000);
    m.ports.write(1, 1, 0x06, m.bus.as_mut_slice());
    assert_eq!(m.ports.read(0, 4, m.bus.as_mut_slice()), 0x8000_0000);
    assert_eq!(m.ports.read(1, 1, m.bus.as_mut_slice()), 0xff);
    m.ports.write(0, 4, u32::MAX, m.bus.as_mut_slice());
    assert_eq!(m.ports.read(0, 4, m.bus.as_mut_slice()), 0x80ff_fffc);
}

#[test]
fn host_bridge_in_all_sizes() {
    let mut m = Machine::new();
    assert_eq!(m.read(0, 0x00, 4), 0x1237_8086);
    assert_eq!(m.read(0, 0x02, 2), 0x1237);
    assert_eq!(m.read(0, 0x0a, 2), 0x0600);
    assert_eq!(m.read(0, 0x0b, 1), 0x06);
    assert_eq!(m.read(0, 0x0e, 1), 0x00, "header type 0, one function");
    m.write(0, 0x04, 2, 0);
    assert_eq!(m.read(0, 0x04, 2), 0x0006, "always decodes memory");
    m.write(0, 0x58, 4, u32::MAX);
    assert_eq!(m.read(0, 0x58, 4), 0x3333_3000);
}

#[test]
fn nothing_where_nothing_is() {
    let mut m = Machine::new();
    for (bus, device, function) in [(0, 2, 0), (0, 31, 0), (0, 0, 1), (1, 0, 0), (255, 0, 0)] {
        m.select(bus, device, function, 0);
        assert_eq!(m.ports.read(4, 4, m.bus.as_mut_slice()), u32::MAX);
        assert_eq!(m.ports.read(6, 2, m.bus.as_mut_slice()), 0xffff);
        m.ports.write(4, 4, 0, m.bus.as_mut_slice());
    }
    m.ports.write(0, 4, 0, m.bus.as_mut_slice());
    assert_eq!(m.ports.read(4, 4, m.bus.as_mut_slice()), u32::MAX, "not enabled");
    m.select(0, 0, 0, 0);
    assert_eq!(m.ports.read(7, 2, m.bus.as_mut_slice()), 0xffff, "leaves the window");
}

#[test]
fn sizing_and_decoding_of_base_addresses() {
    let mut m = Machine::new();
    let sized = |m: &mut Machine, register| {
        m.write(1, register, 4, u32::MAX);
        m.read(1, register, 4)
    };
    assert_eq!(sized(&mut m, 0x10), 0xffff_ffc1);
    assert_eq!(sized(&mut m, 0x14), 0xffff_f000);
    assert_eq!(sized(&mut m, 0x18), 0, "absent");
    assert_eq!(sized(&mut m, 0x20), 0xfff0_000c);
    assert_eq!(sized(&mut m, 0x24), 0xffff_ffff);
    m.write(1, 0x10, 4, 0xc0ff);
    m.write(1, 0x14, 4, 0xfeb0_1234);
    m.write(1, 0x20, 4, 0x1234_5678);
    m.write(1, 0x24, 4, 0x0000_0080);
    assert_eq!((0..6).find_map(|i| m.bus[1].bar(i)), None, "decoding is off");
    m.write(1, 0x04, 2, 0xffff);
    assert_eq!(m.read(1, 0x04, 2), 0x0407);
    let bars: Vec<_> = (0..7).map(|i| m.bus[1].bar(i)).collect();
    let expected = [Some(0xc0c0), Some(0xfeb0_1000), None, None, Some(0x80_1230_0000), None, None];
    assert_eq!(bars, expected);
    assert!(m.bus[1].bus_master() && m.bus[1].interrupt_disabled());
}

#[test]
fn regions_that_cannot_be_are_not_added() {
    let plain = ConfigSpace::new(VIRTIO);
    for (index, bar) in [
        (0, Bar::Io(2)),
        (0, Bar::Memory32(0)),
        (0, Bar::Memory32(0x3000)),
        (5, Bar::Memory64(0x1000)),
        (6, Bar::Io(16)),
    ] {
        assert_eq!(plain.clone().with_bar(index, bar), plain);
    }
    let large = plain.with_bar(2, Bar::Memory64(1 << 40));
    assert_eq!(large.read(0x18, 4), 0x0c);
}

#[test]
fn capabilities_are_linked() {
    let mut m = Machine::new();
    assert_eq!(m.read(1, 0x06, 2) & 0x10, 0x10);
    assert_eq!(m.read(1, 0x34, 1), 0x50);
    assert_eq!(m.read(1, 0x50, 4), 0x8000_4011);
    assert_eq!(m.read(1, 0x40, 4), 0x0110_0009);
    m.write(1, 0x50, 4, 0x7fff_ffff);
    assert_eq!(m.read(1, 0x50, 4), 0x4000_4011);
    assert_eq!(m.read(1, 0x3c, 2), 0x010b);
}

proptest! {
    #[test]
    fn survives_anything_and_keeps_its_identity(
        ops in prop::collection::vec((0u16..8, prop::sample::select(vec![1u8, 2, 4]), any::<u32>()), 0..200),
    ) {
        let mut m = Machine::new();
        for (offset, size, value) in ops {
            // Mostly addresses that hit one of the two functions.
            let value = if offset == 0 { value & 0x0000_08ff | 1 << 31 } else { value };
            m.ports.write(offset, size, value, m.bus.as_mut_slice());
            let read = m.ports.read(offset, size, m.bus.as_mut_slice());
            prop_assert!(size == 4 || read < 1 << (8 * size));
        }
        prop_assert_eq!(m.read(0, 0, 4), 0x1237_8086);
        prop_assert_eq!(m.read(1, 0, 4), 0x1042_1af4);
        prop_assert_eq!(m.read(1, 8, 4), 0x0180_0001);
        let bytes = postcard::to_allocvec(&m.bus).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Vec<ConfigSpace>>(&bytes).unwrap(), m.bus);
    }
}
