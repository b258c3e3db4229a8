//! The keyboard controller as operating systems probe it, and its resets.

use devices::i8042::{COMMAND, DATA, I8042};
use devices::reset_control::ResetRequest;
use devices::time::Time;
use proptest::prelude::*;

const T0: Time = Time::ZERO;

fn command(kbc: &mut I8042, byte: u8) -> Option<ResetRequest> {
    kbc.write(COMMAND, byte, T0)
}

fn data(kbc: &mut I8042, byte: u8) -> Option<ResetRequest> {
    kbc.write(DATA, byte, T0)
}

/// Sends a command without parameter and reads its answer.
fn ask(kbc: &mut I8042, byte: u8) -> Option<u8> {
    command(kbc, byte);
    answer(kbc)
}

fn answer(kbc: &mut I8042) -> Option<u8> {
    (kbc.read(COMMAND, T0) & 1 != 0).then(|| kbc.read(DATA, T0))
}

fn set_mode(kbc: &mut I8042, mode: u8) {
    command(kbc, 0x60);
    data(kbc, mode);
}

#[test]
fn tests_itself_and_its_interfaces() {
    let mut kbc = I8042::new();
    assert_eq!(kbc.read(COMMAND, T0), 0x10, "empty, not yet tested, not locked");
    assert_eq!(ask(&mut kbc, 0xaa), Some(0x55));
    assert_eq!(kbc.read(COMMAND, T0), 0x1c, "system flag; a command was last");
    assert_eq!(ask(&mut kbc, 0xab), Some(0x00));
    assert_eq!(ask(&mut kbc, 0xa9), Some(0x00));
    assert_eq!(ask(&mut kbc, 0xa4), Some(0xf1));
    assert_eq!(ask(&mut kbc, 0xc0), Some(0x80));
    assert_eq!(ask(&mut kbc, 0x99), None);
}

#[test]
fn command_byte_and_interface_switches() {
    let mut kbc = I8042::new();
    assert_eq!(ask(&mut kbc, 0x20), Some(0x30));
    assert_eq!(ask(&mut kbc, 0xe0), Some(0x00));
    command(&mut kbc, 0xa8);
    assert_eq!(ask(&mut kbc, 0x20), Some(0x10));
    command(&mut kbc, 0xae);
    assert_eq!(ask(&mut kbc, 0x20), Some(0x00));
    assert_eq!(ask(&mut kbc, 0xe0), Some(0x03));
    command(&mut kbc, 0xa7);
    command(&mut kbc, 0xad);
    assert_eq!(ask(&mut kbc, 0x20), Some(0x30));
    set_mode(&mut kbc, 0x47);
    assert_eq!(kbc.read(COMMAND, T0) & 0x0c, 0x04, "system flag; data was last");
    assert_eq!(ask(&mut kbc, 0x20), Some(0x47));
    command(&mut kbc, 0x7f);
    data(&mut kbc, 0x5a);
    assert_eq!(ask(&mut kbc, 0x3f), Some(0x5a));
}

/// Linux tells the auxiliary port, and that it is no multiplexer, by bytes looped through it.
#[test]
fn auxiliary_loop() {
    let mut kbc = I8042::new();
    set_mode(&mut kbc, 0x02);
    for byte in [0x5a, 0xf0, 0x56, 0xa4] {
        command(&mut kbc, 0xd3);
        assert!(!kbc.irq_aux());
        data(&mut kbc, byte);
        assert_eq!(kbc.read(COMMAND, T0) & 0x21, 0x21);
        assert!(kbc.irq_aux() && !kbc.irq_keyboard());
        assert_eq!(ask(&mut kbc, 0xd0).map(|port| port & 0x30), Some(0x20));
        command(&mut kbc, 0xd3);
        data(&mut kbc, byte);
        assert_eq!(answer(&mut kbc), Some(byte));
        assert!(!kbc.irq_aux());
    }
}

#[test]
fn keyboard_loop_and_interrupt() {
    let mut kbc = I8042::new();
    command(&mut kbc, 0xd2);
    data(&mut kbc, 0x1e);
    assert!(!kbc.irq_keyboard(), "not enabled");
    set_mode(&mut kbc, 0x01);
    assert!(kbc.irq_keyboard() && !kbc.irq_aux());
    assert_eq!(kbc.read(COMMAND, T0) & 0x21, 0x01);
    assert_eq!(answer(&mut kbc), Some(0x1e));
    assert!(!kbc.irq_keyboard());
}

#[test]
fn absent_devices_time_out_at_once() {
    let mut kbc = I8042::new();
    data(&mut kbc, 0xff);
    assert_eq!(kbc.read(COMMAND, T0) & 0x61, 0x41);
    assert_eq!(answer(&mut kbc), Some(0xfe));
    assert_eq!(ask(&mut kbc, 0x20), Some(0x20), "its interface is on now");
    assert_eq!(kbc.read(COMMAND, T0) & 0x61, 0, "the error goes with its byte");
    command(&mut kbc, 0xd4);
    data(&mut kbc, 0xf2);
    assert_eq!(kbc.read(COMMAND, T0) & 0x61, 0x61);
    assert_eq!(answer(&mut kbc), Some(0xfe));
}

#[test]
fn resets() {
    let mut kbc = I8042::new();
    assert_eq!(command(&mut kbc, 0xfe), Some(ResetRequest::System));
    assert_eq!(command(&mut kbc, 0xff), None, "pulses nothing");
    command(&mut kbc, 0xd1);
    assert_eq!(data(&mut kbc, 0xfe), Some(ResetRequest::System));
    assert_eq!(ask(&mut kbc, 0xd0).map(|port| port & 1), Some(1));
    // A command in between takes the place of the one that waits.
    command(&mut kbc, 0xd1);
    command(&mut kbc, 0xae);
    assert_eq!(data(&mut kbc, 0xfe), None);
}

#[test]
fn address_line_20() {
    let mut kbc = I8042::new();
    assert!(kbc.a20());
    command(&mut kbc, 0xd1);
    data(&mut kbc, 0xdd);
    assert!(!kbc.a20());
    command(&mut kbc, 0xd1);
    data(&mut kbc, 0xdf);
    assert!(kbc.a20());
    command(&mut kbc, 0xdd);
    assert!(!kbc.a20());
    command(&mut kbc, 0xdf);
    assert!(kbc.a20());
    assert_eq!(ask(&mut kbc, 0xd0).map(|port| port & 3), Some(3));
}

#[test]
fn ports_between_are_not_its_own() {
    let mut kbc = I8042::new();
    assert_eq!(kbc.write(1, 0xfe, T0), None);
    assert_eq!(kbc.read(1, T0), 0xff);
    assert_eq!(kbc, I8042::new());
}

proptest! {
    #[test]
    fn survives_anything_and_a_snapshot(
        ops in prop::collection::vec((0u16..6, any::<u8>(), any::<bool>()), 0..300),
    ) {
        let mut kbc = I8042::new();
        for (offset, value, write) in ops {
            if write {
                let reset = kbc.write(offset, value, T0);
                prop_assert!(reset.is_none() || value & 1 == 0);
            } else {
                kbc.read(offset, T0);
            }
        }
        let bytes = postcard::to_allocvec(&kbc).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<I8042>(&bytes).unwrap(), &kbc);
        kbc.reset();
        prop_assert_eq!(kbc, I8042::new());
    }
}
