//! The machine: devices, processor policy and their wiring, as one pure state machine.
//!
//! ```text
//!            ports          MMIO         CPUID   MSR   control registers
//!              │             │             │      │          │
//!   ┌──────────▼─────────────▼─────┐   ┌───▼──────▼──────────▼──┐
//!   │ board: UART PIT RTC PM PCI … │   │ processor              │
//!   │   └─ lines ─ PIC, IOAPIC ────┼──►│ local APIC ─ injection │
//!   └──────────────────────────────┘   └────────────────────────┘
//! ```
//! The owner enters with every VM exit ([`Pc::exit`]) and acts on the [`Outcome`]; between exits it brings input and asks for
//! output. The only clocks are those behind [`Clock`].

mod board;
mod clock;
mod control;
mod emulation;
mod exit;
mod groups;
mod interrupts;
mod lines;
mod mmio;
mod outcome;
mod ports;

use abi::vcpu::{Groups, VcpuState, Window};
use core::num::NonZeroU64;
use devices::{
    lapic::{Config, Features, LocalApic},
    time::Time,
};

pub use clock::Clock;
pub use groups::{Tells, portal_groups};
pub use outcome::{Outcome, Stop};

use crate::{
    control as cr,
    cpuid::{Cpuid, Registers, Topology},
    layout,
    memory::MemoryMap,
    msr::{self, Msrs},
};
use board::Board;

/// What a machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its RAM.
    pub memory: MemoryMap,
    /// Wall-clock time at power-on, in seconds since 1970 UTC.
    pub unix_seconds: u64,
    /// Whether guests can use XSAVE ([`abi::hip::features::XSAVE`]).
    pub xsave: bool,
    /// Added to the host's time-stamp counter to get the guest's.
    pub tsc_offset: u64,
}

/// A machine with one virtual CPU.
#[derive(Clone, Debug)]
pub struct Pc {
    board: Board,
    cpuid: Cpuid,
    msrs: Msrs,
    limits: cr::Limits,
    injection: interrupts::Injection,
    /// Deadline that the virtual CPU has, in host ticks.
    deadline: u64,
}

impl Pc {
    /// A machine at power-on. `host` answers CPUID on the CPU that the guest runs on.
    #[must_use]
    pub fn new(settings: &Settings, host: impl FnMut(u32, u32) -> Registers) -> Self {
        let topology = Topology { cpus: 1, apic_id: 0, xsave: settings.xsave };
        let cpuid = Cpuid::new(host, topology);
        let physical_bits = cpuid.physical_bits();
        let limits = cr::Limits { cr4: cpuid.cr4_mask(), xcr0: cpuid.xcr0_mask(), physical_bits };
        let msr_limits =
            msr::Limits { efer: cpuid.efer_mask(), physical_bits, manual: cpuid.manual() };
        let lapic = LocalApic::new(Config {
            id: topology.apic_id,
            bootstrap: true,
            physical_address_bits: physical_bits as u8,
            timer_hz: NonZeroU64::new(layout::APIC_TIMER_HZ).unwrap_or(NonZeroU64::MIN),
            features: Features { x2apic: true, tsc_deadline: true, cmci: false },
        });
        Self {
            board: Board::new(lapic, settings),
            msrs: Msrs::new(msr_limits, settings.tsc_offset),
            cpuid,
            limits,
            injection: interrupts::Injection::default(),
            deadline: u64::MAX,
        }
    }

    /// Adds to a state image what this machine asks of the processor, for the answer to [`abi::vcpu::Exit::Startup`]. Returns the
    /// groups to write: all.
    pub fn start(&mut self, state: &mut VcpuState, clock: &impl Clock) -> Groups {
        // CPUID shows OSXSAVE; what CPUID does not offer must fault.
        state.cr4_mask = !self.limits.cr4 | cr::OSXSAVE;
        state.cr0_mask = 0;
        state.exceptions = 0;
        state.intercepts = 0;
        state.tsc_offset = self.msrs.tsc_offset();
        self.deadline = self.board.next_event(clock, self.msrs.tsc_offset());
        state.deadline = self.deadline;
        Groups::ALL
    }

    /// CPUID leaf 1 EAX, which EDX holds after reset.
    #[must_use]
    pub fn signature(&self) -> u32 {
        self.cpuid.lookup(1, 0)[0]
    }

    /// The next byte that the guest sent to its console.
    #[inline]
    pub fn take_output(&mut self) -> Option<u8> {
        self.board.uart.take_tx()
    }

    /// Bytes that wait for [`Pc::take_output`].
    #[inline]
    #[must_use]
    pub fn output_waiting(&self) -> usize {
        self.board.uart.tx_waiting()
    }

    /// Tells the serial port that there is room for output again. To be called after bytes were taken outside of an exit; the
    /// virtual CPU must then be recalled if [`Pc::interrupt_waiting`].
    pub fn output_taken(&mut self) {
        self.board.sync_uart();
    }

    /// Whether the guest waits for console input; one that does not yet would lose it.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.board.uart.listens()
    }

    /// How many console bytes the guest can take now: the serial line has a speed.
    #[must_use]
    pub fn input_room(&self, clock: &impl Clock) -> usize {
        self.board.uart.rx_room(clock.time())
    }

    /// When [`Pc::input_room`] is next above zero, for an owner that has input; `None` if the guest must read first.
    #[must_use]
    pub fn next_input(&self, clock: &impl Clock) -> Option<Time> {
        self.board.uart.next_rx(clock.time())
    }

    /// How many bytes of console input the guest has read in all, and how many wait in the serial port.
    #[must_use]
    pub fn input_fate(&self) -> (u64, usize) {
        self.board.uart.rx_fate()
    }

    /// Brings a byte of console input. Without room it causes an overrun error, as on a real line.
    pub fn input(&mut self, byte: u8, clock: &impl Clock) {
        self.board.uart.push_rx(byte, clock.time());
        self.board.sync_uart();
        self.board.touch_timers();
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&mut self) {
        self.board.pm.press_power_button();
        self.board.sync_sci();
    }

    /// Whether the guest has something to be interrupted with that it was not yet told of: the virtual CPU
    /// is to be recalled or, if it halts, woken.
    #[must_use]
    pub fn interrupt_waiting(&self) -> bool {
        let asked = |window| self.injection.asked(window);
        self.board.nmi && !asked(Window::NMI)
            || self.board.interrupt_pending() && !asked(Window::INTERRUPT)
    }

    /// Host time-stamp-counter value at which the machine needs a [`abi::vcpu::Exit::Recall`] or, while it halts, a [`Pc::wake`].
    #[inline]
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.deadline
    }
}
