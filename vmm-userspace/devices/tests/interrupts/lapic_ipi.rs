//! Interprocessor interrupts (SDM 3A 11.6.1, 11.12.9, 11.12.11).

use devices::lapic::{
    BROADCAST, DeliveryMode, DestinationMode, Gp, Ipi, LocalApic, Message, Mode, Shorthand,
    TriggerMode,
};

use crate::lapic::*;

fn send(apic: &mut LocalApic, destination: u8, low: u32) -> Option<Ipi> {
    put(apic, ICR_HIGH, u32::from(destination) << 24);
    let effects = apic.write(ICR, low, at(0));
    assert_eq!((effects.eoi, effects.signal), (None, None));
    effects.ipi
}

#[test]
fn fields_of_the_command() {
    let mut apic = xapic(2);
    assert_eq!(
        send(&mut apic, 7, 0x4041),
        Some(Ipi {
            sender: 2,
            shorthand: Shorthand::None,
            message: Message {
                destination: 7,
                destination_mode: DestinationMode::Physical,
                delivery_mode: DeliveryMode::Fixed,
                vector: 0x41,
                trigger: TriggerMode::Edge,
            },
        })
    );
    assert_eq!(get(&mut apic, ICR), 0x4041);
    assert_eq!(get(&mut apic, ICR_HIGH), 7 << 24);
    let ipi = send(&mut apic, 7, 0x4841).unwrap();
    assert_eq!(ipi.message.destination_mode, DestinationMode::Logical);
    assert_eq!(send(&mut apic, 0xff, 0x4041).unwrap().message.destination, BROADCAST);
}

#[test]
fn delivery_modes() {
    for (bits, mode) in [
        (0, Some(DeliveryMode::Fixed)),
        (1, Some(DeliveryMode::LowestPriority)),
        (2, Some(DeliveryMode::Smi)),
        (3, None),
        (4, Some(DeliveryMode::Nmi)),
        (5, Some(DeliveryMode::Init)),
        (6, Some(DeliveryMode::StartUp)),
        (7, None),
    ] {
        let mut apic = xapic(0);
        let ipi = send(&mut apic, 1, 0x4000 | bits << 8 | 0x40);
        assert_eq!(ipi.map(|ipi| ipi.message.delivery_mode), mode);
    }
}

#[test]
fn level_triggered_commands_are_sent_as_edges() {
    let mut apic = xapic(0);
    let ipi = send(&mut apic, 1, 0xc041).unwrap();
    assert_eq!(ipi.message.trigger, TriggerMode::Edge);
    assert_eq!(get(&mut apic, ICR), 0xc041);
}

#[test]
fn init_level_deassert_does_nothing() {
    let mut apic = xapic(0);
    assert_eq!(send(&mut apic, 1, 0x8500), None);
    assert!(send(&mut apic, 1, 0xc500).is_some());
    assert!(send(&mut apic, 1, 0x4500).is_some());
    assert!(send(&mut apic, 1, 0x0500).is_some());
}

#[test]
fn an_apic_that_is_disabled_by_software_can_send() {
    let mut apic = LocalApic::new(config(0));
    assert!(send(&mut apic, 1, 0x4500).is_some());
}

#[test]
fn shorthands() {
    let mut apics = [0, 1, 2, 3].map(xapic);
    set_base(&mut apics[3], 0);
    assert_eq!(apics[3].mode(), Mode::Disabled);
    for (low, expected) in [
        (0x0_4040, [false, true, false, false]),
        (0x4_4040, [true, false, false, false]),
        (0x8_4040, [true, true, true, false]),
        (0xc_4040, [false, true, true, false]),
    ] {
        let ipi = send(&mut apics[0], 1, low).unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| ipi.reaches(&apics[n])), expected, "{low:#x}");
    }
}

#[test]
fn x2apic_commands_are_one_write() {
    let mut apic = x2apic(0);
    let command = 0x0000_1234_0000_4041;
    let ipi = apic.write_msr(msr(ICR), command, at(0)).unwrap().ipi.unwrap();
    assert_eq!(ipi.message.destination, 0x1234);
    assert_eq!(apic.read_msr(msr(ICR), at(0)), Ok(command));
    // 0xff is a destination like others; 0xffffffff is the broadcast.
    let ipi = apic.write_msr(msr(ICR), 0xff_0000_4041, at(0)).unwrap().ipi.unwrap();
    assert!(!ipi.reaches(&apic));
    let ipi = apic.write_msr(msr(ICR), 0xffff_ffff_0000_4841, at(0)).unwrap().ipi.unwrap();
    assert!(ipi.reaches(&apic));
    assert_eq!(apic.write_msr(msr(ICR), 0x5041, at(0)), Err(Gp), "no delivery status");
}

#[test]
fn self_ipi() {
    let mut apic = x2apic(0x105);
    let ipi = apic.write_msr(msr(SELF_IPI), 0x77, at(0)).unwrap().ipi.unwrap();
    assert_eq!(ipi.shorthand, Shorthand::Own);
    assert!(ipi.reaches(&apic));
    assert!(!ipi.reaches(&x2apic(5)));
    assert_eq!(apic.deliver(&ipi.message), NOTHING);
    assert_eq!(apic.accept(), 0x77);
    assert_eq!(apic.write_msr(msr(EOI), 0, at(0)), Ok(NOTHING), "an edge: no broadcast");
    assert_eq!(apic.read_msr(msr(ICR), at(0)), Ok(0), "the ICR is not touched");
}
