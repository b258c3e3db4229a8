//! The namespace: `\_S5`, processors, the PCI host bridge, and the devices of the ISA bus.

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
        PackageBuilder, ResourceTemplate, Scope,
    },
    sdt::Sdt,
};
use alloc::{format, vec, vec::Vec};
use devices::acpi_pm;

use super::{OEM, REVISION, TABLE};
use crate::{
    layout::{COM1, IOAPIC, IRQ_COM1, IRQ_RTC, IRQ_TIMER, LAPIC, PM_BASE},
    memory::{HOLE, VGA},
};

/// First of the four interrupt lines of the PCI slots.
const PCI_GSI: u8 = 16;
const SLOTS: u32 = 32;

/// A small resource descriptor for ISA interrupts, edge-triggered and active high (ACPI 6.5 6.4.2.1).
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << self.0);
    }
}

/// A fixed range of ports.
fn ports(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

pub fn build(cpus: u32) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    let mut body = Vec::new();
    soft_off(&mut body);
    processors(cpus, &mut body);
    host_bridge(&mut body);
    isa_devices(&mut body);
    dsdt.append_slice(&body);
    dsdt.as_slice().to_vec()
}

/// The sleep type of S5 (ACPI 6.5 7.4.2).
fn soft_off(body: &mut Vec<u8>) {
    let typ = acpi_pm::SLEEP_TYPE_S5;
    let package = Package::new(vec![&typ, &typ, &0u8, &0u8]);
    Name::new("_S5_".into(), &package).to_aml_bytes(body);
}

fn processors(cpus: u32, body: &mut Vec<u8>) {
    for id in 0..cpus.min(255) {
        let hid = Name::new("_HID".into(), &"ACPI0007");
        let uid = Name::new("_UID".into(), &id);
        let name = format!("C{id:03X}");
        let device = Device::new(name.as_str().into(), vec![&hid, &uid]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(body);
    }
}

fn host_bridge(body: &mut Vec<u8>) {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A03"));
    let uid = Name::new("_UID".into(), &0u8);
    let memory = |first: u64, end: u64| {
        let cacheable = AddressSpaceCacheable::NotCacheable;
        AddressSpace::new_memory(cacheable, true, first as u32, end as u32 - 1, None)
    };
    let resources = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![
            &AddressSpace::new_bus_number(0u16, 0),
            &ports(0xcf8, 8),
            &AddressSpace::new_io(0u16, 0xcf7, None),
            &AddressSpace::new_io(0xd00u16, 0xffff, None),
            &memory(VGA.start, VGA.end),
            &memory(HOLE, IOAPIC),
        ]),
    );
    let mut routes = PackageBuilder::new();
    for slot in 0..SLOTS {
        for pin in 0..4u8 {
            let address = slot << 16 | 0xffff;
            let gsi = PCI_GSI + ((slot as u8 + pin) & 3);
            routes.add_element(&Package::new(vec![&address, &pin, &0u8, &gsi]));
        }
    }
    let routing = Name::new("_PRT".into(), &routes);
    let device = Device::new("PCI0".into(), vec![&hid, &uid, &resources, &routing]);
    Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(body);
}

fn isa_devices(body: &mut Vec<u8>) {
    let mut device = |name: &str, id: &str, resources: Vec<&dyn Aml>| {
        let hid = Name::new("_HID".into(), &EISAName::new(id));
        let uid = Name::new("_UID".into(), &0u8);
        let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
        let device = Device::new(name.into(), vec![&hid, &uid, &crs]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(body);
    };
    device("COM1", "PNP0501", vec![&ports(COM1, 8), &Irq(IRQ_COM1)]);
    device("RTC0", "PNP0B00", vec![&ports(0x70, 2), &Irq(IRQ_RTC)]);
    device("TIMR", "PNP0100", vec![&ports(0x40, 4), &Irq(IRQ_TIMER)]);
    device("SPKR", "PNP0800", vec![&ports(0x61, 1)]);
    device("PIC0", "PNP0000", vec![&ports(0x20, 2), &ports(0xa0, 2), &ports(0x4d0, 2), &Irq(2)]);
    // Ports and memory that belong to the board itself.
    let pm = ports(PM_BASE, acpi_pm::SIZE as u8);
    let command = ports(acpi_pm::COMMAND_PORT, 2);
    let ioapic = Memory32Fixed::new(true, IOAPIC as u32, 0x1000);
    let lapic = Memory32Fixed::new(true, LAPIC as u32, 0x1000);
    device("MBRD", "PNP0C02", vec![&pm, &command, &ioapic, &lapic]);
}
