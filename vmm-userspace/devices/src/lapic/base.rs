//! IA32_APIC_BASE and the states of a local APIC (SDM 3A 11.4.4, 11.12.5.1).

use super::Gp;

/// MSR number of IA32_APIC_BASE.
pub const IA32_APIC_BASE: u32 = 0x1b;
/// Where the registers are after reset (SDM 3A 11.4.1).
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// This is the bootstrap processor.
pub(super) const BSP: u64 = 1 << 8;
/// x2APIC mode.
pub(super) const EXTD: u64 = 1 << 10;
/// Global enable.
pub(super) const EN: u64 = 1 << 11;

const PAGE_MASK: u64 = 0xfff;

/// The state that EN and EXTD select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As if the processor had no local APIC: LINT0 is INTR, LINT1 is NMI (SDM 3A 11.4.3).
    Disabled,
    /// Registers are memory-mapped.
    XApic,
    /// Registers are MSRs.
    X2Apic,
}

impl Mode {
    /// The state of a value that IA32_APIC_BASE can have; `None` for EXTD without EN, which is
    /// invalid.
    const fn of(base: u64) -> Option<Self> {
        match (base & EN != 0, base & EXTD != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }
}

/// The register: always a valid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Base(u64);

impl Base {
    pub(super) const fn new(bsp: bool) -> Self {
        Self(DEFAULT_BASE | EN | if bsp { BSP } else { 0 })
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }

    pub(super) const fn is_bsp(self) -> bool {
        self.0 & BSP != 0
    }

    pub(super) const fn mode(self) -> Mode {
        match Mode::of(self.0) {
            Some(mode) => mode,
            None => Mode::Disabled,
        }
    }

    pub(super) const fn address(self) -> u64 {
        self.0 & !PAGE_MASK
    }

    /// The register after a WRMSR of `value`, or the fault that the write causes: on reserved bits
    /// and on the transitions that figure 11-27 calls illegal.
    pub(super) fn transition(
        self,
        value: u64,
        physical_bits: u8,
        x2apic: bool,
    ) -> Result<Self, Gp> {
        let address_bits = 1u64.checked_shl(physical_bits.into()).map_or(u64::MAX, |n| n - 1);
        let extd = if x2apic { EXTD } else { 0 };
        if value & !(BSP | EN | extd | address_bits & !PAGE_MASK) != 0 {
            return Err(Gp);
        }
        match (self.mode(), Mode::of(value).ok_or(Gp)?) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => Err(Gp),
            _ => Ok(Self(value)),
        }
    }
}
