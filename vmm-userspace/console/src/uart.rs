//! The 16550 (National Semiconductor PC16550D data sheet; register numbers there in section 8).

use runtime::port::{inb, outb};

/// Bytes in each of its FIFOs.
pub const FIFO: usize = 16;

/// RBR when read, THR when written, the low divisor byte while DLAB is set.
const DATA: u16 = 0;
/// Interrupt enable register, the high divisor byte while DLAB is set.
const IER: u16 = 1;
/// Interrupt identification when read, FIFO control when written.
const IIR_FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

const IER_RECEIVE: u8 = 1 << 0;
const IER_TRANSMIT: u8 = 1 << 1;
/// Overruns and breaks.
const IER_LINE: u8 = 1 << 2;
const IIR_NONE: u8 = 1 << 0;
const LCR_8N1: u8 = 0b11;
const LCR_DLAB: u8 = 1 << 7;
/// Enabled and emptied, receive interrupt at 8 bytes: eight more can arrive until it is served.
const FCR: u8 = 0b1000_0111;
const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
/// Connects the interrupt output on a PC.
const MCR_OUT2: u8 = 1 << 3;
const LSR_DATA: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_THRE: u8 = 1 << 5;
/// 1.8432 MHz / 16 / 115,200.
const DIVISOR: [u8; 2] = [1, 0];

/// A serial port.
#[derive(Debug)]
pub struct Uart {
    base: u16,
    ier: u8,
    mcr: u8,
    overruns: u32,
}

impl Uart {
    /// Sets up the port at `base` for 115,200 baud, 8N1, with FIFOs; `None` if there is none.
    pub fn new(base: u16) -> Option<Self> {
        let mut uart = Self { base, ier: 0, mcr: 0, overruns: 0 };
        uart.write(SCR, 0x5a);
        if uart.read(SCR) != 0x5a {
            return None;
        }
        uart.write(IER, 0);
        uart.write(LCR, LCR_DLAB);
        uart.write(DATA, DIVISOR[0]);
        uart.write(IER, DIVISOR[1]);
        uart.write(LCR, LCR_8N1);
        uart.write(IIR_FCR, FCR);
        uart.set_mcr(MCR_DTR | MCR_RTS | MCR_OUT2);
        uart.set_ier(IER_RECEIVE | IER_LINE);
        Some(uart)
    }

    fn read(&self, register: u16) -> u8 {
        inb(self.base + register)
    }

    fn write(&self, register: u16, value: u8) {
        outb(self.base + register, value);
    }

    fn set_ier(&mut self, ier: u8) {
        if self.ier != ier {
            self.ier = ier;
            self.write(IER, ier);
        }
    }

    fn set_mcr(&mut self, mcr: u8) {
        if self.mcr != mcr {
            self.mcr = mcr;
            self.write(MCR, mcr);
        }
    }

    /// The next received byte.
    pub fn receive(&mut self) -> Option<u8> {
        let lsr = self.read(LSR);
        if lsr & LSR_OVERRUN != 0 {
            self.overruns = self.overruns.saturating_add(1);
        }
        (lsr & LSR_DATA != 0).then(|| self.read(DATA))
    }

    /// How often bytes were lost because the FIFO was full, since the last time this was asked.
    pub fn take_overruns(&mut self) -> u32 {
        core::mem::take(&mut self.overruns)
    }

    /// Whether the transmit FIFO is empty: then it takes [`FIFO`] bytes.
    pub fn can_send(&self) -> bool {
        self.read(LSR) & LSR_THRE != 0
    }

    /// Sends a byte; see [`Self::can_send`].
    pub fn send(&self, byte: u8) {
        self.write(DATA, byte);
    }

    /// Whether an interrupt is wanted when the transmit FIFO gets empty.
    pub fn interrupt_when_sent(&mut self, wanted: bool) {
        self.set_ier(if wanted { self.ier | IER_TRANSMIT } else { self.ier & !IER_TRANSMIT });
    }

    /// Tells the sender to go on or to stop.
    pub fn request_to_send(&mut self, go_on: bool) {
        self.set_mcr(if go_on { self.mcr | MCR_RTS } else { self.mcr & !MCR_RTS });
    }

    /// Whether an interrupt is wanted when something is received. It has to be switched off while
    /// nobody empties the FIFO, or the interrupt line would stay active.
    pub fn interrupt_when_received(&mut self, wanted: bool) {
        let bits = IER_RECEIVE | IER_LINE;
        self.set_ier(if wanted { self.ier | bits } else { self.ier & !bits });
    }

    /// Whether the interrupt line is active for another reason than those already served. As long
    /// as it is, there is no new edge on it, and so no new interrupt.
    pub fn interrupting(&self) -> bool {
        let active = self.read(IIR_FCR) & IIR_NONE == 0;
        if active {
            // The one cause that nothing else here clears.
            self.read(MSR);
        }
        active
    }
}
