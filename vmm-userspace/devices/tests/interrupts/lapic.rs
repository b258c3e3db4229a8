//! What the tests of the local APIC share.

use core::num::NonZeroU64;

use devices::lapic::{
    Clock, Config, DeliveryMode, DestinationMode, Effects, Features, IA32_APIC_BASE, LocalApic,
    Message, TriggerMode,
};
use devices::time::Time;

pub const ID: u16 = 0x20;
pub const VERSION: u16 = 0x30;
pub const TPR: u16 = 0x80;
pub const APR: u16 = 0x90;
pub const PPR: u16 = 0xa0;
pub const EOI: u16 = 0xb0;
pub const LDR: u16 = 0xd0;
pub const DFR: u16 = 0xe0;
pub const SVR: u16 = 0xf0;
pub const ISR: u16 = 0x100;
pub const TMR: u16 = 0x180;
pub const IRR: u16 = 0x200;
pub const ESR: u16 = 0x280;
pub const LVT_CMCI: u16 = 0x2f0;
pub const ICR: u16 = 0x300;
pub const ICR_HIGH: u16 = 0x310;
pub const LVT_TIMER: u16 = 0x320;
pub const LVT_THERMAL: u16 = 0x330;
pub const LVT_PERFORMANCE: u16 = 0x340;
pub const LVT_LINT0: u16 = 0x350;
pub const LVT_LINT1: u16 = 0x360;
pub const LVT_ERROR: u16 = 0x370;
pub const INITIAL_COUNT: u16 = 0x380;
pub const CURRENT_COUNT: u16 = 0x390;
pub const DIVIDE: u16 = 0x3e0;
pub const SELF_IPI: u16 = 0x3f0;

pub const MASKED: u32 = 1 << 16;
pub const ENABLE: u32 = 1 << 8;

pub const EN: u64 = 1 << 11;
pub const EXTD: u64 = 1 << 10;
pub const BSP: u64 = 1 << 8;

pub const NOTHING: Effects = Effects { ipi: None, eoi: None, signal: None };

pub fn config(id: u32) -> Config {
    Config {
        id,
        bootstrap: id == 0,
        physical_address_bits: 39,
        timer_hz: NonZeroU64::new(1_000_000_000).unwrap(),
        features: Features { x2apic: true, tsc_deadline: true, cmci: true },
    }
}

/// Guest time in ns, and a TSC that runs at 2 GHz.
pub fn at(ns: u64) -> Clock {
    Clock { now: Time(ns), tsc: ns.saturating_mul(2) }
}

/// MSR number of a register.
pub fn msr(register: u16) -> u32 {
    0x800 + u32::from(register >> 4)
}

pub fn get(apic: &mut LocalApic, register: u16) -> u32 {
    apic.read(register, at(0))
}

pub fn put(apic: &mut LocalApic, register: u16, value: u32) {
    assert_eq!(apic.write(register, value, at(0)), NOTHING);
}

pub fn set_base(apic: &mut LocalApic, flags: u64) {
    assert_eq!(apic.write_msr(IA32_APIC_BASE, 0xfee0_0000 | flags, at(0)), Ok(NOTHING));
}

/// In xAPIC mode, enabled by software, spurious vector 0xff.
pub fn xapic(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(config(id));
    put(&mut apic, SVR, ENABLE | 0xff);
    apic
}

/// In x2APIC mode, enabled by software, spurious vector 0xff.
pub fn x2apic(id: u32) -> LocalApic {
    let mut apic = xapic(id);
    set_base(&mut apic, EN | EXTD);
    apic
}

pub fn message(delivery_mode: DeliveryMode, vector: u8, trigger: TriggerMode) -> Message {
    Message {
        destination: 0,
        destination_mode: DestinationMode::Physical,
        delivery_mode,
        vector,
        trigger,
    }
}

pub fn request(apic: &mut LocalApic, vector: u8) {
    let message = message(DeliveryMode::Fixed, vector, TriggerMode::Edge);
    assert_eq!(apic.deliver(&message), NOTHING);
}

/// The 256 bits of ISR, TMR or IRR as a list of vectors.
pub fn vectors(apic: &mut LocalApic, first: u16) -> Vec<u8> {
    (0..=255u8).filter(|v| get(apic, first + u16::from(v / 32) * 16) >> (v % 32) & 1 != 0).collect()
}
