//! Execution of single guest instructions whose memory or port access left the guest.
//!
//! The processor tells the virtual-machine monitor *that* an instruction touched an address without
//! RAM behind it, not what the instruction is, and some processors not even how long it is. This crate fetches it through the guest's page tables, decodes
//! it and carries it out on the neutral state image of `abi`, with the guest's memory and
//! devices behind the [`Bus`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`bus`] | what the owner provides: guest-physical accesses and ports |
//! | [`fault`] | exceptions that the instruction raises, and how emulation ended |
//! | [`paging`] | linear to guest-physical addresses in all paging modes |
//! | `segment` | logical to linear addresses with limit and type checks |
//! | `fast` | the MOV forms that drivers use on device registers, without the full decoder |
//! | `execute`, `string` | everything else, decoded by `iced-x86` |
//! | `control` | which access to a control register an instruction makes, where the processor does not tell |
//! | `alu` | arithmetic with flags |
//!
//! What is not emulated: accesses by floating-point and vector registers (they are not in the state image),
//! far branches and system instructions. [`End::Unsupported`] carries the bytes so that the report can name the
//! instruction.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod access;
pub mod alu;
pub mod bus;
mod control;
mod execute;
pub mod fast;
pub mod fault;
mod fetch;
pub mod mode;
pub mod paging;
pub mod registers;
mod segment;
mod string;

pub use bus::Bus;
pub use control::{Control, control};
pub use fault::{End, Fault, Report};
pub use fetch::length;

use abi::vcpu::VcpuState;

/// What the exit already told about the access, so that it need not be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Guest-linear address of the access.
    pub linear: u64,
    /// Guest-physical address of the access.
    pub gpa: u64,
}

/// Carries out the instruction at the guest's RIP.
///
/// `state` must hold everything but the descriptor tables, debug, SYSENTER, SYSCALL and XSAVE registers. The report names
/// the groups that were changed. RIP is not: on [`End::Done`] `state.inst_len` holds the length of the
/// instruction and the owner completes it with [`abi::vcpu::Groups::DONE`]; on [`End::Again`] a repeated string instruction has
/// done a bounded part of its work and goes on when the guest executes it again.
///
/// A `hint` with the address of the faulting access makes simple MOVs cheaper; it must only be given
/// for accesses to the translation of a linear address.
pub fn emulate(state: &mut VcpuState, bus: &mut impl Bus, hint: Option<Hint>) -> Report {
    let mode = mode::Mode::of(state);
    let code = match hint {
        // Without a hint it may be the fetch itself that ran into something.
        None => fetch::Code::fetch(state, bus, mode),
        Some(_) => fetch::Code::fetch_again(state, bus, mode),
    };
    let code = match code {
        Ok(code) => code,
        Err(fault) => return Report::fault(fault),
    };
    if let Some(hint) = hint
        && let Some(report) = simple(&code, state, bus, mode, hint)
    {
        return report;
    }
    execute::run(state, bus, mode, code)
}

/// Like [`emulate`], but only for simple MOVs, which need no data segments in `state`. `None`: nothing has happened, the
/// instruction is another one.
pub fn emulate_simple(state: &mut VcpuState, bus: &mut impl Bus, hint: Hint) -> Option<Report> {
    let mode = mode::Mode::of(state);
    let code = match fetch::Code::fetch_again(state, bus, mode) {
        Ok(code) => code,
        Err(fault) => return Some(Report::fault(fault)),
    };
    simple(&code, state, bus, mode, hint)
}

#[inline]
fn simple(
    code: &fetch::Code,
    state: &mut VcpuState,
    bus: &mut impl Bus,
    mode: mode::Mode,
    hint: Hint,
) -> Option<Report> {
    let mov = fast::decode(&code.bytes, mode.code_bits())?;
    if mov.len > code.len {
        return None;
    }
    fast::execute(&mov, state, bus, hint)
}
