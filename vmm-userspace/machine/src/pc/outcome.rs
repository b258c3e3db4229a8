//! What an exit asks of the owner.

use abi::vcpu::{Exit, Groups};
use core::fmt;
use emulate::fault::Bytes;

/// How the machine goes on after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Reply with these groups.
    Continue(Groups),
    /// The state image lacks groups: reply with none, and let the portal of this exit deliver these too the next time. The
    /// guest executes the same instruction again.
    Need(Groups),
    /// The guest executed HLT: wait for [`super::Pc::deadline`] or for input, and ask [`super::Pc::wake`].
    Halt,
    /// The guest asked for a reset: start the machine anew.
    Reset,
    /// The guest switched itself off.
    PowerOff,
    /// The guest cannot go on.
    Stop(Stop),
}

/// Why a guest cannot go on. The state image holds what the portal delivered, for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// HLT with interrupts off.
    Halted,
    /// Triple fault.
    TripleFault,
    /// The processor refused the state of the guest, with its reason.
    BadState(u64),
    /// An exit that nothing handles, with its qualification.
    Unhandled(Exit, u64),
    /// An instruction that accessed a device and is not emulated, with the address it accessed.
    Instruction(Bytes, u64),
    /// An instruction that left the guest and is not known.
    Unknown(Bytes),
    /// Interrupts and exceptions cannot be delivered: what that takes is outside of RAM, at this address.
    DeliveryOutsideRam(u64),
    /// A switch to the task with this selector (SDM 3A 8.3, APM 2 12.3): no system of today needs one.
    TaskSwitch(u16),
    /// The instruction at RIP is outside of RAM, at this address.
    FetchOutsideRam(u64),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halted => f.write_str("the guest halted with interrupts off"),
            Self::TripleFault => f.write_str("triple fault in the guest"),
            Self::BadState(reason) => {
                write!(f, "the processor refused the guest's state (reason {reason:#x})")
            }
            Self::Unhandled(exit, qualification) => {
                write!(f, "nothing handles the exit {exit:?} (qualification {qualification:#x})")
            }
            Self::Instruction(bytes, gpa) => {
                write!(f, "the instruction {bytes} accessed {gpa:#x} and is not emulated")
            }
            Self::Unknown(bytes) => {
                write!(f, "the instruction {bytes} left the guest and is not known")
            }
            Self::DeliveryOutsideRam(gpa) => {
                write!(
                    f,
                    "an event cannot be delivered: the guest's tables or its stack are outside of its memory, at {gpa:#x}"
                )
            }
            Self::TaskSwitch(selector) => {
                write!(f, "the guest switches to the task {selector:#x}, which is not emulated")
            }
            Self::FetchOutsideRam(gpa) => {
                write!(f, "the guest executed code outside of its memory, at {gpa:#x}")
            }
        }
    }
}
