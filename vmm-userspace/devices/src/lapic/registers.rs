//! Numbers, access rights and fields of the registers: SDM 3A 11.4.1 table 11-1 (xAPIC) and
//! 11.12.1.2 table 11-6 (x2APIC). A register's number is its MMIO offset divided by 16, which is
//! also its MSR number less 0x800.

use super::Features;

pub(super) const ID: u8 = 0x02;
pub(super) const VERSION: u8 = 0x03;
pub(super) const TPR: u8 = 0x08;
pub(super) const APR: u8 = 0x09;
pub(super) const PPR: u8 = 0x0a;
pub(super) const EOI: u8 = 0x0b;
pub(super) const RRD: u8 = 0x0c;
pub(super) const LDR: u8 = 0x0d;
pub(super) const DFR: u8 = 0x0e;
pub(super) const SVR: u8 = 0x0f;
pub(super) const ISR: u8 = 0x10;
pub(super) const ISR_LAST: u8 = 0x17;
pub(super) const TMR: u8 = 0x18;
pub(super) const TMR_LAST: u8 = 0x1f;
pub(super) const IRR: u8 = 0x20;
pub(super) const IRR_LAST: u8 = 0x27;
pub(super) const ESR: u8 = 0x28;
pub(super) const LVT_CMCI: u8 = 0x2f;
pub(super) const ICR: u8 = 0x30;
pub(super) const ICR_HIGH: u8 = 0x31;
pub(super) const LVT_TIMER: u8 = 0x32;
pub(super) const LVT_THERMAL: u8 = 0x33;
pub(super) const LVT_PERFORMANCE: u8 = 0x34;
pub(super) const LVT_LINT0: u8 = 0x35;
pub(super) const LVT_LINT1: u8 = 0x36;
pub(super) const LVT_ERROR: u8 = 0x37;
pub(super) const INITIAL_COUNT: u8 = 0x38;
pub(super) const CURRENT_COUNT: u8 = 0x39;
pub(super) const DIVIDE: u8 = 0x3e;
pub(super) const SELF_IPI: u8 = 0x3f;

/// SVR: the APIC is enabled by software (SDM 3A 11.9).
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR: EOIs are not broadcast (SDM 3A 11.8.5).
pub(super) const SVR_NO_EOI_BROADCAST: u32 = 1 << 12;
/// DFR: the bits below the model are read-only ones (SDM 3A 11.6.2.2).
pub(super) const DFR_ONES: u32 = 0x0fff_ffff;
/// ICR, low half: everything but the delivery status and the reserved bits (SDM 3A 11.6.1). In
/// x2APIC mode there is no delivery status, bit 12 is reserved (SDM 3A 11.12.9).
pub(super) const ICR_WRITABLE: u32 = 0x000c_cfff;

/// What software may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Reserved,
    ReadOnly,
    WriteOnly,
    ReadWrite,
}

/// Access rights in xAPIC mode.
///
/// The ID register is read-only since Nehalem (SDM 3A 11.4.6). APR and RRD are obsolete but not
/// reserved (table 11-1, note on bit 7 of the ESR).
pub(super) const fn xapic_access(register: u8, features: Features) -> Access {
    match register {
        ID | VERSION | APR | PPR | RRD | ISR..=IRR_LAST | CURRENT_COUNT => Access::ReadOnly,
        EOI => Access::WriteOnly,
        TPR | LDR | DFR | SVR | ESR | ICR | ICR_HIGH | LVT_TIMER..=INITIAL_COUNT | DIVIDE => {
            Access::ReadWrite
        }
        LVT_CMCI if features.cmci => Access::ReadWrite,
        _ => Access::Reserved,
    }
}

/// Access rights in x2APIC mode: no APR, RRD, DFR and ICR high half, a read-only LDR, and SELF IPI.
pub(super) const fn x2apic_access(register: u8, features: Features) -> Access {
    match register {
        APR | RRD | DFR | ICR_HIGH => Access::Reserved,
        LDR => Access::ReadOnly,
        SELF_IPI => Access::WriteOnly,
        _ => xapic_access(register, features),
    }
}

/// The bits that software can change.
pub(super) const fn writable_bits(register: u8, features: Features) -> u32 {
    match register {
        TPR | SELF_IPI => 0xff,
        LDR => 0xff00_0000,
        DFR => !DFR_ONES,
        // Bit 9, focus-processor checking, is reserved since the Pentium 4 (SDM 3A 11.9).
        SVR => 0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST,
        ICR => ICR_WRITABLE,
        ICR_HIGH => 0xff00_0000,
        // SDM 3A 11.5.1, figure 11-8. Without TSC-deadline mode bit 18 is reserved (11.5.4.1).
        LVT_TIMER if features.tsc_deadline => 0x0007_00ff,
        LVT_TIMER => 0x0003_00ff,
        LVT_CMCI | LVT_THERMAL | LVT_PERFORMANCE => 0x0001_07ff,
        LVT_LINT0 | LVT_LINT1 => 0x0001_a7ff,
        LVT_ERROR => 0x0001_00ff,
        INITIAL_COUNT => u32::MAX,
        // SDM 3A 11.5.4, figure 11-10.
        DIVIDE => 0b1011,
        // The value written to EOI and ESR must be zero in x2APIC mode (SDM 3A 11.12.1.2).
        _ => 0,
    }
}

/// The read-only status bits: neither writable nor reserved. Delivery status in LVT entries, and
/// Remote IRR of the LINT pins (SDM 3A 11.5.1).
pub(super) const fn status_bits(register: u8) -> u32 {
    match register {
        LVT_LINT0 | LVT_LINT1 => 1 << 12 | 1 << 14,
        LVT_CMCI | LVT_TIMER | LVT_THERMAL | LVT_PERFORMANCE | LVT_ERROR => 1 << 12,
        _ => 0,
    }
}
