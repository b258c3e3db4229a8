//! Interrupt, task and processor priority (SDM 3A 11.8.3, 11.8.4, 11.8.5, 11.9).

use std::collections::BTreeSet;

use devices::lapic::{DeliveryMode, Effects, LocalApic, TriggerMode, arbitrate};
use proptest::prelude::*;

use crate::lapic::*;

#[test]
fn higher_classes_interrupt_lower_ones() {
    let mut apic = xapic(0);
    request(&mut apic, 0x45);
    assert_eq!(apic.accept(), 0x45);
    assert_eq!(get(&mut apic, PPR), 0x40);
    request(&mut apic, 0x4f);
    assert_eq!(apic.pending(), None, "same class");
    request(&mut apic, 0x50);
    assert_eq!(apic.accept(), 0x50);
    assert_eq!(vectors(&mut apic, ISR), [0x45, 0x50]);
    put(&mut apic, EOI, 0);
    assert_eq!(vectors(&mut apic, ISR), [0x45]);
    assert_eq!(apic.pending(), None);
    put(&mut apic, EOI, 0);
    assert_eq!(apic.accept(), 0x4f);
    put(&mut apic, EOI, 0);
    assert_eq!(get(&mut apic, PPR), 0);
    put(&mut apic, EOI, 0);
}

#[test]
fn task_priority_holds_back_its_class() {
    let mut apic = xapic(0);
    request(&mut apic, 0x5f);
    put(&mut apic, TPR, 0x50);
    assert_eq!(apic.pending(), None);
    put(&mut apic, TPR, 0x4f);
    assert_eq!(apic.pending(), Some(0x5f));
    assert_eq!(apic.cr8(), 4);
    apic.set_cr8(5);
    assert_eq!(get(&mut apic, TPR), 0x50);
    assert_eq!(apic.pending(), None);
}

#[test]
fn processor_priority_of_equal_classes() {
    let mut apic = xapic(0);
    request(&mut apic, 0x63);
    apic.accept();
    for (tpr, ppr) in [(0x00, 0x60), (0x5f, 0x60), (0x69, 0x69), (0x71, 0x71)] {
        put(&mut apic, TPR, tpr);
        assert_eq!(get(&mut apic, PPR), ppr);
    }
}

#[test]
fn a_request_that_is_held_back_at_the_last_moment_is_spurious() {
    let mut apic = xapic(0);
    put(&mut apic, SVR, ENABLE | 0x7e);
    request(&mut apic, 0x40);
    assert!(apic.pending().is_some());
    put(&mut apic, TPR, 0x40);
    assert_eq!(apic.accept(), 0x7e);
    assert_eq!(vectors(&mut apic, ISR), []);
    assert_eq!(vectors(&mut apic, IRR), [0x40]);
}

#[test]
fn a_vector_can_be_in_service_and_requested_again() {
    let mut apic = xapic(0);
    request(&mut apic, 0x40);
    apic.accept();
    request(&mut apic, 0x40);
    request(&mut apic, 0x40);
    assert_eq!(vectors(&mut apic, IRR), [0x40]);
    assert_eq!(vectors(&mut apic, ISR), [0x40]);
    put(&mut apic, EOI, 0);
    assert_eq!(apic.accept(), 0x40);
    put(&mut apic, EOI, 0);
    assert_eq!(apic.pending(), None, "a third one was merged");
}

#[test]
fn eoi_of_a_level_interrupt_is_broadcast() {
    let level = message(DeliveryMode::Fixed, 0x48, TriggerMode::Level);
    let mut apic = xapic(0);
    assert_eq!(apic.deliver(&level), NOTHING);
    assert_eq!(vectors(&mut apic, TMR), [0x48]);
    request(&mut apic, 0x90);
    apic.accept();
    assert_eq!(apic.write(EOI, 0, at(0)), NOTHING);
    apic.accept();
    assert_eq!(apic.write(EOI, 0, at(0)), Effects { eoi: Some(0x48), ..NOTHING });
    // Accepting the vector as an edge clears its TMR bit.
    request(&mut apic, 0x48);
    assert_eq!(vectors(&mut apic, TMR), []);
    apic.accept();
    assert_eq!(apic.write(EOI, 0, at(0)), NOTHING);
    // SVR bit 12 suppresses the broadcast.
    put(&mut apic, SVR, 1 << 12 | ENABLE | 0xff);
    assert_eq!(apic.deliver(&level), NOTHING);
    apic.accept();
    assert_eq!(apic.write(EOI, 0, at(0)), NOTHING);
    assert_eq!(vectors(&mut apic, ISR), []);
    // The same in x2APIC mode.
    let mut apic = x2apic(0);
    assert_eq!(apic.deliver(&level), NOTHING);
    apic.accept();
    assert_eq!(apic.write_msr(msr(EOI), 0, at(0)), Ok(Effects { eoi: Some(0x48), ..NOTHING }));
}

#[test]
fn arbitration_priority() {
    let mut apic = xapic(0);
    put(&mut apic, TPR, 0x35);
    assert_eq!(get(&mut apic, APR), 0x35);
    request(&mut apic, 0x41);
    assert_eq!(get(&mut apic, APR), 0x40, "requests count");
    put(&mut apic, TPR, 0x45);
    assert_eq!(get(&mut apic, APR), 0x45, "not below the request, above what is in service");
    put(&mut apic, TPR, 0);
    apic.accept();
    put(&mut apic, TPR, 0x4a);
    assert_eq!(get(&mut apic, APR), 0x40, "not above what is in service");
}

#[test]
fn the_least_busy_cpu() {
    let mut apics = [0, 1, 2, 3].map(xapic);
    let choose = |apics: &[LocalApic], first| arbitrate(apics.iter().enumerate(), first);
    for first in 0..4 {
        assert_eq!(choose(&apics, first), Some(first), "equals take turns");
    }
    put(&mut apics[0], TPR, 0x20);
    put(&mut apics[2], TPR, 0x10);
    assert_eq!(choose(&apics, 2), Some(3));
    put(&mut apics[1], TPR, 0x20);
    put(&mut apics[3], TPR, 0x20);
    assert_eq!(choose(&apics, 0), Some(2));
    put(&mut apics[2], SVR, 0xff);
    assert_eq!(choose(&apics, 0), Some(0), "one that is disabled by software takes no part");
    assert_eq!(choose(&[], 0), None);
}

/// The definitions, over plain sets.
#[derive(Default)]
struct Model {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    level: BTreeSet<u8>,
    tpr: u8,
}

impl Model {
    fn pending(&self) -> Option<u8> {
        let candidates = self.requested.iter().copied().filter(|vector| {
            vector / 16 > self.tpr / 16 && self.in_service.iter().all(|s| vector / 16 > s / 16)
        });
        candidates.max()
    }
}

proptest! {
    #[test]
    fn priorities(operations in prop::collection::vec((0u8..5, any::<u8>(), any::<bool>()), 1..200)) {
        let mut apic = xapic(0);
        let mut model = Model::default();
        for (kind, value, level) in operations {
            match kind {
                0 | 1 => {
                    let vector = value.max(16);
                    let trigger = if level { TriggerMode::Level } else { TriggerMode::Edge };
                    let effects = apic.deliver(&message(DeliveryMode::Fixed, vector, trigger));
                    prop_assert_eq!(effects, NOTHING);
                    model.requested.insert(vector);
                    model.level.remove(&vector);
                    if level {
                        model.level.insert(vector);
                    }
                }
                2 => {
                    model.tpr = value;
                    put(&mut apic, TPR, value.into());
                }
                3 => {
                    let expected = model.pending();
                    prop_assert_eq!(apic.accept(), expected.unwrap_or(0xff));
                    if let Some(vector) = expected {
                        model.requested.remove(&vector);
                        model.in_service.insert(vector);
                    }
                }
                _ => {
                    let vector = model.in_service.pop_last();
                    let eoi = vector.filter(|vector| model.level.contains(vector));
                    let effects = apic.write(EOI, 0, at(0));
                    prop_assert_eq!(effects, Effects { eoi, ..NOTHING });
                }
            }
            prop_assert_eq!(apic.pending(), model.pending());
            prop_assert!(vectors(&mut apic, ISR).into_iter().eq(model.in_service.iter().copied()));
            prop_assert!(vectors(&mut apic, IRR).into_iter().eq(model.requested.iter().copied()));
        }
    }
}
