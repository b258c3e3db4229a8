//! The addresses and interrupt lines of the machine, for its wiring and for the tables that describe it.

/// I/O ports of the ACPI fixed hardware start here.
pub const PM_BASE: u16 = 0x600;
/// First port of the first serial port.
pub const COM1: u16 = 0x3f8;
/// The debug port of firmware.
pub const DEBUG_PORT: u16 = 0x80;
/// Guest-physical address of the I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Guest-physical address of the local APIC after reset.
pub const LAPIC: u64 = 0xfee0_0000;
/// Interrupt line of the 8254.
pub const IRQ_TIMER: u8 = 0;
/// Input of the I/O APIC that the 8254 drives; input 0 belongs to the 8259.
pub const GSI_TIMER: u8 = 2;
/// Interrupt line of the keyboard controller.
pub const IRQ_KEYBOARD: u8 = 1;
/// Interrupt line of the first serial port.
pub const IRQ_COM1: u8 = 4;
/// Interrupt line of the real-time clock.
pub const IRQ_RTC: u8 = 8;
/// The system control interrupt.
pub const IRQ_SCI: u8 = 9;
/// Interrupt line of the auxiliary device.
pub const IRQ_AUX: u8 = 12;
/// Width of guest-physical addresses offered at most: what four levels of second-level tables cover.
pub const PHYSICAL_BITS_MAX: u32 = 48;
/// Clock of the local APIC's timer, in Hz.
pub const APIC_TIMER_HZ: u64 = 1_000_000_000;
