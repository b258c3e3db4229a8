//! The local vector table and its sources (SDM 3A 11.5.1).

use devices::lapic::{Effects, Lint, LocalApic, ProcessorEvent, Signal};

use crate::lapic::*;

const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const ACTIVE_LOW: u32 = 1 << 13;

const ALL: [u16; 7] =
    [LVT_CMCI, LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR];

fn pulse(apic: &mut LocalApic, pin: Lint) -> Option<Signal> {
    let signal = apic.set_lint(pin, true).signal;
    assert_eq!(apic.set_lint(pin, false), NOTHING);
    signal
}

#[test]
fn masks_are_forced_while_disabled_by_software() {
    let mut apic = xapic(0);
    for register in ALL {
        put(&mut apic, register, 0x40);
    }
    put(&mut apic, SVR, 0xff);
    for register in ALL {
        assert_eq!(get(&mut apic, register), MASKED | 0x40);
        put(&mut apic, register, 0x41);
        assert_eq!(get(&mut apic, register), MASKED | 0x41);
    }
    put(&mut apic, SVR, ENABLE | 0xff);
    for register in ALL {
        assert_eq!(get(&mut apic, register), MASKED | 0x41, "enabling does not unmask");
        put(&mut apic, register, 0x41);
        assert_eq!(get(&mut apic, register), 0x41);
    }
    // The same by MSR.
    let mut apic = x2apic(0);
    assert_eq!(apic.write_msr(msr(SVR), 0xff, at(0)), Ok(NOTHING));
    assert_eq!(apic.write_msr(msr(LVT_ERROR), 0x41, at(0)), Ok(NOTHING));
    assert_eq!(apic.read_msr(msr(LVT_ERROR), at(0)), Ok(0x1_0041));
}

#[test]
fn delivery_modes_of_a_pin() {
    for (pin, register) in [(Lint::Lint0, LVT_LINT0), (Lint::Lint1, LVT_LINT1)] {
        let mut apic = xapic(0);
        assert_eq!(pulse(&mut apic, pin), None);
        for (mode, signal) in [(0x200, Signal::Smi), (0x400, Signal::Nmi), (0x500, Signal::Init)] {
            let mut apic = xapic(0);
            // These are edges even if programmed as levels.
            put(&mut apic, register, mode | LEVEL);
            assert_eq!(apic.set_lint(pin, true).signal, Some(signal));
            assert_eq!(apic.set_lint(pin, true), NOTHING);
        }
        put(&mut apic, register, 0x45);
        assert_eq!(pulse(&mut apic, pin), None);
        assert_eq!(apic.accept(), 0x45);
        put(&mut apic, EOI, 0);
        put(&mut apic, register, MASKED | 0x45);
        assert_eq!(pulse(&mut apic, pin), None);
        assert_eq!(apic.pending(), None);
    }
}

#[test]
fn external_interrupts_follow_the_pin() {
    for (pin, register) in [(Lint::Lint0, LVT_LINT0), (Lint::Lint1, LVT_LINT1)] {
        let mut apic = xapic(0);
        put(&mut apic, register, 0x700);
        assert!(!apic.external_pending());
        assert_eq!(apic.set_lint(pin, true), NOTHING);
        assert!(apic.external_pending());
        apic.accept_external();
        assert!(apic.external_pending(), "as long as the pin is high");
        put(&mut apic, register, MASKED | 0x700);
        assert!(!apic.external_pending());
        put(&mut apic, register, 0x700);
        assert_eq!(apic.set_lint(pin, false), NOTHING);
        assert!(!apic.external_pending());
        put(&mut apic, register, ACTIVE_LOW | 0x700);
        assert!(apic.external_pending());
    }
}

#[test]
fn level_triggered_lint0() {
    let mut apic = xapic(0);
    assert_eq!(apic.set_lint(Lint::Lint0, true), NOTHING);
    put(&mut apic, LVT_LINT0, LEVEL | 0x45);
    assert_eq!(get(&mut apic, LVT_LINT0), LEVEL | REMOTE_IRR | 0x45);
    assert_eq!(apic.accept(), 0x45);
    // Until the EOI neither the pin nor a write of the entry requests it again.
    assert_eq!(apic.set_lint(Lint::Lint0, true), NOTHING);
    put(&mut apic, LVT_LINT0, LEVEL | 0x45);
    assert_eq!(get(&mut apic, LVT_LINT0), LEVEL | REMOTE_IRR | 0x45);
    assert_eq!(vectors(&mut apic, IRR), []);
    assert_eq!(apic.write(EOI, 0, at(0)), Effects { eoi: Some(0x45), ..NOTHING });
    assert_eq!(apic.pending(), Some(0x45), "the pin is still high");
    apic.accept();
    assert_eq!(apic.set_lint(Lint::Lint0, false), NOTHING);
    let _ = apic.write(EOI, 0, at(0));
    assert_eq!(apic.pending(), None);
    assert_eq!(get(&mut apic, LVT_LINT0), LEVEL | 0x45);
    // Active low.
    put(&mut apic, LVT_LINT0, LEVEL | ACTIVE_LOW | 0x46);
    assert_eq!(apic.accept(), 0x46);
    // Edge mode has no Remote IRR.
    put(&mut apic, LVT_LINT0, 0x46);
    assert_eq!(get(&mut apic, LVT_LINT0), 0x46);
}

#[test]
fn lint1_is_edge_triggered() {
    let mut apic = xapic(0);
    put(&mut apic, LVT_LINT1, LEVEL | 0x45);
    assert_eq!(apic.set_lint(Lint::Lint1, true), NOTHING);
    assert_eq!(apic.accept(), 0x45);
    assert_eq!(apic.write(EOI, 0, at(0)), NOTHING);
    assert_eq!(apic.pending(), None);
}

#[test]
fn events_of_the_processor() {
    for (event, register) in [
        (ProcessorEvent::Thermal, LVT_THERMAL),
        (ProcessorEvent::Performance, LVT_PERFORMANCE),
        (ProcessorEvent::CorrectedMachineCheck, LVT_CMCI),
    ] {
        let mut apic = xapic(0);
        assert_eq!(apic.raise(event), NOTHING);
        assert_eq!(apic.pending(), None);
        put(&mut apic, register, 0x45);
        assert_eq!(apic.raise(event), NOTHING);
        assert_eq!(apic.accept(), 0x45);
        put(&mut apic, register, 0x400);
        assert_eq!(apic.raise(event).signal, Some(Signal::Nmi));
        let masked = get(&mut apic, register) & MASKED != 0;
        assert_eq!(masked, event == ProcessorEvent::Performance, "only a PMI masks itself");
    }
}
