//! The fixed description table (ACPI 6.5 5.2.9).

use acpi_tables::{
    fadt::{FADT, FADTBuilder, Flags, PmProfile},
    gas::{AccessSize, AddressSpace, GAS},
};
use devices::{acpi_pm, reset_control};

use super::{OEM, REVISION, TABLE};
use crate::layout::{IRQ_SCI, PM_BASE};

/// Devices of an AT are there (LEGACY_DEVICES), no VGA. The 8042 is not announced: it has no keyboard, and its reset
/// line is used without asking.
const BOOT_ARCH: u16 = 1 << 0 | 1 << 2;
/// Latencies that mean "no such state" (ACPI 6.5 table 5.9, P_LVL2_LAT and P_LVL3_LAT).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// CMOS byte with the century.
const CENTURY: u8 = 0x32;

fn port(address: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, u64::from(address))
}

pub fn build(facs: u64, dsdt: u64) -> FADT {
    let event = PM_BASE + acpi_pm::EVENT_BLOCK;
    let control = PM_BASE + acpi_pm::CONTROL_BLOCK;
    let timer = PM_BASE + acpi_pm::TIMER_BLOCK;
    let gpe = PM_BASE + acpi_pm::GPE0_BLOCK;
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .firmware_ctrl_32(facs as u32)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    // Both forms of the address, for those who know only one; they must agree.
    fadt.dsdt = (dsdt as u32).into();
    fadt.sci_int = u16::from(IRQ_SCI).into();
    fadt.smi_cmd = u32::from(acpi_pm::COMMAND_PORT).into();
    fadt.acpi_enable = acpi_pm::ACPI_ENABLE;
    fadt.acpi_disable = acpi_pm::ACPI_DISABLE;
    fadt.pm1a_evt_blk = u32::from(event).into();
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.pm_tmr_blk = u32::from(timer).into();
    fadt.gpe0_blk = u32::from(gpe).into();
    fadt.pm1_evt_len = acpi_pm::EVENT_BLOCK_SIZE;
    fadt.pm1_cnt_len = acpi_pm::CONTROL_BLOCK_SIZE;
    fadt.pm_tmr_len = acpi_pm::TIMER_BLOCK_SIZE;
    fadt.gpe0_blk_len = acpi_pm::GPE0_BLOCK_SIZE;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(reset_control::PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = reset_control::RESET_VALUE;
    fadt.x_pm1a_evt_blk = port(event, acpi_pm::EVENT_BLOCK_SIZE, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(control, acpi_pm::CONTROL_BLOCK_SIZE, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(timer, acpi_pm::TIMER_BLOCK_SIZE, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(gpe, acpi_pm::GPE0_BLOCK_SIZE, AccessSize::ByteAccess);
    fadt.finalize()
}
