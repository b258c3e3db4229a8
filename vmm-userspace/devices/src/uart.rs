//! 16550A UART (National Semiconductor PC16550D datasheet).
//!
//! Differences from the chip, all of them in the guest's favour:
//!
//! * Transmission takes no time. A byte written goes to a queue that the owner empties with
//!   [`Uart::take_tx`]; the transmitter reads as empty as long as the queue has room for a whole
//!   FIFO. An owner that cannot pass bytes on leaves them there, and the guest waits as it would
//!   for a slow line.
//! * The line carries eight bits whatever word length is programmed, because many small guests
//!   write without programming one. Length, parity and stop bits count for the pace only.
//! * Resetting the transmit FIFO does not lose bytes already written.
//!
//! Reception is paced: a sender that gives bytes when [`Uart::rx_room`] says so is as fast as the
//! programmed line, no faster, and never overruns the FIFO.

mod receiver;
mod registers;

use receiver::Receiver;
use registers::*;
pub use registers::{DATA, IER, IIR_FCR, LCR, LSR, MCR, MSR, SCR};
use serde::{Deserialize, Serialize};

use crate::ring::Ring;
use crate::time::{NS_PER_S, Time};

/// Depth of the transmit FIFO, in bytes: what a guest may write when the transmitter is empty.
const TX_DEPTH: usize = 16;
/// Bytes that may wait for the owner.
const TX_QUEUE: usize = 64;

/// Bits a second with divisor 1: the PC's 1.8432 MHz crystal, divided by 16.
const BASE_BAUD: u64 = 115_200;

/// Modem-status inputs of a UART, as the remote end drives them. True is asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModemInputs {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ri: bool,
    /// Data carrier detect.
    pub dcd: bool,
}

impl ModemInputs {
    /// A terminal that is switched on.
    pub const CONNECTED: Self = Self { cts: true, dsr: true, ri: false, dcd: true };
    /// Nothing plugged in.
    pub const DISCONNECTED: Self = Self { cts: false, dsr: false, ri: false, dcd: false };

    /// As bits 7:4 of the modem status register.
    fn bits(self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.cts, MSR_CTS)
            | bit(self.dsr, MSR_DSR)
            | bit(self.ri, MSR_RI)
            | bit(self.dcd, MSR_DCD)
    }
}

/// A 16550A with its eight registers, see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uart {
    divisor: u16,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    /// Bits 3:0 of the modem status register: which lines changed since it was read.
    msr_delta: u8,
    /// Bits 7:4 of the modem status register, as driven from outside.
    inputs: ModemInputs,
    /// The transmitter became empty and no one has looked since.
    thre_pending: bool,
    /// Reads of the line status register since anything was written.
    status_reads: u8,
    tx: Ring<u8, TX_QUEUE>,
    rx: Receiver,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// A UART after power-on, with a terminal connected. The divisor, which the chip leaves
    /// undefined, is 1 (115,200 baud).
    #[must_use]
    pub fn new() -> Self {
        let mut uart = Self {
            divisor: 1,
            ier: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            msr_delta: 0,
            inputs: ModemInputs::CONNECTED,
            thre_pending: false,
            status_reads: 0,
            tx: Ring::new(),
            rx: Receiver::new(1),
        };
        uart.set_pace();
        uart
    }

    /// Back to the state of power-on. Bytes not taken yet are lost; the remote end stays.
    pub fn reset(&mut self) {
        *self = Self { inputs: self.inputs, ..Self::new() };
    }

    /// Reads the register at `offset` (0 to 7).
    pub fn read(&mut self, offset: u16, now: Time) -> u8 {
        self.advance(now);
        match (offset & 7, self.dlab()) {
            (DATA, true) => self.divisor as u8,
            (DATA, false) => self.rx.read(now),
            (IER, true) => (self.divisor >> 8) as u8,
            (IER, false) => self.ier,
            (IIR_FCR, _) => self.read_iir(),
            (LCR, _) => self.lcr,
            (MCR, _) => self.mcr,
            (LSR, _) => {
                self.status_reads = self.status_reads.saturating_add(1);
                self.rx.read_status() | self.tx_status()
            }
            (MSR, _) => self.modem_lines() | core::mem::take(&mut self.msr_delta),
            _ => self.scr,
        }
    }

    /// Writes the register at `offset` (0 to 7).
    #[inline]
    pub fn write(&mut self, offset: u16, value: u8, now: Time) {
        // The one access that must be quick: a console writes every byte through it.
        if offset == DATA && self.lcr & (LCR_DLAB | LCR_BREAK) == 0 && self.mcr & MCR_LOOP == 0 {
            self.status_reads = 0;
            self.tx.push(value);
            self.thre_pending = self.tx_empty();
            return;
        }
        self.write_slow(offset, value, now);
    }

    fn write_slow(&mut self, offset: u16, value: u8, now: Time) {
        self.advance(now);
        self.status_reads = 0;
        match (offset & 7, self.dlab()) {
            (DATA, true) => {
                self.divisor = self.divisor & 0xff00 | u16::from(value);
                self.set_pace();
            }
            (DATA, false) => self.write_thr_looped_or_broken(value, now),
            (IER, true) => {
                self.divisor = self.divisor & 0x00ff | u16::from(value) << 8;
                self.set_pace();
            }
            (IER, false) => self.write_ier(value),
            (IIR_FCR, _) => self.write_fcr(value),
            (LCR, _) => self.write_lcr(value, now),
            (MCR, _) => self.write_mcr(value),
            (SCR, _) => self.scr = value,
            _ => {} // Writing the status registers is for the factory only.
        }
    }

    /// The interrupt output as it reaches the interrupt controller: on a PC, OUT2 gates it, and
    /// OUT2 is inactive in loopback mode.
    #[inline]
    #[must_use]
    pub fn irq(&self) -> bool {
        self.ier != 0
            && self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
            && self.interrupt() != IIR_NONE
    }

    /// Brings the character time-out up to `now`.
    pub fn advance(&mut self, now: Time) {
        self.rx.advance(now);
    }

    /// When the character time-out interrupt is due.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        if self.ier & IER_RX == 0 { None } else { self.rx.timeout_at() }
    }

    /// The oldest byte transmitted and not taken yet.
    #[inline]
    pub fn take_tx(&mut self) -> Option<u8> {
        let was_empty = self.tx_empty();
        let byte = self.tx.pop();
        if !was_empty && self.tx_empty() {
            self.thre_pending = true;
        }
        byte
    }

    /// Bytes that wait for [`Uart::take_tx`].
    #[inline]
    #[must_use]
    pub fn tx_waiting(&self) -> usize {
        self.tx.len()
    }

    /// Bytes that the guest can still write before some are lost.
    #[must_use]
    pub fn tx_room(&self) -> usize {
        self.tx.room()
    }

    /// How many bytes [`Uart::push_rx`] may bring now without being faster than the line or
    /// overrunning the receiver. Zero in loopback mode, where the receiver is cut off.
    #[must_use]
    pub fn rx_room(&self, now: Time) -> usize {
        if self.looped() { 0 } else { self.rx.room_at(now) }
    }

    /// When [`Uart::rx_room`] is next above zero; `None` if the guest must do something first.
    /// For an owner that has bytes to bring.
    #[must_use]
    pub fn next_rx(&self, now: Time) -> Option<Time> {
        if self.looped() { None } else { self.rx.next_room(now) }
    }

    /// A byte arrives from the remote end. Without room it causes an overrun error.
    pub fn push_rx(&mut self, byte: u8, now: Time) {
        self.advance(now);
        if !self.looped() {
            self.rx.receive(byte, 0, now);
        }
    }

    /// A break arrives from the remote end.
    pub fn push_break(&mut self, now: Time) {
        self.advance(now);
        if !self.looped() {
            self.rx.receive_break(now);
        }
    }

    /// The remote end drives its lines.
    pub fn set_modem_inputs(&mut self, inputs: ModemInputs) {
        self.change_modem_lines(|uart| uart.inputs = inputs);
    }

    /// Request to send, as the remote end sees it. An owner that keeps RTS/CTS flow control brings
    /// no bytes while it is false; many guests never assert it, so that is the owner's choice.
    #[must_use]
    pub fn rts(&self) -> bool {
        self.mcr & (MCR_RTS | MCR_LOOP) == MCR_RTS
    }

    /// Whether the guest seems to wait for input: interrupts for it would get through, or it keeps looking at the line status
    /// and writes nothing. What is sent before is lost when a driver probes the chip and clears the FIFOs.
    #[must_use]
    pub fn listens(&self) -> bool {
        /// More than anybody looks while waiting to send one byte at once.
        const POLLS: u8 = 64;
        let interrupts = self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        self.ier & IER_RX != 0 && interrupts || self.status_reads >= POLLS
    }

    /// How many characters the guest has read in all, and how many wait for it: those that are neither were lost when it
    /// cleared its FIFO.
    #[must_use]
    pub fn rx_fate(&self) -> (u64, usize) {
        self.rx.fate()
    }

    /// Data terminal ready, as the remote end sees it.
    #[must_use]
    pub fn dtr(&self) -> bool {
        self.mcr & (MCR_DTR | MCR_LOOP) == MCR_DTR
    }

    /// True while the guest sends a break.
    #[must_use]
    pub fn break_out(&self) -> bool {
        self.lcr & LCR_BREAK != 0 && !self.looped()
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    #[inline]
    fn tx_empty(&self) -> bool {
        self.tx.len() <= TX_QUEUE - TX_DEPTH || self.looped()
    }

    fn tx_status(&self) -> u8 {
        if self.tx_empty() { LSR_THRE | LSR_TEMT } else { 0 }
    }

    /// Bits 7:4 of the modem status register; in loopback mode the chip's own outputs.
    fn modem_lines(&self) -> u8 {
        if !self.looped() {
            return self.inputs.bits();
        }
        let on = |bit: u8| self.mcr & bit != 0;
        ModemInputs { cts: on(MCR_RTS), dsr: on(MCR_DTR), ri: on(MCR_OUT1), dcd: on(MCR_OUT2) }
            .bits()
    }

    /// Applies `change` and records what it did to the modem lines. The ring indicator counts only
    /// when it goes away (trailing edge, PC16550D 8.8).
    fn change_modem_lines(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.modem_lines();
        change(self);
        let after = self.modem_lines();
        let changed = (before ^ after) & !(after & MSR_RI);
        self.msr_delta |= changed >> 4;
    }

    /// The interrupt of highest priority (PC16550D table IV), as bits 3:0 of IIR.
    fn interrupt(&self) -> u8 {
        let enabled = |bit: u8| self.ier & bit != 0;
        if enabled(IER_LINE) && self.rx.has_errors() {
            IIR_LINE
        } else if enabled(IER_RX) && self.rx.triggered() {
            IIR_RX
        } else if enabled(IER_RX) && self.rx.timed_out() {
            IIR_TIMEOUT
        } else if enabled(IER_THRE) && self.thre_pending {
            IIR_THRE
        } else if enabled(IER_MODEM) && self.msr_delta != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// Reading IIR acknowledges the transmitter interrupt, if that is the one it shows.
    fn read_iir(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == IIR_THRE {
            self.thre_pending = false;
        }
        interrupt | if self.rx.fifo_enabled() { IIR_FIFOS } else { 0 }
    }

    /// Enabling the transmitter interrupt while the transmitter is empty raises it at once.
    fn write_ier(&mut self, value: u8) {
        if value & !self.ier & IER_THRE != 0 && self.tx_empty() {
            self.thre_pending = true;
        }
        self.ier = value & (IER_RX | IER_THRE | IER_LINE | IER_MODEM);
    }

    fn write_fcr(&mut self, value: u8) {
        self.rx.set_fifo(value & FCR_ENABLE != 0);
        if value & FCR_ENABLE == 0 {
            return; // The other bits are programmed only together with this one.
        }
        self.rx.set_trigger([1, 4, 8, 14][usize::from(value >> 6)]);
        if value & FCR_RX_RESET != 0 {
            self.rx.clear();
        }
    }

    fn write_lcr(&mut self, value: u8, now: Time) {
        let breaks = value & !self.lcr & LCR_BREAK != 0;
        self.lcr = value;
        self.set_pace();
        if breaks && self.looped() {
            self.rx.store(0, LSR_BREAK, now);
        }
    }

    fn write_mcr(&mut self, value: u8) {
        let bits = MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP;
        self.change_modem_lines(|uart| uart.mcr = value & bits);
    }

    /// A byte for the transmitter while its output is not simply the line: looped back to the
    /// receiver, or held by a break, which drowns it.
    fn write_thr_looped_or_broken(&mut self, value: u8, now: Time) {
        if self.looped() && self.lcr & LCR_BREAK == 0 {
            self.rx.store(value, 0, now);
        }
        self.thre_pending = self.tx_empty();
    }

    /// Computes the time of one character on the line, from divisor and frame format.
    fn set_pace(&mut self) {
        let word = 5 + u64::from(self.lcr & 3);
        let parity = u64::from(self.lcr & LCR_PARITY != 0);
        // In half bits, because five-bit words may have one and a half stop bits.
        let stop = match (self.lcr & LCR_STOP_BITS != 0, word) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 * (1 + word + parity) + stop;
        let divisor = u64::from(self.divisor.max(1));
        self.rx.set_character_time(half_bits * divisor * NS_PER_S / (2 * BASE_BAUD));
    }
}
