//! Register addresses and bits of the 16550A (PC16550D datasheet, section 8).

/// Receiver buffer (read), transmitter holding register (write), divisor low byte (DLAB).
pub const DATA: u16 = 0;
/// Interrupt enable, divisor high byte (DLAB).
pub const IER: u16 = 1;
/// Interrupt identification (read), FIFO control (write).
pub const IIR_FCR: u16 = 2;
/// Line control.
pub const LCR: u16 = 3;
/// Modem control.
pub const MCR: u16 = 4;
/// Line status.
pub const LSR: u16 = 5;
/// Modem status.
pub const MSR: u16 = 6;
/// Scratch.
pub const SCR: u16 = 7;

pub(super) const IER_RX: u8 = 1 << 0;
pub(super) const IER_THRE: u8 = 1 << 1;
pub(super) const IER_LINE: u8 = 1 << 2;
pub(super) const IER_MODEM: u8 = 1 << 3;

pub(super) const IIR_MODEM: u8 = 0x00;
pub(super) const IIR_NONE: u8 = 0x01;
pub(super) const IIR_THRE: u8 = 0x02;
pub(super) const IIR_RX: u8 = 0x04;
pub(super) const IIR_LINE: u8 = 0x06;
pub(super) const IIR_TIMEOUT: u8 = 0x0c;
pub(super) const IIR_FIFOS: u8 = 0xc0;

pub(super) const FCR_ENABLE: u8 = 1 << 0;
pub(super) const FCR_RX_RESET: u8 = 1 << 1;

pub(super) const LCR_STOP_BITS: u8 = 1 << 2;
pub(super) const LCR_PARITY: u8 = 1 << 3;
pub(super) const LCR_BREAK: u8 = 1 << 6;
pub(super) const LCR_DLAB: u8 = 1 << 7;

pub(super) const MCR_DTR: u8 = 1 << 0;
pub(super) const MCR_RTS: u8 = 1 << 1;
pub(super) const MCR_OUT1: u8 = 1 << 2;
pub(super) const MCR_OUT2: u8 = 1 << 3;
pub(super) const MCR_LOOP: u8 = 1 << 4;

pub(super) const LSR_DATA: u8 = 1 << 0;
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
pub(super) const LSR_BREAK: u8 = 1 << 4;
pub(super) const LSR_THRE: u8 = 1 << 5;
pub(super) const LSR_TEMT: u8 = 1 << 6;
pub(super) const LSR_FIFO_ERROR: u8 = 1 << 7;

pub(super) const MSR_CTS: u8 = 1 << 4;
pub(super) const MSR_DSR: u8 = 1 << 5;
pub(super) const MSR_RI: u8 = 1 << 6;
pub(super) const MSR_DCD: u8 = 1 << 7;
