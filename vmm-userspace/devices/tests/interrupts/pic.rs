//! The 8259A pair, mode by mode.

use devices::pic::{
    ELCR_MASTER, ELCR_SLAVE, MASTER_COMMAND, MASTER_DATA, Pic, SLAVE_COMMAND, SLAVE_DATA,
};

const NON_SPECIFIC_EOI: u8 = 0x20;
const READ_IRR: u8 = 0x0a;
const READ_ISR: u8 = 0x0b;
const POLL: u8 = 0x0c;
const SET_SPECIAL_MASK: u8 = 0x68;
const CLEAR_SPECIAL_MASK: u8 = 0x48;

/// ICW1 to ICW4 as PC firmware writes them, with vectors 0x30 and 0x38.
pub fn initialized(icw4: u8) -> Pic {
    let mut pic = Pic::new();
    initialize(&mut pic, icw4);
    pic
}

fn initialize(pic: &mut Pic, icw4: u8) {
    for (port, value) in [
        (MASTER_COMMAND, 0x11),
        (MASTER_DATA, 0x30),
        (MASTER_DATA, 1 << 2),
        (MASTER_DATA, icw4),
        (SLAVE_COMMAND, 0x11),
        (SLAVE_DATA, 0x38),
        (SLAVE_DATA, 2),
        (SLAVE_DATA, icw4 & !0x10),
    ] {
        pic.write(port, value);
    }
}

fn isr(pic: &mut Pic) -> [u8; 2] {
    [MASTER_COMMAND, SLAVE_COMMAND].map(|port| {
        pic.write(port, READ_ISR);
        pic.read(port)
    })
}

fn irr(pic: &mut Pic) -> [u8; 2] {
    [MASTER_COMMAND, SLAVE_COMMAND].map(|port| {
        pic.write(port, READ_IRR);
        pic.read(port)
    })
}

fn pulse(pic: &mut Pic, line: u8) {
    pic.set_irq(line, false);
    pic.set_irq(line, true);
}

#[test]
fn nothing_is_served_before_initialization_ends() {
    let mut pic = Pic::new();
    pic.set_irq(1, true);
    assert!(!pic.intr());
    for (port, value) in [(MASTER_COMMAND, 0x11), (MASTER_DATA, 0x30), (MASTER_DATA, 4)] {
        pic.write(port, value);
        pulse(&mut pic, 1);
        assert!(!pic.intr());
    }
    pic.write(MASTER_DATA, 1);
    assert!(pic.intr());
    assert_eq!(pic.ack(), 0x31);
}

#[test]
fn short_initialization_sequences() {
    // Single and without ICW4: ICW2 is the last word, and the mode is that of the MCS-80/85.
    let mut pic = Pic::new();
    pic.write(MASTER_COMMAND, 0x12 | 0xa0);
    pic.write(MASTER_DATA, 0x77);
    pic.write(MASTER_DATA, 0xf0);
    assert_eq!(pic.read(MASTER_DATA), 0xf0, "that was OCW1");
    pic.set_irq(3, true);
    assert_eq!(pic.ack(), 0x80 | 3 << 3, "interval of 8: A7 and A6 from ICW1");

    // The same with an interval of 4.
    pic.write(MASTER_COMMAND, 0x16 | 0xa0);
    pic.write(MASTER_DATA, 0x77);
    pulse(&mut pic, 3);
    assert_eq!(pic.ack(), 0xa0 | 3 << 2, "interval of 4: A7 to A5 from ICW1");

    // Single with ICW4: no ICW3.
    pic.write(MASTER_COMMAND, 0x13);
    pic.write(MASTER_DATA, 0x50);
    pic.write(MASTER_DATA, 0x01);
    pic.write(MASTER_DATA, 0x0f);
    assert_eq!(pic.read(MASTER_DATA), 0x0f);
    pulse(&mut pic, 4);
    assert_eq!(pic.ack(), 0x54);

    // Cascaded without ICW4: ICW3 is the last word.
    pic.write(MASTER_COMMAND, 0x10);
    pic.write(MASTER_DATA, 0x50);
    pic.write(MASTER_DATA, 0x04);
    pic.write(MASTER_DATA, 0x0e);
    assert_eq!(pic.read(MASTER_DATA), 0x0e);
}

#[test]
fn icw1_clears_mask_service_and_edges_but_not_the_trigger_modes() {
    let mut pic = initialized(1);
    pic.write(ELCR_MASTER, 0x20);
    pic.write(MASTER_DATA, 0x02);
    pic.set_irq(4, true);
    pic.set_irq(5, true);
    assert_eq!(pic.ack(), 0x34);
    pic.write(MASTER_COMMAND, SET_SPECIAL_MASK);
    pic.write(MASTER_COMMAND, 0xc3);
    initialize(&mut pic, 1);
    assert_eq!(pic.read(MASTER_DATA), 0);
    assert_eq!(pic.read(MASTER_COMMAND), 0x20, "IRR selected; the level is still there");
    assert_eq!(isr(&mut pic), [0, 0]);
    assert_eq!(pic.read(ELCR_MASTER), 0x20);
    // Input 7 has the lowest priority again.
    pulse(&mut pic, 3);
    assert_eq!(pic.ack(), 0x33);
}

#[test]
fn fully_nested() {
    let mut pic = initialized(1);
    pic.set_irq(3, true);
    assert_eq!(pic.ack(), 0x33);
    pulse(&mut pic, 3);
    pic.set_irq(4, true);
    assert!(!pic.intr(), "equal and lower ones wait");
    pic.set_irq(1, true);
    assert_eq!(pic.ack(), 0x31);
    assert_eq!(isr(&mut pic), [0x0a, 0]);
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(isr(&mut pic), [0x08, 0]);
    assert!(!pic.intr());
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(pic.ack(), 0x33);
    pic.write(MASTER_COMMAND, 0x63);
    assert_eq!(pic.ack(), 0x34);
    pic.write(MASTER_COMMAND, 0x64);
    assert_eq!(isr(&mut pic), [0, 0]);
    assert!(!pic.intr());
}

#[test]
fn edges_are_seen_once_and_withdrawn_by_a_low_line() {
    let mut pic = initialized(1);
    pic.set_irq(1, true);
    pic.set_irq(1, true);
    assert_eq!(pic.ack(), 0x31);
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    pic.set_irq(1, true);
    assert!(!pic.intr(), "no new edge");
    pulse(&mut pic, 1);
    assert_eq!(irr(&mut pic), [0x02, 0]);
    pic.set_irq(1, false);
    assert_eq!(irr(&mut pic), [0, 0]);
    assert!(!pic.intr());
}

#[test]
fn masked_requests_are_kept() {
    let mut pic = initialized(1);
    pic.write(MASTER_DATA, 0xff);
    pic.set_irq(6, true);
    assert!(!pic.intr());
    assert_eq!(irr(&mut pic), [0x40, 0]);
    pic.write(MASTER_DATA, 0);
    assert_eq!(pic.ack(), 0x36);
}

#[test]
fn level_mode_repeats_until_the_line_falls() {
    let mut pic = initialized(1);
    pic.write(ELCR_SLAVE, 0x08);
    pic.set_irq(11, true);
    for _ in 0..2 {
        assert_eq!(pic.ack(), 0x3b);
        assert_eq!(isr(&mut pic), [0x04, 0x08]);
        assert!(!pic.intr());
        pic.write(SLAVE_COMMAND, NON_SPECIFIC_EOI);
        pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
        assert!(pic.intr());
    }
    pic.ack();
    pic.set_irq(11, false);
    pic.write(SLAVE_COMMAND, NON_SPECIFIC_EOI);
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert!(!pic.intr());
}

#[test]
fn the_lines_of_timer_keyboard_cascade_clock_and_coprocessor_are_always_edges() {
    let mut pic = Pic::new();
    pic.write(ELCR_MASTER, 0xff);
    pic.write(ELCR_SLAVE, 0xff);
    assert_eq!([pic.read(ELCR_MASTER), pic.read(ELCR_SLAVE)], [0xf8, 0xde]);
}

#[test]
fn cascade() {
    let mut pic = initialized(1);
    pic.set_irq(10, true);
    pic.set_irq(3, true);
    assert_eq!(pic.ack(), 0x3a, "the slave ranks as input 2");
    assert_eq!(isr(&mut pic), [0x04, 0x04]);
    assert!(!pic.intr());
    // A higher one on the slave is held back by the master until its EOI.
    pic.set_irq(8, true);
    assert!(!pic.intr());
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(pic.ack(), 0x38);
    pic.write(SLAVE_COMMAND, NON_SPECIFIC_EOI);
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(isr(&mut pic), [0, 0x04]);
    assert_eq!(pic.ack(), 0x33);
}

#[test]
fn requests_that_wait_on_the_slave_reach_the_master_one_after_the_other() {
    for icw4 in [1, 3] {
        let mut pic = initialized(icw4);
        pic.set_irq(12, true);
        pic.set_irq(9, true);
        pic.set_irq(14, true);
        for vector in [0x39, 0x3c, 0x3e] {
            assert!(pic.intr());
            assert_eq!(pic.ack(), vector);
            if icw4 == 1 {
                pic.write(SLAVE_COMMAND, NON_SPECIFIC_EOI);
                pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
            }
        }
        assert!(!pic.intr());
    }
}

#[test]
fn special_fully_nested_lets_a_higher_slave_request_through() {
    let mut pic = initialized(0x11);
    pic.set_irq(10, true);
    assert_eq!(pic.ack(), 0x3a);
    pic.set_irq(12, true);
    assert!(!pic.intr(), "lower within the slave");
    pic.set_irq(8, true);
    assert_eq!(pic.ack(), 0x38);
    assert_eq!(isr(&mut pic), [0x04, 0x05]);
    // Inputs without a slave nest as usual.
    pic.write(MASTER_COMMAND, 0x62);
    pic.set_irq(4, true);
    pic.ack();
    pulse(&mut pic, 4);
    assert!(!pic.intr());
}

#[test]
fn a_slave_answers_only_to_its_number() {
    let mut pic = initialized(1);
    pic.write(SLAVE_COMMAND, 0x11);
    pic.write(SLAVE_DATA, 0x38);
    pic.write(SLAVE_DATA, 5);
    pic.write(SLAVE_DATA, 1);
    pic.set_irq(8, true);
    assert_eq!(pic.ack(), 0xff, "nobody drives the bus");
    assert_eq!(isr(&mut pic), [0x04, 0]);

    // A master whose ICW3 knows of no slave on input 2 answers itself.
    let mut pic = initialized(1);
    pic.write(MASTER_COMMAND, 0x11);
    pic.write(MASTER_DATA, 0x30);
    pic.write(MASTER_DATA, 0);
    pic.write(MASTER_DATA, 1);
    pic.set_irq(8, true);
    assert_eq!(pic.ack(), 0x32);
    assert_eq!(isr(&mut pic), [0x04, 0]);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let mut pic = initialized(3);
    pic.set_irq(4, true);
    assert_eq!(pic.ack(), 0x34);
    assert_eq!(isr(&mut pic), [0, 0]);
    pic.set_irq(5, true);
    assert_eq!(pic.ack(), 0x35);

    // Rotating, the level served becomes the lowest.
    pic.write(MASTER_COMMAND, 0x80);
    pulse(&mut pic, 4);
    pic.ack();
    pulse(&mut pic, 4);
    pulse(&mut pic, 6);
    assert_eq!(pic.ack(), 0x36);
    assert_eq!(pic.ack(), 0x34);
    // And no longer after the mode is cleared.
    pic.write(MASTER_COMMAND, 0x00);
    pulse(&mut pic, 5);
    assert_eq!(pic.ack(), 0x35);
    pulse(&mut pic, 5);
    pulse(&mut pic, 4);
    assert_eq!(pic.ack(), 0x35, "5 still ranks above 4, the last one rotated");
}

#[test]
fn rotation_by_eoi_and_by_command() {
    let mut pic = initialized(1);
    pic.set_irq(4, true);
    pic.set_irq(6, true);
    assert_eq!(pic.ack(), 0x34);
    pic.write(MASTER_COMMAND, 0xa0);
    pulse(&mut pic, 4);
    assert_eq!(pic.ack(), 0x36, "4 is the lowest now");
    pic.write(MASTER_COMMAND, 0xe5);
    assert_eq!(isr(&mut pic), [0x40, 0], "a specific EOI of another level");
    pic.write(MASTER_COMMAND, 0x66);
    pulse(&mut pic, 5);
    assert_eq!(pic.ack(), 0x34, "5 is the lowest now");
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    pic.write(MASTER_COMMAND, 0xc7);
    pulse(&mut pic, 4);
    assert_eq!(pic.ack(), 0x34, "7 is the lowest again");
    // 0x40 is no operation.
    pic.write(MASTER_COMMAND, 0x44);
    assert_eq!(isr(&mut pic), [0x10, 0]);
}

#[test]
fn special_mask_mode_opens_the_levels_below() {
    let mut pic = initialized(1);
    pic.set_irq(3, true);
    pic.ack();
    pic.set_irq(6, true);
    assert!(!pic.intr());
    pic.write(MASTER_DATA, 1 << 3);
    assert!(!pic.intr(), "a mask alone does not");
    pic.write(MASTER_COMMAND, SET_SPECIAL_MASK);
    pulse(&mut pic, 3);
    assert_eq!(pic.ack(), 0x36);
    // A non-specific EOI passes over the masked level.
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(isr(&mut pic), [0x08, 0]);
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert_eq!(isr(&mut pic), [0x08, 0]);
    // OCW3 without ESMM leaves the mode alone.
    pic.write(MASTER_COMMAND, 0x28);
    pic.write(MASTER_COMMAND, 0x08);
    pulse(&mut pic, 7);
    assert!(pic.intr());
    pic.write(MASTER_COMMAND, CLEAR_SPECIAL_MASK);
    assert!(!pic.intr());
}

#[test]
fn poll_is_an_acknowledge() {
    let mut pic = initialized(1);
    pic.write(MASTER_COMMAND, POLL);
    assert_eq!(pic.read(MASTER_COMMAND) & 0x80, 0);
    assert_eq!(pic.read(MASTER_COMMAND), 0, "one read only");
    pic.set_irq(5, true);
    pic.write(MASTER_COMMAND, POLL);
    assert_eq!(pic.read(MASTER_DATA), 0x85);
    assert_eq!(isr(&mut pic), [0x20, 0]);
    assert!(!pic.intr());
    // Through the cascade: the master's level first, then the slave's.
    pic.set_irq(15, true);
    pic.write(MASTER_COMMAND, POLL);
    assert_eq!(pic.read(MASTER_COMMAND), 0x82);
    pic.write(SLAVE_COMMAND, POLL);
    assert_eq!(pic.read(SLAVE_COMMAND), 0x87);
    assert_eq!(isr(&mut pic), [0x24, 0x80]);
}

#[test]
fn spurious_irq_7() {
    let mut pic = initialized(1);
    pic.set_irq(4, true);
    assert!(pic.intr());
    pic.set_irq(4, false);
    assert_eq!(pic.ack(), 0x37);
    assert_eq!(isr(&mut pic), [0, 0], "which is how a handler tells it from a real one");
}

#[test]
fn spurious_irq_15() {
    let mut pic = initialized(1);
    pic.set_irq(12, true);
    pic.set_irq(12, false);
    assert_eq!(pic.ack(), 0x3f);
    assert_eq!(isr(&mut pic), [0x04, 0], "the master has served its input");
    assert!(!pic.intr());
    pic.write(MASTER_COMMAND, NON_SPECIFIC_EOI);
    assert!(!pic.intr(), "once only");
}

#[test]
fn line_2_and_foreign_ports_are_ignored() {
    let mut pic = initialized(1);
    let before = pic.clone();
    pic.set_irq(2, true);
    pic.set_irq(16, true);
    pic.set_irq(255, true);
    pic.write(0x22, 0xff);
    assert_eq!(pic.read(0x22), 0xff);
    assert_eq!(pic, before);
}

#[test]
fn reset_keeps_the_lines_only() {
    let mut pic = initialized(1);
    pic.write(ELCR_MASTER, 0x20);
    pic.set_irq(5, true);
    pic.ack();
    pic.reset();
    let mut fresh = Pic::new();
    fresh.set_irq(5, true);
    // The edge of a line that is high through a reset is not seen again.
    assert_eq!(irr(&mut pic), [0, 0]);
    pic.set_irq(5, false);
    fresh.set_irq(5, false);
    fresh.write(MASTER_COMMAND, READ_IRR);
    fresh.write(SLAVE_COMMAND, READ_IRR);
    assert_eq!(pic, fresh);
}
