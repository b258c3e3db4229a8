//! How the emulation of an instruction ends.

use abi::vcpu::{Event, Groups, VcpuState};

/// An exception that the emulated instruction raises in the guest (SDM 3A 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #DE.
    Divide,
    /// #UD.
    InvalidOpcode,
    /// #SS with its error code.
    Stack(u16),
    /// #GP with its error code.
    General(u16),
    /// #PF at a linear address with its error code (SDM 3A 4.7).
    Page {
        /// What CR2 will hold.
        address: u64,
        /// Error code.
        code: u32,
    },
}

impl Fault {
    /// Puts the exception into the state image. Returns the groups to write back.
    pub fn raise(self, state: &mut VcpuState) -> Groups {
        state.event = match self {
            Self::Divide => Event::exception(0, None),
            Self::InvalidOpcode => Event::exception(6, None),
            Self::Stack(code) => Event::exception(12, Some(u32::from(code))),
            Self::General(code) => Event::exception(13, Some(u32::from(code))),
            Self::Page { code, .. } => Event::exception(14, Some(code)),
        };
        match self {
            Self::Page { address, .. } => {
                state.cr2 = address;
                Groups::EVENT | Groups::CR2
            }
            _ => Groups::EVENT,
        }
    }
}

/// Result of an emulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Groups of the state image that changed, without [`Groups::DONE`].
    pub groups: Groups,
    /// How it ended.
    pub end: End,
}

/// How an emulation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The instruction is complete; `inst_len` of the state image is its length.
    Done,
    /// Part of a repeated string instruction is done; the guest goes on at the same RIP.
    Again,
    /// The instruction raised an exception. RIP stays.
    Fault(Fault),
    /// An instruction that is not emulated.
    Unsupported(Bytes),
}

/// The bytes of an instruction, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// What was fetched, zeros behind `len`.
    pub bytes: [u8; 15],
    /// Length of the instruction, or of what could be fetched if it could not be decoded.
    pub len: u8,
}

impl core::fmt::Display for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, byte) in self.bytes.iter().take(usize::from(self.len)).enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Report {
    pub(crate) const fn fault(fault: Fault) -> Self {
        Self { groups: Groups::NONE, end: End::Fault(fault) }
    }
}
