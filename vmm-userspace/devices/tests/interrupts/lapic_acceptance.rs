//! Destinations, and what a local APIC accepts (SDM 3A 11.4.7.2, 11.6.2, 11.12.10).

use devices::lapic::{BROADCAST, DeliveryMode, DestinationMode, LocalApic, Signal, TriggerMode};
use proptest::prelude::*;

use crate::lapic::*;

use DestinationMode::{Logical, Physical};

#[test]
fn physical_destinations_in_xapic_mode() {
    let apic = xapic(0x21);
    for destination in 0..=0x1ff {
        let expected = destination == 0x21 || destination == 0xff;
        assert_eq!(apic.accepts(destination, Physical), expected);
    }
    assert!(apic.accepts(BROADCAST, Physical));
}

#[test]
fn physical_destinations_in_x2apic_mode() {
    let apic = x2apic(0x121);
    for destination in 0..=0x1ff {
        assert_eq!(apic.accepts(destination, Physical), destination == 0x121);
    }
    assert!(apic.accepts(BROADCAST, Physical));
}

#[test]
fn flat_model() {
    let mut apic = xapic(0);
    put(&mut apic, LDR, 0x0600_0000);
    for destination in 0..0xff {
        assert_eq!(apic.accepts(destination, Logical), destination & 6 != 0);
    }
    assert!(!apic.accepts(0x106, Logical));
    put(&mut apic, LDR, 0);
    assert!(!apic.accepts(0x7f, Logical));
    assert!(apic.accepts(0xff, Logical), "broadcast");
    assert!(apic.accepts(BROADCAST, Logical));
}

#[test]
fn cluster_model() {
    let mut apic = xapic(0);
    put(&mut apic, DFR, 0);
    put(&mut apic, LDR, 0x3500_0000);
    for destination in 0..0xff {
        let expected = destination >> 4 == 3 && destination & 5 != 0;
        assert_eq!(apic.accepts(destination, Logical), expected, "{destination:#x}");
    }
    assert!(apic.accepts(0xff, Logical));
    // A model that does not exist.
    put(&mut apic, DFR, 0x7000_0000);
    for destination in 0..0xff {
        assert!(!apic.accepts(destination, Logical));
    }
}

#[test]
fn a_disabled_apic_accepts_nothing() {
    let mut apic = xapic(0);
    set_base(&mut apic, 0);
    for mode in [Physical, Logical] {
        for destination in [0, 0xff, BROADCAST] {
            assert!(!apic.accepts(destination, mode));
        }
    }
    let before = apic.clone();
    for (mode, _) in SIGNALS {
        assert_eq!(apic.deliver(&message(mode, 0x40, TriggerMode::Edge)), NOTHING);
    }
    assert_eq!(apic.deliver(&message(DeliveryMode::Fixed, 0x40, TriggerMode::Edge)), NOTHING);
    assert_eq!(apic, before);
}

const SIGNALS: [(DeliveryMode, Signal); 3] = [
    (DeliveryMode::Nmi, Signal::Nmi),
    (DeliveryMode::Smi, Signal::Smi),
    (DeliveryMode::Init, Signal::Init),
];

#[test]
fn disabled_by_software() {
    for mode in [EN, EN | EXTD] {
        let mut apic = LocalApic::new(config(0));
        set_base(&mut apic, mode);
        assert!(apic.accepts(0, Physical));
        for delivery_mode in
            [DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::ExtInt]
        {
            assert_eq!(apic.deliver(&message(delivery_mode, 0x40, TriggerMode::Edge)), NOTHING);
        }
        assert_eq!(apic.pending(), None);
        assert!(!apic.external_pending());
        for (delivery_mode, signal) in SIGNALS {
            let effects = apic.deliver(&message(delivery_mode, 0, TriggerMode::Edge));
            assert_eq!(effects.signal, Some(signal));
        }
    }
}

#[test]
fn disabling_by_software_holds_what_was_accepted() {
    let mut apic = xapic(0);
    request(&mut apic, 0x40);
    request(&mut apic, 0x50);
    apic.accept();
    put(&mut apic, SVR, 0xff);
    assert_eq!(vectors(&mut apic, IRR), [0x40]);
    assert_eq!(vectors(&mut apic, ISR), [0x50]);
    put(&mut apic, EOI, 0);
    assert_eq!(apic.accept(), 0x40);
}

#[test]
fn an_external_interrupt_message_waits_for_its_acknowledge() {
    let mut apic = xapic(0);
    put(&mut apic, TPR, 0xff);
    let external = message(DeliveryMode::ExtInt, 0x40, TriggerMode::Edge);
    assert_eq!(apic.deliver(&external), NOTHING);
    assert!(apic.external_pending(), "whatever the priority");
    assert_eq!(apic.pending(), None);
    apic.accept_external();
    assert!(!apic.external_pending());
    assert_eq!(vectors(&mut apic, ISR), []);
}

proptest! {
    /// 11.12.10.2: the logical ID that the LDR shows names its own APIC and, cluster by cluster, no
    /// other.
    #[test]
    fn logical_x2apic_ids(id in 0u32..0x10_0000, other in 0u32..0x10_0000) {
        let mut apic = x2apic(id);
        let other_apic = x2apic(other);
        let ldr = apic.read_msr(msr(LDR), at(0)).unwrap() as u32;
        prop_assert!(apic.accepts(ldr, Logical));
        prop_assert_eq!(ldr.count_ones() - (ldr >> 16).count_ones(), 1);
        prop_assert_eq!(other_apic.accepts(ldr, Logical), id == other);
        prop_assert!(!apic.accepts(ldr & !0xffff, Logical));
        let whole_cluster = ldr | 0xffff;
        prop_assert_eq!(
            other_apic.accepts(whole_cluster, Logical),
            id >> 4 == other >> 4 || whole_cluster == BROADCAST
        );
    }
}
