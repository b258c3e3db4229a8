//! MOV to and from control registers, CLTS, LMSW and SMSW (SDM 2, APM 3): what the instruction is, for exits where the processor
//! tells only the register.

use abi::vcpu::{ControlAccess, Groups, VcpuState};
use iced_x86::{Instruction, Mnemonic, Register};

use crate::{
    bus::Bus,
    execute::{Cpu, Stop},
    fault::{Bytes, Fault},
    fetch::Code,
    mode::Mode,
    paging::Access,
    registers,
};

/// What [`control`] found at RIP. `inst_len` of the state image is the length of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// What other processors tell of this instruction.
    Access(ControlAccess),
    /// SMSW, which is done. These groups changed.
    Stored(Groups),
    /// Nothing of the kind.
    Other(Bytes),
}

const MOV_FROM: u64 = 1 << 4;
const CLTS: u64 = 2 << 4;
const LMSW: u64 = 3 << 4;

/// Decodes the access to a control register that the guest is about to make. It needs the same groups as [`crate::emulate`].
///
/// # Errors
/// The exception that the instruction raises before it gets to the register.
pub fn control(state: &mut VcpuState, bus: &mut impl Bus) -> Result<Control, Fault> {
    let mode = Mode::of(state);
    let mut code = Code::fetch_again(state, bus, mode)?;
    let Some(instruction) = code.decode(state, bus, mode)? else {
        return Ok(Control::Other(code.report(usize::from(code.len))));
    };
    state.inst_len = instruction.len() as u64;
    let mut cpu = Cpu { state, bus, mode, groups: Groups::NONE };
    match access(&mut cpu, &instruction) {
        Ok(Some(access)) => Ok(Control::Access(ControlAccess(access | ControlAccess::DECODED))),
        Ok(None) => Ok(Control::Stored(cpu.groups)),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Unsupported | Stop::Again) => Ok(Control::Other(code.report(instruction.len()))),
    }
}

/// The bits of [`ControlAccess`]; `None` for SMSW.
fn access<B: Bus>(cpu: &mut Cpu<'_, B>, i: &Instruction) -> Result<Option<u64>, Stop> {
    match i.mnemonic() {
        Mnemonic::Clts => Ok(Some(CLTS)),
        Mnemonic::Lmsw => {
            let from = cpu.operand(i, 0, Access::Read)?;
            Ok(Some(LMSW | (cpu.load(from) & 0xffff) << 16))
        }
        Mnemonic::Smsw => {
            // Memory gets 16 bits, a register as many as it has.
            let to = cpu.operand(i, 0, Access::Write)?;
            let value = cpu.state.cr0;
            cpu.store(to, value);
            Ok(None)
        }
        Mnemonic::Mov => {
            let (to, from) = (i.op0_register(), i.op1_register());
            let general = |register| registers::part(register).map(|part| u64::from(part.index));
            match (number(to), number(from), general(to), general(from)) {
                (Some(register), _, _, Some(gpr)) => Ok(Some(register | gpr << 8)),
                (_, Some(register), Some(gpr), _) => Ok(Some(register | MOV_FROM | gpr << 8)),
                _ => Err(Stop::Unsupported),
            }
        }
        _ => Err(Stop::Unsupported),
    }
}

/// Number of a control register.
fn number(register: Register) -> Option<u64> {
    (register as u32).checked_sub(Register::CR0 as u32).filter(|&n| n < 16).map(u64::from)
}
