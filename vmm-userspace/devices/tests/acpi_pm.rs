//! ACPI fixed hardware as an operating system drives it.

use devices::acpi_pm::{
    ACPI_DISABLE, ACPI_ENABLE, AcpiPm, CONTROL_BLOCK, EVENT_BLOCK, GPE0_BLOCK, SLEEP_TYPE_S5,
    SleepRequest, TIMER_BITS, TIMER_BLOCK, TIMER_FREQUENCY,
};
use devices::time::Time;
use proptest::prelude::*;

const T0: Time = Time::ZERO;
const STATUS: u16 = EVENT_BLOCK;
const ENABLE: u16 = EVENT_BLOCK + 2;
const HALF_TURN: u64 = 1 << (TIMER_BITS - 1);

fn read16(pm: &mut AcpiPm, offset: u16, now: Time) -> u16 {
    u16::from_le_bytes([pm.read(offset, now), pm.read(offset + 1, now)])
}

fn write16(pm: &mut AcpiPm, offset: u16, value: u16, now: Time) -> Option<SleepRequest> {
    let [low, high] = value.to_le_bytes();
    let first = pm.write(offset, low, now);
    assert_eq!(first, None);
    pm.write(offset + 1, high, now)
}

fn timer(pm: &mut AcpiPm, now: Time) -> u32 {
    u32::from(read16(pm, TIMER_BLOCK + 2, now)) << 16 | u32::from(read16(pm, TIMER_BLOCK, now))
}

#[test]
fn timer_counts_exactly_and_wraps() {
    let mut pm = AcpiPm::new();
    assert_eq!(timer(&mut pm, T0), 0);
    assert_eq!(timer(&mut pm, Time(1_000_000_000)), 3_579_545);
    let last = Time::of_tick(2 * HALF_TURN - 1, TIMER_FREQUENCY);
    assert_eq!(timer(&mut pm, last), 0x00ff_ffff);
    assert_eq!(timer(&mut pm, last + 280), 0);
    assert_eq!(
        timer(&mut pm, Time(86_400_000_000_000)),
        (86_400 * 3_579_545u64) as u32 & 0xff_ffff
    );
    assert_eq!(pm.write(TIMER_BLOCK, 0x55, T0), None);
    assert_eq!(timer(&mut AcpiPm::new(), T0), 0);
}

#[test]
fn taking_over_and_giving_back() {
    let mut pm = AcpiPm::new();
    assert_eq!(read16(&mut pm, CONTROL_BLOCK, T0) & 1, 0);
    pm.write_command(0, ACPI_ENABLE);
    assert_eq!(read16(&mut pm, CONTROL_BLOCK, T0) & 1, 1);
    pm.write_command(1, 0x77);
    assert_eq!((pm.read_command(0), pm.read_command(1)), (ACPI_ENABLE, 0x77));
    pm.write_command(0, 0x00);
    assert_eq!(read16(&mut pm, CONTROL_BLOCK, T0) & 1, 1);
    pm.write_command(0, ACPI_DISABLE);
    assert_eq!(read16(&mut pm, CONTROL_BLOCK, T0) & 1, 0);
}

#[test]
fn sci_needs_enable_status_and_acpi_mode() {
    let mut pm = AcpiPm::new();
    pm.press_power_button();
    assert_eq!(read16(&mut pm, STATUS, T0), 0x0100);
    assert!(!pm.sci());
    write16(&mut pm, ENABLE, 0xffff, T0);
    assert_eq!(read16(&mut pm, ENABLE, T0), 0x0521);
    assert!(!pm.sci());
    pm.write_command(0, ACPI_ENABLE);
    assert!(pm.sci());
    write16(&mut pm, STATUS, 0xfeff, T0);
    assert!(pm.sci(), "other bits were cleared");
    write16(&mut pm, STATUS, 0x0100, T0);
    assert!(!pm.sci());
    pm.rtc_alarm();
    assert!(pm.sci());
    write16(&mut pm, ENABLE, 0x0000, T0);
    assert!(!pm.sci());
    pm.wake();
    assert_eq!(read16(&mut pm, STATUS, T0), 0x8400);
}

#[test]
fn timer_status_is_set_with_each_change_of_the_top_bit() {
    let mut pm = AcpiPm::new();
    pm.write_command(0, ACPI_ENABLE);
    assert_eq!(pm.next_event(), None);
    write16(&mut pm, ENABLE, 0x0001, T0);
    for turn in 1..5 {
        let at = Time::of_tick(turn * HALF_TURN, TIMER_FREQUENCY);
        assert_eq!(pm.next_event(), Some(at));
        pm.advance(Time(at.0 - 1));
        assert!(!pm.sci());
        pm.advance(at);
        assert!(pm.sci());
        assert_eq!(pm.next_event(), None);
        write16(&mut pm, STATUS, 0x0001, at);
        assert!(!pm.sci());
    }
}

#[test]
fn sleep_is_requested_once_with_its_type() {
    let mut pm = AcpiPm::new();
    let typ = u16::from(SLEEP_TYPE_S5) << 10;
    assert_eq!(write16(&mut pm, CONTROL_BLOCK, typ | 1, T0), None);
    assert_eq!(write16(&mut pm, CONTROL_BLOCK, typ | 0x2001, T0), Some(SleepRequest(5)));
    assert_eq!(read16(&mut pm, CONTROL_BLOCK, T0), typ | 1, "SLP_EN reads as zero");
    assert_eq!(write16(&mut pm, CONTROL_BLOCK, 0x2001, T0), Some(SleepRequest(0)));
}

#[test]
fn general_purpose_events() {
    let mut pm = AcpiPm::new();
    pm.write_command(0, ACPI_ENABLE);
    pm.raise_gpe(9);
    pm.raise_gpe(16);
    assert_eq!(read16(&mut pm, GPE0_BLOCK, T0), 0x0200);
    write16(&mut pm, GPE0_BLOCK + 2, 0x0200, T0);
    assert!(pm.sci());
    write16(&mut pm, GPE0_BLOCK, 0x0200, T0);
    assert!(!pm.sci());
}

#[test]
fn reset_gives_the_hardware_back() {
    let mut pm = AcpiPm::new();
    pm.write_command(0, ACPI_ENABLE);
    write16(&mut pm, ENABLE, 0xffff, T0);
    pm.advance(Time(10_000_000_000));
    assert!(pm.sci());
    pm.reset();
    let now = Time(10_000_000_000);
    let registers = [STATUS, ENABLE, CONTROL_BLOCK].map(|r| read16(&mut pm, r, now));
    assert_eq!(registers, [0; 3]);
}

proptest! {
    #[test]
    fn survives_anything_and_a_snapshot(
        ops in prop::collection::vec((any::<u8>(), any::<u16>(), any::<u8>(), any::<u64>()), 0..200),
    ) {
        let mut pm = AcpiPm::new();
        let mut now = T0;
        for (what, offset, value, wait) in ops {
            now = now + (wait >> (wait % 64));
            match what % 4 {
                0 => _ = pm.write(offset, value, now),
                1 => _ = pm.read(offset, now),
                2 => pm.write_command(offset, value | 0xf0),
                _ => pm.raise_gpe(value),
            }
            pm.advance(now);
            if let Some(at) = pm.next_event() {
                prop_assert!(at > now || at == Time::MAX);
                pm.advance(at);
                prop_assert!(pm.sci() || at == Time::MAX);
            }
            prop_assert!(read16(&mut pm, CONTROL_BLOCK, now) & 0xe3fc == 0);
        }
        let bytes = postcard::to_allocvec(&pm).unwrap();
        prop_assert_eq!(postcard::from_bytes::<AcpiPm>(&bytes).unwrap(), pm);
    }
}
