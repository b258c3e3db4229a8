//! A guest may do anything in any order: no panic, and the state stays sound.

use devices::lapic::{
    Clock, DeliveryMode, DestinationMode, Lint, LocalApic, Message, ProcessorEvent, TriggerMode,
};
use devices::time::Time;
use proptest::prelude::*;

use crate::lapic::*;

#[derive(Clone, Debug)]
enum Operation {
    Read(u16),
    Write(u16, u32),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Base(u64),
    Deliver(Message),
    Lint(bool, bool),
    Raise(u8),
    Accept,
    AcceptExternal,
    SetCr8(u8),
    Wait(u64),
}

fn delivery_mode() -> impl Strategy<Value = DeliveryMode> {
    prop::sample::select(vec![
        DeliveryMode::Fixed,
        DeliveryMode::LowestPriority,
        DeliveryMode::Smi,
        DeliveryMode::Nmi,
        DeliveryMode::Init,
        DeliveryMode::StartUp,
        DeliveryMode::ExtInt,
    ])
}

fn offset() -> impl Strategy<Value = u16> {
    prop_oneof![5 => (0u16..0x40).prop_map(|n| n << 4), 1 => any::<u16>()]
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![
        5 => 0x800u32..0x840,
        1 => Just(0x1b),
        2 => Just(0x6e0),
        1 => any::<u32>(),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..0x100, any::<u32>().prop_map(u64::from), Just(u64::MAX)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let message = (any::<u32>(), any::<bool>(), delivery_mode(), any::<u8>(), any::<bool>())
        .prop_map(|(destination, logical, delivery_mode, vector, level)| Message {
            destination,
            destination_mode: if logical {
                DestinationMode::Logical
            } else {
                DestinationMode::Physical
            },
            delivery_mode,
            vector,
            trigger: if level { TriggerMode::Level } else { TriggerMode::Edge },
        });
    prop_oneof![
        2 => offset().prop_map(Operation::Read),
        6 => (offset(), value()).prop_map(|(offset, value)| Operation::Write(offset, value as u32)),
        2 => index().prop_map(Operation::ReadMsr),
        6 => (index(), value()).prop_map(|(index, value)| Operation::WriteMsr(index, value)),
        1 => prop::sample::select(vec![0, EN, EN | EXTD]).prop_map(Operation::Base),
        4 => message.prop_map(Operation::Deliver),
        2 => any::<(bool, bool)>().prop_map(|(pin, high)| Operation::Lint(pin, high)),
        1 => (0u8..3).prop_map(Operation::Raise),
        3 => Just(Operation::Accept),
        1 => Just(Operation::AcceptExternal),
        1 => any::<u8>().prop_map(Operation::SetCr8),
        2 => prop_oneof![0u64..10_000, any::<u64>()].prop_map(Operation::Wait),
    ]
}

fn apply(apic: &mut LocalApic, clock: &mut Clock, operation: Operation) {
    match operation {
        Operation::Read(offset) => {
            apic.read(offset, *clock);
        }
        Operation::Write(offset, value) => {
            let _ = apic.write(offset, value, *clock);
        }
        Operation::ReadMsr(index) => {
            let _ = apic.read_msr(index, *clock);
        }
        Operation::WriteMsr(index, value) => {
            let _ = apic.write_msr(index, value, *clock);
        }
        Operation::Base(flags) => {
            let _ = apic.write_msr(0x1b, 0xfee0_0000 | flags, *clock);
        }
        Operation::Deliver(message) => {
            if apic.accepts(message.destination, message.destination_mode) {
                let _ = apic.deliver(&message);
            }
            let _ = apic.deliver(&message);
        }
        Operation::Lint(pin, high) => {
            let _ = apic.set_lint(if pin { Lint::Lint1 } else { Lint::Lint0 }, high);
        }
        Operation::Raise(event) => {
            let _ = apic.raise(match event {
                0 => ProcessorEvent::Thermal,
                1 => ProcessorEvent::Performance,
                _ => ProcessorEvent::CorrectedMachineCheck,
            });
        }
        Operation::Accept => {
            let pending = apic.pending();
            let vector = apic.accept();
            assert!(pending.is_none_or(|pending| pending == vector && vector >= 16));
        }
        Operation::AcceptExternal => apic.accept_external(),
        Operation::SetCr8(value) => apic.set_cr8(value),
        // The time-stamp counter may be set back, guest time is not.
        Operation::Wait(ns) => {
            clock.now = clock.now.saturating_add_ns(ns);
            clock.tsc = clock.tsc.wrapping_add(ns);
        }
    }
}

proptest! {
    #[test]
    fn anything_goes(operations in prop::collection::vec(operation(), 1..150)) {
        let mut apic = xapic(1);
        let mut clock = at(0);
        for operation in operations {
            apply(&mut apic, &mut clock, operation);
            apic.advance(clock);
            let once = apic.clone();
            apic.advance(clock);
            prop_assert_eq!(&apic, &once, "advance is idempotent");
            if let Some(next) = apic.next_event().time {
                prop_assert!(next > clock.now || next == Time::MAX);
            }
            if let Some(next) = apic.next_event().tsc {
                prop_assert!(next > clock.tsc);
            }
        }
        let bytes = postcard::to_allocvec(&apic).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<LocalApic>(&bytes).unwrap(), &apic);
    }
}
