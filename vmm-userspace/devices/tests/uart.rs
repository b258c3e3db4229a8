//! The 16550A against the rules of its datasheet, and against `vm-superio`.

use devices::time::Time;
use devices::uart::{DATA, IER, IIR_FCR, LCR, LSR, MCR, MSR, ModemInputs, SCR, Uart};
use proptest::prelude::*;

const T0: Time = Time(1_000_000_000);
/// One character, 8N1 at 115,200 baud, rounded down.
const CHARACTER: u64 = 86_805;

/// A UART as a driver leaves it: 8N1, FIFOs with trigger level 14, OUT2 and all interrupts on.
fn driven() -> Uart {
    let mut uart = Uart::new();
    uart.write(LCR, 0x03, T0);
    uart.write(IIR_FCR, 0xc7, T0);
    uart.write(MCR, 0x0b, T0);
    uart.write(IER, 0x0f, T0);
    uart
}

fn iir(uart: &mut Uart, now: Time) -> u8 {
    uart.read(IIR_FCR, now) & 0x0f
}

fn receive(uart: &mut Uart, bytes: &[u8], now: Time) {
    bytes.iter().for_each(|&b| uart.push_rx(b, now));
}

fn sent(uart: &mut Uart) -> Vec<u8> {
    std::iter::from_fn(|| uart.take_tx()).collect()
}

#[test]
fn registers_after_reset() {
    let mut uart = driven();
    uart.write(SCR, 0x55, T0);
    uart.write(DATA, b'x', T0);
    uart.reset();
    assert_eq!(uart, Uart::new());
    let read = [IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR].map(|r| uart.read(r, T0));
    assert_eq!(read, [0, 0x01, 0, 0, 0x60, 0xb0, 0]);
    assert!(!uart.irq());
}

#[test]
fn a_character_that_is_cleared_away_was_not_taken() {
    let mut uart = driven();
    receive(&mut uart, b"ab", T0);
    assert_eq!(uart.rx_fate(), (0, 2));
    assert_eq!(uart.read(DATA, T0), b'a');
    assert_eq!(uart.rx_fate(), (1, 1));
    uart.write(IIR_FCR, 0xc3, T0);
    assert_eq!(uart.rx_fate(), (1, 0));
    // Reading what is not there takes nothing.
    uart.read(DATA, T0);
    assert_eq!(uart.rx_fate(), (1, 0));
}

#[test]
fn divisor_latch_hides_data_and_interrupt_enable() {
    let mut uart = driven();
    uart.write(LCR, 0x83, T0);
    uart.write(DATA, 0x34, T0);
    uart.write(IER, 0x12, T0);
    assert_eq!((uart.read(DATA, T0), uart.read(IER, T0)), (0x34, 0x12));
    uart.write(LCR, 0x03, T0);
    assert_eq!(uart.read(IER, T0), 0x0f);
    assert_eq!(uart.take_tx(), None);
}

#[test]
fn divisor_zero_is_harmless() {
    let mut uart = Uart::new();
    uart.write(LCR, 0x80, T0);
    uart.write(DATA, 0, T0);
    uart.write(IER, 0, T0);
    assert!(uart.rx_room(T0) > 0);
}

#[test]
fn unused_bits_read_zero() {
    let mut uart = Uart::new();
    uart.write(IER, 0xff, T0);
    uart.write(MCR, 0xef, T0);
    assert_eq!((uart.read(IER, T0), uart.read(MCR, T0)), (0x0f, 0x0f));
}

#[test]
fn transmits_in_order_even_unprogrammed() {
    let mut uart = Uart::new();
    for byte in b"\xffHello" {
        uart.write(DATA, *byte, T0);
    }
    assert_eq!(sent(&mut uart), b"\xffHello");
}

#[test]
fn transmitter_interrupt_is_raised_by_enabling_and_cleared_by_identification() {
    let mut uart = driven();
    assert!(uart.irq());
    assert_eq!(iir(&mut uart, T0), 0x02);
    assert!(!uart.irq());
    assert_eq!(iir(&mut uart, T0), 0x01);
    uart.write(IER, 0x0f, T0);
    assert!(!uart.irq(), "it was enabled already");
    // Off and on again: the probe that Linux makes for chips that forget (THRE test).
    uart.write(IER, 0x00, T0);
    uart.write(IER, 0x02, T0);
    assert_eq!(iir(&mut uart, T0), 0x02);
    uart.write(DATA, b'a', T0);
    assert!(uart.irq(), "empty again at once");
}

#[test]
fn identification_of_another_source_keeps_the_transmitter_interrupt() {
    let mut uart = driven();
    receive(&mut uart, &[0; 14], T0);
    assert_eq!(iir(&mut uart, T0), 0x04);
    (0..14).for_each(|_| _ = uart.read(DATA, T0));
    assert_eq!(iir(&mut uart, T0), 0x02);
}

#[test]
fn a_slow_owner_is_backpressure() {
    let mut uart = driven();
    let mut written = Vec::new();
    // A well-behaved driver: sixteen bytes whenever the transmitter is empty.
    while uart.read(LSR, T0) & 0x20 != 0 {
        for i in 0..16 {
            written.push(i);
            uart.write(DATA, i, T0);
        }
    }
    assert_eq!(uart.tx_room(), 0);
    assert_eq!(uart.read(LSR, T0) & 0x60, 0);
    assert_eq!(iir(&mut uart, T0), 0x01);
    uart.write(DATA, 0xee, T0); // An ill-behaved one loses its byte.

    let first: Vec<u8> = (0..15).filter_map(|_| uart.take_tx()).collect();
    assert!(!uart.irq());
    assert_eq!(uart.take_tx(), Some(15));
    assert!(uart.irq(), "room for a whole FIFO again");
    assert_eq!(iir(&mut uart, T0), 0x02);
    uart.take_tx();
    assert!(!uart.irq(), "raised once");
    assert_eq!(first, &written[..15]);
    assert_eq!(sent(&mut uart), &written[17..]);
}

#[test]
fn priorities() {
    let mut uart = driven();
    uart.set_modem_inputs(ModemInputs::DISCONNECTED);
    uart.push_break(T0);
    receive(&mut uart, &[0; 15], T0);
    assert_eq!(iir(&mut uart, T0), 0x06);
    assert_eq!(uart.read(LSR, T0), 0xf1, "break, FIFO has an error");
    assert_eq!(iir(&mut uart, T0), 0x04);
    uart.write(IIR_FCR, 0xc3, T0);
    assert_eq!(iir(&mut uart, T0), 0x02);
    assert_eq!(iir(&mut uart, T0), 0x00);
    assert_eq!(uart.read(MSR, T0), 0x0b, "CTS, DSR and DCD went away");
    assert_eq!(iir(&mut uart, T0), 0x01);
    assert!(!uart.irq());
}

#[test]
fn out2_gates_the_interrupt() {
    let mut uart = driven();
    assert!(uart.irq());
    uart.write(MCR, 0x03, T0);
    assert!(!uart.irq());
    assert_eq!(iir(&mut uart, T0), 0x02, "only the wire is gated");
}

#[test]
fn trigger_levels() {
    for (select, level) in [(0x00, 1), (0x40, 4), (0x80, 8), (0xc0, 14)] {
        let mut uart = driven();
        uart.write(IER, 0x01, T0);
        uart.write(IIR_FCR, select | 0x01, T0);
        receive(&mut uart, &vec![0; level - 1], T0);
        assert!(!uart.irq(), "level {level}");
        uart.push_rx(0, T0);
        assert!(uart.irq(), "level {level}");
        uart.read(DATA, T0);
        assert!(!uart.irq(), "level {level}");
    }
}

#[test]
fn character_timeout() {
    let mut uart = driven();
    uart.write(IER, 0x01, T0);
    assert_eq!(uart.next_event(), None);
    receive(&mut uart, b"ab", T0);
    let due = T0 + 4 * CHARACTER;
    assert_eq!(uart.next_event(), Some(due));
    uart.advance(Time(due.0 - 1));
    assert!(!uart.irq());
    uart.advance(due);
    assert!(uart.irq());
    assert_eq!(uart.next_event(), None);
    assert_eq!(iir(&mut uart, due), 0x0c);
    assert_eq!(uart.read(DATA, due), b'a');
    assert!(!uart.irq(), "a read restarts the time");
    assert_eq!(uart.next_event(), Some(due + 4 * CHARACTER));
    uart.read(DATA, due);
    assert_eq!(uart.next_event(), None);
}

#[test]
fn overrun_with_fifo_loses_the_new_character() {
    let mut uart = driven();
    receive(&mut uart, &(0..17).collect::<Vec<u8>>(), T0);
    assert_eq!(iir(&mut uart, T0), 0x06);
    assert_eq!(uart.read(LSR, T0), 0x63);
    assert_eq!(uart.read(LSR, T0), 0x61, "reading clears it");
    let read: Vec<u8> = (0..16).map(|_| uart.read(DATA, T0)).collect();
    assert_eq!(read, (0..16).collect::<Vec<u8>>());
    assert_eq!(uart.read(LSR, T0), 0x60);
}

#[test]
fn overrun_without_fifo_loses_the_old_character() {
    let mut uart = Uart::new();
    receive(&mut uart, b"ab", T0);
    assert_eq!(uart.read(LSR, T0), 0x63);
    assert_eq!(uart.read(DATA, T0), b'b');
    assert_eq!(uart.read(LSR, T0), 0x60);
    assert_eq!(uart.read(DATA, T0), b'b', "the buffer keeps its content");
}

#[test]
fn a_break_shows_when_it_is_next() {
    let mut uart = driven();
    uart.push_rx(b'a', T0);
    uart.push_break(T0);
    assert_eq!(uart.read(LSR, T0), 0xe1, "only: an error is somewhere in the FIFO");
    uart.read(DATA, T0);
    assert_eq!(uart.read(LSR, T0), 0xf1);
    assert_eq!(uart.read(LSR, T0), 0x61);
    assert_eq!(uart.read(DATA, T0), 0);
}

#[test]
fn fifo_control() {
    let mut uart = Uart::new();
    assert_eq!(uart.read(IIR_FCR, T0) & 0xc0, 0);
    uart.write(IIR_FCR, 0xc0, T0);
    uart.write(IER, 0x01, T0);
    uart.push_rx(1, T0);
    assert_eq!(iir(&mut uart, T0), 0x04, "the trigger level needs the FIFO");
    assert_eq!(uart.next_event(), None, "and so does the time-out");
    uart.write(IIR_FCR, 0x01, T0);
    assert_eq!(uart.read(IIR_FCR, T0) & 0xc0, 0xc0);
    assert_eq!(uart.read(LSR, T0) & 1, 0, "changing the mode empties the FIFO");
    uart.push_rx(2, T0);
    uart.write(IIR_FCR, 0x01, T0);
    assert_eq!(uart.read(LSR, T0) & 1, 1);
    uart.write(IIR_FCR, 0x03, T0);
    assert_eq!(uart.read(LSR, T0) & 1, 0);
}

#[test]
fn modem_status_deltas() {
    let mut uart = driven();
    uart.set_modem_inputs(ModemInputs { ri: true, ..ModemInputs::CONNECTED });
    assert_eq!(uart.read(MSR, T0), 0xf0, "ring counts when it ends");
    uart.set_modem_inputs(ModemInputs { cts: false, ..ModemInputs::CONNECTED });
    assert_eq!(uart.read(MSR, T0), 0xa5);
    assert_eq!(uart.read(MSR, T0), 0xa0);
}

#[test]
fn loopback() {
    let mut uart = driven();
    uart.write(IER, 0x00, T0);
    uart.write(MCR, 0x10, T0);
    uart.read(MSR, T0);
    // DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
    for (mcr, msr) in [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1a, 0x90)] {
        uart.write(MCR, mcr, T0);
        assert_eq!(uart.read(MSR, T0) & 0xf0, msr);
    }
    uart.write(DATA, b'l', T0);
    uart.push_rx(b'r', T0);
    assert_eq!(uart.rx_room(T0 + 10 * CHARACTER), 0);
    assert_eq!(uart.next_rx(T0), None);
    assert_eq!(uart.take_tx(), None);
    assert_eq!(uart.read(DATA, T0), b'l');
    assert_eq!(uart.read(LSR, T0), 0x60, "the line is cut off");
    assert!(!uart.rts() && !uart.dtr());
    // How BSD drivers measure the FIFO: write until it overruns.
    let depth = (0..).take_while(|_| {
        uart.write(DATA, 0, T0);
        uart.read(LSR, T0) & 0x02 == 0
    });
    assert_eq!(depth.count(), 16);
    uart.write(IIR_FCR, 0x07, T0);
    uart.write(LCR, 0x43, T0);
    assert_eq!(uart.read(LSR, T0), 0xf1, "a break comes back too");
    assert!(!uart.break_out());
}

#[test]
fn break_goes_out() {
    let mut uart = driven();
    uart.write(LCR, 0x43, T0);
    assert!(uart.break_out());
    assert_eq!(uart.read(LSR, T0), 0x60, "and does not come back");
    uart.write(DATA, b'x', T0);
    assert_eq!(uart.take_tx(), None);
    uart.write(LCR, 0x03, T0);
    assert!(!uart.break_out());
}

#[test]
fn frame_format_and_divisor_set_the_pace() {
    // Line control, divisor, nanoseconds per character.
    let cases = [
        (0x03u8, 1u16, 10 * 1_000_000_000 / 115_200),
        (0x03, 12, 10 * 1_000_000_000 / 9_600),
        (0x00, 96, 7 * 1_000_000_000 / 1_200),
        (0x04, 96, 15 * 1_000_000_000 / 2_400),
        (0x1f, 1, 12 * 1_000_000_000 / 115_200),
        (0x03, 0xffff, 10 * 65_535 * 1_000_000_000 / 115_200),
    ];
    for (lcr, divisor, ns) in cases {
        let mut uart = Uart::new();
        uart.write(LCR, 0x80, T0);
        uart.write(DATA, divisor as u8, T0);
        uart.write(IER, (divisor >> 8) as u8, T0);
        uart.write(LCR, lcr, T0);
        uart.write(IIR_FCR, 0x01, T0);
        let now = T0 + 100_000_000_000;
        (0..16).for_each(|_| uart.push_rx(0, now));
        (0..16).for_each(|_| _ = uart.read(DATA, now));
        assert_eq!(uart.next_rx(now), Some(now + ns), "{lcr:#x} {divisor}");
    }
}

/// A paste through an owner that brings what fits whenever there is room, to a driver that reads
/// on interrupts: everything arrives, not faster than the line.
#[test]
fn a_long_paste_arrives_whole_and_at_line_speed() {
    let paste: Vec<u8> = (0..65_536u32).map(|i| (i * 7 / 8) as u8).collect();
    let mut uart = driven();
    uart.write(IER, 0x05, T0);
    let (mut left, mut got, mut now) = (&paste[..], Vec::new(), T0);
    while got.len() < paste.len() {
        let room = uart.rx_room(now).min(left.len());
        receive(&mut uart, &left[..room], now);
        left = &left[room..];
        uart.advance(now);
        if uart.irq() {
            assert_ne!(iir(&mut uart, now), 0x06, "overrun");
            while uart.read(LSR, now) & 1 != 0 {
                got.push(uart.read(DATA, now));
            }
        }
        let events = [uart.next_event(), uart.next_rx(now).filter(|_| !left.is_empty())];
        now = events.into_iter().flatten().min().unwrap_or(now + CHARACTER);
    }
    assert!(got == paste);
    let line = (65_536 - 16) * CHARACTER;
    let took = now - T0;
    assert!(took >= line && took < line + line / 100, "{took} instead of {line}");
}

/// Stands for the interrupt line and the output of the oracle.
mod oracle {
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    pub struct Line(pub Rc<Cell<u32>>);

    impl vm_superio::Trigger for Line {
        type E = std::convert::Infallible;
        fn trigger(&self) -> Result<(), Self::E> {
            self.0.set(self.0.get() + 1);
            Ok(())
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(u16, u8),
    Read(u16),
    Receive(u8),
}

/// Operations for which chip and oracle mean the same: the oracle has no FIFO control, no line
/// errors, no modem deltas, and identifies with one bit per source instead of by priority.
fn common_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<u8>().prop_map(|v| Op::Write(DATA, v)),
        prop_oneof![Just(0), Just(2)].prop_map(|v| Op::Write(IER, v)),
        prop_oneof![Just(0x03), Just(0x83), Just(0x1f)].prop_map(|v| Op::Write(LCR, v)),
        (0u8..0x20).prop_map(|v| Op::Write(MCR, v)),
        any::<u8>().prop_map(|v| Op::Write(SCR, v)),
        prop_oneof![Just(DATA), Just(IER), Just(IIR_FCR), Just(LCR), Just(MCR), Just(LSR)]
            .prop_map(Op::Read),
        prop_oneof![Just(MSR), Just(SCR)].prop_map(Op::Read),
        any::<u8>().prop_map(Op::Receive),
    ]
}

proptest! {
    #[test]
    fn agrees_with_vm_superio(ops in prop::collection::vec(common_op(), 1..200)) {
        let mut ours = Uart::new();
        ours.write(LCR, 0x83, T0);
        ours.write(DATA, 0x0c, T0); // The oracle begins with 9600 baud, 8N1 and OUT2.
        ours.write(LCR, 0x03, T0);
        ours.write(MCR, 0x08, T0);
        ours.write(IIR_FCR, 0x01, T0);
        let mut theirs = vm_superio::Serial::new(oracle::Line::default(), Vec::new());
        let (mut waiting, mut looped, mut ier, mut dlab) = (0, false, 0, false);
        for op in ops {
            match op {
                // The oracle raises no transmitter interrupt in loopback mode.
                Op::Write(DATA, _) if looped && !dlab && (waiting == 16 || ier != 0) => {}
                // The oracle raises its interrupt again when an enabled source is enabled.
                Op::Write(IER, v) if !dlab && v == ier => {}
                Op::Write(register, value) => {
                    match register {
                        DATA if !dlab && looped => waiting += 1,
                        IER if !dlab => ier = value,
                        LCR => dlab = value & 0x80 != 0,
                        MCR => looped = value & 0x10 != 0,
                        _ => {}
                    }
                    ours.write(register, value, T0);
                    theirs.write(register as u8, value).unwrap();
                }
                Op::Read(DATA) if !dlab && waiting == 0 => {}
                Op::Read(register) => {
                    let mut read = ours.read(register, T0);
                    if register == MSR {
                        read &= 0xf0;
                    }
                    waiting -= usize::from(register == DATA && !dlab);
                    let expected = theirs.read(register as u8);
                    // A source that is pending but disabled stays visible in the oracle.
                    if register != IIR_FCR || ier != 0 {
                        prop_assert_eq!(read, expected, "register {}", register);
                    }
                }
                Op::Receive(_) if waiting == 16 => {}
                Op::Receive(byte) => {
                    waiting += usize::from(!looped);
                    ours.push_rx(byte, T0);
                    theirs.enqueue_raw_bytes(&[byte]).unwrap();
                }
            }
            let out = sent(&mut ours);
            prop_assert!(theirs.writer().ends_with(&out));
            theirs.writer_mut().clear();
        }
    }

    #[test]
    fn survives_anything_and_a_snapshot(
        ops in prop::collection::vec((0u8..4, any::<u16>(), any::<u8>(), any::<u32>()), 0..300),
    ) {
        let mut uart = Uart::new();
        let mut now = Time::ZERO;
        for (what, register, value, wait) in ops {
            now = now + u64::from(wait >> 4);
            match what {
                0 => uart.write(register, value, now),
                1 => _ = uart.read(register, now),
                2 if uart.rx_room(now) > 0 => uart.push_rx(value, now),
                _ => _ = uart.take_tx(),
            }
            if let Some(at) = uart.next_event() {
                let before = uart.clone();
                uart.advance(Time(at.0.saturating_sub(1)).max(now));
                if at > now {
                    prop_assert_eq!(&before, &uart, "nothing happens before its event");
                }
                uart.advance(at.max(now));
                prop_assert!(uart.next_event().is_none_or(|next| next > at));
            }
            prop_assert!(uart.next_rx(now).is_none_or(|at| uart.rx_room(at) > 0));
        }
        let bytes = postcard::to_allocvec(&uart).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Uart>(&bytes).unwrap(), uart);
    }
}

#[test]
fn a_guest_listens_when_it_wants_interrupts_or_keeps_looking() {
    let now = Time::ZERO;
    let mut uart = Uart::new();
    assert!(!uart.listens());
    // A driver that prints looks at the line status before each byte.
    for _ in 0..200 {
        let _ = uart.read(5, now);
        uart.write(0, b'x', now);
        let _ = uart.take_tx();
    }
    assert!(!uart.listens());
    uart.write(4, 0x03, now);
    assert!(!uart.listens(), "a driver sets request to send before it clears what it received");
    // A probe writes all ones to the interrupt enable register, and reads them back.
    uart.write(1, 0x0f, now);
    assert!(!uart.listens(), "interrupts without OUT2");
    uart.write(4, 0x0b, now);
    assert!(uart.listens(), "receive interrupt");
    uart.write(1, 0, now);
    for _ in 0..64 {
        assert!(!uart.listens());
        let _ = uart.read(5, now);
    }
    assert!(uart.listens(), "polling");
}
