//! Local APIC of one virtual CPU, in xAPIC and x2APIC mode.
//!
//! Rules come from the SDM, volume 3A, chapter 11, and cite its sections. Nothing here is
//! specific to a virtual machine: the model has the registers of a processor since Nehalem, with
//! end-of-interrupt broadcast suppression.
//!
//! The owner
//! * gives the CPU's accesses to [`LocalApic::read`] and [`LocalApic::write`] (memory at
//!   [`LocalApic::mmio_base`]), [`LocalApic::read_msr`] and [`LocalApic::write_msr`], and CR8 to
//!   [`LocalApic::cr8`] and [`LocalApic::set_cr8`];
//! * gives interrupt messages of I/O APICs and of other local APICs to [`LocalApic::deliver`] of
//!   those that [`LocalApic::accepts`] or [`Ipi::reaches`] names, levels of the two pins to
//!   [`LocalApic::set_lint`], events of the processor to [`LocalApic::raise`];
//! * acts on the [`Effects`] that come back;
//! * calls [`LocalApic::advance`] no later than [`LocalApic::next_event`], and before it looks for
//!   an interrupt;
//! * interrupts the CPU while [`LocalApic::external_pending`] (vector from the 8259, then
//!   [`LocalApic::accept_external`]) or [`LocalApic::pending`] (vector from
//!   [`LocalApic::accept`]).

mod access;
mod base;
mod delivery;
mod destination;
mod error;
mod ipi;
mod lvt;
mod message;
mod mmio;
mod msr;
mod priority;
mod registers;
mod timer;
mod vectors;

use core::num::NonZeroU64;

use serde::{Deserialize, Serialize};

pub use base::{DEFAULT_BASE, IA32_APIC_BASE, Mode};
pub use ipi::{Ipi, Shorthand};
pub use lvt::{Lint, ProcessorEvent};
pub use message::{
    BROADCAST, DeliveryMode, DestinationMode, Message, TriggerMode, widen_destination,
};
pub use mmio::MMIO_SIZE;
pub use msr::owns_msr;
pub use priority::arbitrate;
pub use timer::{Clock, IA32_TSC_DEADLINE, NextEvent};

use base::Base;
use error::Errors;
use lvt::Lvt;
use timer::Timer;
use vectors::VectorSet;

/// Optional features, to agree with CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// x2APIC mode (CPUID.01H:ECX\[21\]).
    pub x2apic: bool,
    /// TSC-deadline mode of the timer (CPUID.01H:ECX\[24\]).
    pub tsc_deadline: bool,
    /// The LVT has an entry for corrected machine checks (IA32_MCG_CAP\[10\]).
    pub cmci: bool,
}

/// What is fixed at the creation of a virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 32-bit APIC ID; the xAPIC ID is its low 8 bits (SDM 3A 11.12.5.1).
    pub id: u32,
    /// Whether this is the bootstrap processor at power-on.
    pub bootstrap: bool,
    /// Width of physical addresses in bits (CPUID.80000008H:EAX\[7:0\]).
    pub physical_address_bits: u8,
    /// Clock of the timer before division, in Hz (CPUID.15H:ECX).
    pub timer_hz: NonZeroU64,
    /// Optional features.
    pub features: Features,
}

/// A general-protection exception, #GP(0), for the RDMSR or WRMSR that caused it. The instruction
/// has had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gp;

/// What a local APIC does to its processor beside interrupts with a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Non-maskable interrupt.
    Nmi,
    /// System-management interrupt.
    Smi,
    /// INIT: the CPU takes its INIT state; then it runs from the reset vector, or waits while
    /// [`LocalApic::is_waiting_for_sipi`]. The local APIC has reset itself.
    Init,
    /// Start-up IPI to a waiting CPU: it runs in real mode from this page number.
    StartUp(u8),
}

/// What an operation does outside of the local APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// An interprocessor interrupt to route.
    pub ipi: Option<Ipi>,
    /// An EOI of this vector to broadcast to the I/O APICs.
    pub eoi: Option<u8>,
    /// Something for this CPU.
    pub signal: Option<Signal>,
}

impl Effects {
    const NONE: Self = Self { ipi: None, eoi: None, signal: None };

    const fn of_signal(signal: Option<Signal>) -> Self {
        Self { signal, ..Self::NONE }
    }
}

/// The local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    config: Config,
    base: Base,
    /// The CPU waits for a start-up IPI.
    waiting_for_sipi: bool,
    /// Levels of the pins LINT0 and LINT1.
    lint: [bool; 2],
    /// An ExtINT message has come and no acknowledge cycle yet.
    external: bool,
    tpr: u8,
    /// Logical destination register of xAPIC mode.
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    errors: Errors,
    icr: u64,
    lvt: Lvt,
    timer: Timer,
}

impl LocalApic {
    /// The state at power-on (SDM 3A 11.4.7.1, 11.12.5.1): xAPIC mode, disabled by software.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            base: Base::new(config.bootstrap),
            waiting_for_sipi: !config.bootstrap,
            lint: [false; 2],
            external: false,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: VectorSet::EMPTY,
            tmr: VectorSet::EMPTY,
            irr: VectorSet::EMPTY,
            errors: Errors::default(),
            icr: 0,
            lvt: Lvt::RESET,
            timer: Timer::new(config.timer_hz.get()),
        }
    }

    /// Returns to the power-on state. The pins keep the levels that their drivers give them.
    pub fn reset(&mut self) {
        *self = Self { lint: self.lint, ..Self::new(self.config) };
    }

    /// The effect of INIT (SDM 3A 11.4.7.3): all registers are reset but the APIC ID and
    /// IA32_APIC_BASE, so the mode stays (11.12.5.1). All but the bootstrap processor then wait for
    /// a start-up IPI (SDM 3A 9.4.2).
    pub fn init(&mut self) {
        self.reset_registers();
        self.waiting_for_sipi = !self.base.is_bsp();
    }

    /// Resets what 11.4.7.1 lists, and keeps the mode.
    fn reset_registers(&mut self) {
        *self = Self {
            base: self.base,
            lint: self.lint,
            waiting_for_sipi: self.waiting_for_sipi,
            ..Self::new(self.config)
        };
    }

    /// The 32-bit APIC ID.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.config.id
    }

    /// The APIC ID that CPUID.01H:EBX and the ID register in xAPIC mode show.
    #[must_use]
    pub const fn xapic_id(&self) -> u8 {
        self.config.id as u8
    }

    /// The mode. CPUID.01H:EDX\[9\] must read as zero while it is disabled (SDM 3A 11.4.3).
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.base.mode()
    }

    /// Physical address of the registers; `None` unless they are mapped to memory.
    #[must_use]
    pub fn mmio_base(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then(|| self.base.address())
    }

    /// Whether the CPU waits for a start-up IPI and must not run.
    #[must_use]
    pub const fn is_waiting_for_sipi(&self) -> bool {
        self.waiting_for_sipi
    }

    /// Whether the APIC is enabled both globally and by software (SDM 3A 11.4.3).
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.mode() != Mode::Disabled && self.svr & registers::SVR_ENABLE != 0
    }

    /// Brings the timer up to the clock.
    pub fn advance(&mut self, clock: Clock) {
        if self.timer.advance(self.lvt.timer.timer_mode(), clock) {
            self.fire_vector(self.lvt.timer);
        }
    }

    /// When the timer will raise an interrupt; nothing if it is masked.
    ///
    /// A guest chooses how often that is. The owner decides how closely it follows.
    #[must_use]
    pub fn next_event(&self) -> NextEvent {
        if self.lvt.timer.is_masked() { NextEvent::default() } else { self.timer.next_event() }
    }
}
