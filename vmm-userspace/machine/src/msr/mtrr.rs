//! Memory-type range registers (SDM 3A 12.11).

use devices::lapic::Gp;

use crate::memory::HOLE;

const CAP: u32 = 0xfe;
const VARIABLE: u32 = 0x200;
const VARIABLE_END: u32 = VARIABLE + 2 * COUNT as u32 - 1;
const DEF_TYPE: u32 = 0x2ff;
/// Number of variable ranges.
const COUNT: usize = 8;
/// Eight variable ranges, fixed ranges, write-combining.
const CAP_VALUE: u64 = COUNT as u64 | 1 << 8 | 1 << 10;
/// IA32_MTRR_DEF_TYPE: fixed ranges and all ranges enabled.
const FIXED_ENABLE: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// IA32_MTRR_PHYSMASK: the range is valid.
const VALID: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;

/// The registers of one virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mtrr {
    def_type: u64,
    /// 64K_00000, 16K_80000, 16K_A0000, 4K_C0000 to 4K_F8000.
    fixed: [u64; 11],
    /// Base and mask by turns.
    variable: [u64; 2 * COUNT],
}

/// Whether a register is one of them.
pub const fn owns(register: u32) -> bool {
    matches!(register, CAP | VARIABLE..=VARIABLE_END | DEF_TYPE) || fixed_index(register).is_some()
}

const fn fixed_index(register: u32) -> Option<usize> {
    match register {
        0x250 => Some(0),
        0x258 | 0x259 => Some(register as usize - 0x258 + 1),
        0x268..=0x26f => Some(register as usize - 0x268 + 3),
        _ => None,
    }
}

const fn valid_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4..=6)
}

impl Mtrr {
    /// Write-back by default, the hole below 4 GiB and the legacy frame buffer uncached.
    pub const fn firmware(physical_bits: u32) -> Self {
        let mut fixed = [ALL_WRITE_BACK; 11];
        fixed[2] = 0;
        let mut variable = [0; 2 * COUNT];
        variable[0] = HOLE;
        // The hole is the last GiB below 4 GiB.
        variable[1] = ((1 << physical_bits) - 1) & !((1 << 30) - 1) | VALID;
        Self { def_type: ENABLE | FIXED_ENABLE | WRITE_BACK, fixed, variable }
    }

    /// RDMSR; `None` if it is none of these registers.
    pub fn read(&self, register: u32) -> Option<u64> {
        match register {
            CAP => Some(CAP_VALUE),
            DEF_TYPE => Some(self.def_type),
            VARIABLE..=VARIABLE_END => self.variable.get((register - VARIABLE) as usize).copied(),
            _ => self.fixed.get(fixed_index(register)?).copied(),
        }
    }

    /// WRMSR.
    ///
    /// # Errors
    /// #GP for reserved bits, reserved memory types and the read-only IA32_MTRRCAP.
    pub fn write(&mut self, register: u32, value: u64, physical_bits: u32) -> Result<(), Gp> {
        let beyond = value >> physical_bits != 0;
        let (slot, valid) = match register {
            DEF_TYPE => {
                let reserved = value & !(ENABLE | FIXED_ENABLE | 0xff) != 0;
                (Some(&mut self.def_type), !reserved && valid_type(value & 0xff))
            }
            VARIABLE..=VARIABLE_END => {
                let valid = if register & 1 == 0 {
                    value & 0xf00 == 0 && valid_type(value & 0xff)
                } else {
                    value & 0x7ff == 0
                };
                (self.variable.get_mut((register - VARIABLE) as usize), valid && !beyond)
            }
            _ => {
                let slot = fixed_index(register).and_then(|index| self.fixed.get_mut(index));
                (slot, value.to_le_bytes().iter().all(|&kind| valid_type(u64::from(kind))))
            }
        };
        match slot {
            Some(slot) if valid => {
                *slot = value;
                Ok(())
            }
            _ => Err(Gp),
        }
    }
}
