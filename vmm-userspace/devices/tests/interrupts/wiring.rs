//! The three controllers together, wired as in a PC: the ways by which operating systems try to get
//! the timer interrupt, and the life of a level-triggered interrupt.

use devices::ioapic::IoApic;
use devices::lapic::{Lint, LocalApic, Mode};
use devices::pic::{MASTER_COMMAND, MASTER_DATA, Pic};

use crate::lapic::*;
use crate::pic::initialized;

struct Board {
    pic: Pic,
    ioapic: IoApic,
    apic: LocalApic,
}

impl Board {
    fn new() -> Self {
        let mut pic = initialized(1);
        pic.write(MASTER_DATA, 0xfe);
        Self { pic, ioapic: IoApic::new(0), apic: xapic(0) }
    }

    /// Carries levels and messages until nothing moves.
    fn settle(&mut self) {
        assert_eq!(self.apic.set_lint(Lint::Lint0, self.pic.intr()), NOTHING);
        // The 8259's output also goes to pin 0 of the I/O APIC.
        self.ioapic.set_line(0, self.pic.intr());
        while let Some(message) = self.ioapic.take_message() {
            if self.apic.accepts(message.destination, message.destination_mode) {
                assert_eq!(self.apic.deliver(&message), NOTHING);
            }
        }
    }

    fn redirect(&mut self, pin: u8, entry: u32) {
        self.ioapic.write(0, 1, (0x10 + 2 * pin).into());
        self.ioapic.write(0x10, 4, entry);
        self.settle();
    }

    /// One tick of the 8254: input 0 of the 8259, pin 2 of the I/O APIC.
    fn tick(&mut self) {
        for high in [false, true] {
            self.pic.set_irq(0, high);
            self.ioapic.set_line(2, high);
            self.settle();
        }
    }

    fn interrupt(&mut self) -> Option<u8> {
        let vector = if self.apic.external_pending() {
            self.apic.accept_external();
            Some(self.pic.ack())
        } else {
            self.apic.pending().map(|_| self.apic.accept())
        };
        self.settle();
        vector
    }

    fn eoi(&mut self) {
        if let Some(vector) = self.apic.write(EOI, 0, at(0)).eoi {
            self.ioapic.eoi(vector);
        }
        self.settle();
    }
}

#[test]
fn timer_through_io_apic() {
    let mut board = Board::new();
    board.pic.write(MASTER_DATA, 0xff);
    board.redirect(2, 0x30);
    for _ in 0..3 {
        board.tick();
        assert_eq!(board.interrupt(), Some(0x30));
        assert_eq!(board.interrupt(), None);
        board.eoi();
    }
}

#[test]
fn timer_through_8259_and_lint0() {
    let mut board = Board::new();
    put(&mut board.apic, LVT_LINT0, 0x700);
    for _ in 0..3 {
        board.tick();
        assert_eq!(board.interrupt(), Some(0x30));
        assert_eq!(vectors(&mut board.apic, ISR), [], "not in service in the local APIC");
        board.tick();
        assert_eq!(board.interrupt(), None, "in service in the 8259");
        board.pic.write(MASTER_COMMAND, 0x20);
        board.settle();
        assert_eq!(board.interrupt(), Some(0x30));
        board.pic.write(MASTER_COMMAND, 0x60);
        board.settle();
        assert_eq!(board.interrupt(), None);
    }
}

#[test]
fn timer_through_8259_and_io_apic_pin_0() {
    let mut board = Board::new();
    board.redirect(0, 0x700);
    for _ in 0..3 {
        board.tick();
        assert_eq!(board.interrupt(), Some(0x30));
        assert_eq!(board.interrupt(), None);
        board.pic.write(MASTER_COMMAND, 0x20);
        board.settle();
    }
}

/// "Virtual wire" by a fixed LINT0: the 8259 in automatic-EOI mode only makes the edge.
#[test]
fn timer_through_fixed_lint0() {
    let mut board = Board::new();
    board.pic = initialized(3);
    put(&mut board.apic, LVT_LINT0, 0x31);
    for _ in 0..3 {
        board.tick();
        assert_eq!(board.interrupt(), Some(0x31));
        board.eoi();
    }
}

#[test]
fn timer_without_local_apic() {
    let mut board = Board::new();
    set_base(&mut board.apic, 0);
    assert_eq!(board.apic.mode(), Mode::Disabled);
    board.tick();
    assert_eq!(board.interrupt(), Some(0x30));
}

#[test]
fn a_level_triggered_interrupt_from_line_to_eoi() {
    let mut board = Board::new();
    board.redirect(9, 1 << 15 | 0x59);
    board.ioapic.set_line(9, true);
    board.settle();
    assert_eq!(board.interrupt(), Some(0x59));
    assert_eq!(board.interrupt(), None);
    board.eoi();
    assert_eq!(board.interrupt(), Some(0x59), "nobody served the device");
    board.ioapic.set_line(9, false);
    board.eoi();
    assert_eq!(board.interrupt(), None);
}

#[test]
fn directed_eoi() {
    let mut board = Board::new();
    put(&mut board.apic, SVR, 1 << 12 | ENABLE | 0xff);
    board.redirect(9, 1 << 15 | 0x59);
    board.ioapic.set_line(9, true);
    board.settle();
    assert_eq!(board.interrupt(), Some(0x59));
    board.eoi();
    assert_eq!(board.interrupt(), None, "not broadcast");
    board.ioapic.write(0x40, 4, 0x59);
    board.settle();
    assert_eq!(board.interrupt(), Some(0x59));
}
