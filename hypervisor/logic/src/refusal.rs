//! Why a processor cannot run guests.

use core::fmt;

/// What is in the way; its text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CPUID does not report the extension of that name.
    Absent(&'static str),
    /// Something that is missing or turned off.
    Because(&'static str),
    /// The VMCS must lie in memory of another type than write-back; here is the number (SDM 3D
    /// A.1).
    VmcsMemoryType(u8),
    /// A control cannot be 1: its group, and its name.
    Unavailable(&'static str, &'static str),
    /// A control cannot be 0: its group, and its name.
    Forced(&'static str, &'static str),
    /// There is no ASID for a guest; here is the number of all.
    TooFewAsids(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(extension) => write!(f, "no {extension}"),
            Self::Because(what) => f.write_str(what),
            Self::VmcsMemoryType(kind) => write!(f, "VMCS in memory of type {kind}"),
            Self::Unavailable(group, name) => write!(f, "{group} control {name} is not available"),
            Self::Forced(group, name) => write!(f, "{group} control {name} cannot be off"),
            Self::TooFewAsids(number) => {
                write!(f, "too few ASIDs: {number}, where the host needs one and guests another")
            }
        }
    }
}
