//! IA32_APIC_BASE, the three modes, reset and INIT (SDM 3A 11.4.3, 11.4.4, 11.4.7, 11.12.5.1).

use devices::lapic::{DeliveryMode, Gp, IA32_APIC_BASE, Mode, Signal, TriggerMode};
use devices::lapic::{Features, Lint, LocalApic};

use crate::lapic::*;

/// A register and what it holds after a reset.
const AFTER_RESET: [(u16, u32); 22] = [
    (VERSION, 0x0106_0014),
    (TPR, 0),
    (PPR, 0),
    (LDR, 0),
    (DFR, u32::MAX),
    (SVR, 0xff),
    (ISR, 0),
    (TMR, 0),
    (IRR, 0),
    (ESR, 0),
    (ICR, 0),
    (ICR_HIGH, 0),
    (LVT_CMCI, MASKED),
    (LVT_TIMER, MASKED),
    (LVT_THERMAL, MASKED),
    (LVT_PERFORMANCE, MASKED),
    (LVT_LINT0, MASKED),
    (LVT_LINT1, MASKED),
    (LVT_ERROR, MASKED),
    (INITIAL_COUNT, 0),
    (CURRENT_COUNT, 0),
    (DIVIDE, 0),
];

fn assert_registers_are_reset(apic: &mut LocalApic) {
    for (register, value) in AFTER_RESET {
        assert_eq!(get(apic, register), value, "{register:#x}");
    }
}

/// Gives every register that can have one a value that a reset must undo.
fn disturb(apic: &mut LocalApic) {
    for (register, value) in [
        (TPR, 0x50),
        (LDR, 0x0300_0000),
        (DFR, 0),
        (SVR, 0x1ff),
        (LVT_CMCI, 0x50),
        (LVT_TIMER, 0x51),
        (LVT_THERMAL, 0x52),
        (LVT_PERFORMANCE, 0x53),
        (LVT_LINT0, 0x700),
        (LVT_LINT1, 0x400),
        (LVT_ERROR, 0x54),
        (ICR_HIGH, 0x0500_0000),
        (DIVIDE, 0xb),
        (INITIAL_COUNT, 1000),
    ] {
        put(apic, register, value);
    }
    let _ = apic.write(ICR, 0x4060, at(0));
    request(apic, 0x61);
    request(apic, 0x62);
    assert_eq!(apic.accept(), 0x62);
    let level = message(DeliveryMode::Fixed, 0x63, TriggerMode::Level);
    assert_eq!(apic.deliver(&level), NOTHING);
    get(apic, 0x400);
    put(apic, ESR, 0);
    let external = message(DeliveryMode::ExtInt, 0, TriggerMode::Edge);
    assert_eq!(apic.deliver(&external), NOTHING);
}

#[test]
fn after_power_on() {
    let mut apic = LocalApic::new(config(5));
    assert_registers_are_reset(&mut apic);
    assert_eq!(get(&mut apic, ID), 5 << 24);
    assert_eq!(apic.read_msr(IA32_APIC_BASE, at(0)), Ok(0xfee0_0000 | EN));
    assert!(apic.is_waiting_for_sipi());
    assert!(!apic.is_enabled());

    let mut bootstrap = LocalApic::new(config(0));
    assert_eq!(bootstrap.read_msr(IA32_APIC_BASE, at(0)), Ok(0xfee0_0000 | EN | BSP));
    assert!(!bootstrap.is_waiting_for_sipi());
}

#[test]
fn the_version_tells_of_the_cmci_entry() {
    let mut config = config(0);
    config.features.cmci = false;
    let mut apic = LocalApic::new(config);
    assert_eq!(get(&mut apic, VERSION), 0x0105_0014);
}

#[test]
fn reset_returns_to_power_on() {
    for mode in [EN, EN | EXTD, 0] {
        let mut apic = xapic(5);
        disturb(&mut apic);
        set_base(&mut apic, mode | BSP);
        apic.reset();
        assert_eq!(apic, LocalApic::new(config(5)));
    }
}

/// Figure 11-27.
#[test]
fn transitions() {
    let reach = |flags: &[u64]| {
        let mut apic = LocalApic::new(config(1));
        for &flags in flags {
            set_base(&mut apic, flags);
        }
        apic
    };
    let states: [(&[u64], Mode); 3] =
        [(&[0], Mode::Disabled), (&[EN], Mode::XApic), (&[EN | EXTD], Mode::X2Apic)];
    let targets = [
        (0, Some(Mode::Disabled)),
        (EXTD, None),
        (EN, Some(Mode::XApic)),
        (EN | EXTD, Some(Mode::X2Apic)),
    ];
    for (path, from) in states {
        for (flags, to) in targets {
            let illegal = matches!(
                (from, to),
                (_, None)
                    | (Mode::Disabled, Some(Mode::X2Apic))
                    | (Mode::X2Apic, Some(Mode::XApic))
            );
            let mut apic = reach(path);
            let before = apic.clone();
            assert_eq!(apic.mode(), from);
            let result = apic.write_msr(IA32_APIC_BASE, 0xfee0_0000 | flags, at(0));
            if illegal {
                assert_eq!(result, Err(Gp), "{from:?} to {flags:#x}");
                assert_eq!(apic, before);
            } else {
                assert_eq!(result, Ok(NOTHING));
                assert_eq!(Some(apic.mode()), to);
            }
        }
    }
}

#[test]
fn reserved_bits_of_the_base() {
    let mut apic = LocalApic::new(config(0));
    let good = 0xfee0_0000 | EN;
    for bit in (0..8).chain([9]).chain(39..64) {
        assert_eq!(apic.write_msr(IA32_APIC_BASE, good | 1 << bit, at(0)), Err(Gp), "bit {bit}");
    }
    for bit in [8].into_iter().chain(12..39) {
        let value = good | 1 << bit;
        assert_eq!(apic.write_msr(IA32_APIC_BASE, value, at(0)), Ok(NOTHING), "bit {bit}");
        assert_eq!(apic.read_msr(IA32_APIC_BASE, at(0)), Ok(value));
    }
}

#[test]
fn without_x2apic_its_bit_is_reserved() {
    let mut config = config(0);
    config.features = Features { x2apic: false, ..config.features };
    let mut apic = LocalApic::new(config);
    assert_eq!(apic.write_msr(IA32_APIC_BASE, 0xfee0_0000 | EN | EXTD, at(0)), Err(Gp));
}

#[test]
fn relocation() {
    let mut apic = LocalApic::new(config(0));
    assert_eq!(apic.mmio_base(), Some(0xfee0_0000));
    assert_eq!(apic.write_msr(IA32_APIC_BASE, 0x40_1234_5000 | EN, at(0)), Ok(NOTHING));
    assert_eq!(apic.mmio_base(), Some(0x40_1234_5000));
    set_base(&mut apic, EN | EXTD);
    assert_eq!(apic.mmio_base(), None);
    set_base(&mut apic, 0);
    assert_eq!(apic.mmio_base(), None);
}

#[test]
fn memory_mapped_registers_exist_in_xapic_mode_only() {
    for mode in [EN | EXTD, 0] {
        let mut apic = xapic(1);
        set_base(&mut apic, mode);
        let before = apic.clone();
        for offset in (0..0x1000).step_by(16) {
            assert_eq!(get(&mut apic, offset), u32::MAX);
            put(&mut apic, offset, 0x40);
        }
        assert_eq!(apic, before);
    }
}

#[test]
fn disabling_loses_the_state_but_not_the_id() {
    for first in [EN, EN | EXTD] {
        let mut apic = xapic(7);
        disturb(&mut apic);
        set_base(&mut apic, first);
        set_base(&mut apic, 0);
        assert_eq!(apic.pending(), None);
        set_base(&mut apic, EN);
        assert_eq!(get(&mut apic, ID), 7 << 24);
        assert_registers_are_reset(&mut apic);
    }
}

#[test]
fn cr8_works_in_every_mode() {
    for mode in [EN, EN | EXTD, 0] {
        let mut apic = xapic(0);
        set_base(&mut apic, mode);
        apic.set_cr8(0xa);
        assert_eq!(apic.cr8(), 0xa);
        assert_eq!(apic.processor_priority(), 0xa0);
    }
}

/// A disabled local APIC passes the pins through: LINT0 is INTR, LINT1 is NMI.
#[test]
fn pins_of_a_disabled_apic() {
    let mut apic = xapic(0);
    set_base(&mut apic, 0);
    assert!(!apic.external_pending());
    assert_eq!(apic.set_lint(Lint::Lint0, true), NOTHING);
    assert!(apic.external_pending());
    assert_eq!(apic.set_lint(Lint::Lint1, true).signal, Some(Signal::Nmi));
    assert_eq!(apic.set_lint(Lint::Lint1, true).signal, None);
    assert_eq!(apic.set_lint(Lint::Lint1, false).signal, None);
}

#[test]
fn to_x2apic_mode_keeps_all_but_ldr_and_icr_high() {
    let mut apic = xapic(0x123);
    disturb(&mut apic);
    let mut expected: Vec<(u16, u32)> = Vec::new();
    for (register, _) in AFTER_RESET {
        expected.push((register, get(&mut apic, register)));
    }
    set_base(&mut apic, EN | EXTD);
    for (register, value) in expected {
        let value = match register {
            DFR | ICR_HIGH => continue,
            LDR => 0x12 << 16 | 1 << 3,
            _ => value.into(),
        };
        assert_eq!(apic.read_msr(msr(register), at(0)), Ok(value), "{register:#x}");
    }
    assert_eq!(apic.read_msr(msr(ID), at(0)), Ok(0x123));
    set_base(&mut apic, 0);
    set_base(&mut apic, EN);
    assert_eq!(get(&mut apic, ID), 0x23 << 24);
}

#[test]
fn init_keeps_mode_base_and_id() {
    for mode in [EN, EN | EXTD] {
        let mut apic = xapic(9);
        disturb(&mut apic);
        assert_eq!(apic.write_msr(IA32_APIC_BASE, 0xfed0_0000 | mode, at(0)), Ok(NOTHING));
        let init = message(DeliveryMode::Init, 0, TriggerMode::Edge);
        assert_eq!(apic.deliver(&init).signal, Some(Signal::Init));
        assert!(apic.is_waiting_for_sipi());
        assert_eq!(apic.read_msr(IA32_APIC_BASE, at(0)), Ok(0xfed0_0000 | mode));
        assert!(!apic.external_pending());
        if mode == EN {
            assert_registers_are_reset(&mut apic);
        } else {
            assert_eq!(apic.read_msr(msr(SVR), at(0)), Ok(0xff));
            assert_eq!(apic.read_msr(msr(ID), at(0)), Ok(9));
            assert_eq!(apic.read_msr(msr(LDR), at(0)), Ok(1 << 9));
        }
    }
}

#[test]
fn start_up_messages_count_once_and_after_init_only() {
    let sipi = message(DeliveryMode::StartUp, 0x9a, TriggerMode::Edge);
    let init = message(DeliveryMode::Init, 0, TriggerMode::Edge);
    let mut apic = LocalApic::new(config(1));
    assert_eq!(apic.deliver(&sipi).signal, Some(Signal::StartUp(0x9a)));
    assert!(!apic.is_waiting_for_sipi());
    assert_eq!(apic.deliver(&sipi).signal, None);
    assert_eq!(apic.deliver(&init).signal, Some(Signal::Init));
    assert_eq!(apic.deliver(&sipi).signal, Some(Signal::StartUp(0x9a)));

    // The bootstrap processor restarts by itself.
    let mut bootstrap = LocalApic::new(config(0));
    assert_eq!(bootstrap.deliver(&init).signal, Some(Signal::Init));
    assert!(!bootstrap.is_waiting_for_sipi());
    assert_eq!(bootstrap.deliver(&sipi).signal, None);
}
