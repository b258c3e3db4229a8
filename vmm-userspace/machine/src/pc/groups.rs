//! Which state each portal needs.

use abi::{
    hip::features,
    vcpu::{Exit, Groups},
};

/// What the processor tells about an exit, and so need not be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tells {
    /// Lengths of instructions.
    pub lengths: bool,
    /// Linear addresses of accesses to memory.
    pub addresses: bool,
}

impl Tells {
    /// By [`abi::hip::Hip::features`].
    #[must_use]
    pub const fn by(features: u64) -> Self {
        Self {
            lengths: features & features::INSTRUCTION_LENGTH != 0,
            addresses: features & features::LINEAR_ADDRESS != 0,
        }
    }
}

/// For fetching the instruction at RIP.
const FETCH: Groups = Groups::RIP
    .union(Groups::RFLAGS)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS);
/// For fetching and the simple MOVs: no data segments.
const MEMORY: Groups = FETCH.union(Groups::GPRS).union(Groups::QUAL);
const CONTROL: Groups = Groups::GPRS
    .union(Groups::QUAL)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS)
    .union(Groups::TABLES);
/// What [`emulate::emulate`] wants, and whether the access belongs to the instruction at RIP at all.
pub(super) const EMULATE: Groups =
    MEMORY.union(Groups::DS_ES).union(Groups::FS_GS).union(Groups::EVENT);

/// The groups that the portal of `exit` is to deliver: as few as its usual case takes, because each costs instructions. Rare
/// cases ask for more with [`super::Outcome::Need`].
#[must_use]
pub const fn portal_groups(exit: Exit, tells: Tells) -> Groups {
    let fetch = if tells.lengths { Groups::NONE } else { FETCH };
    match exit {
        Exit::Cpuid | Exit::MsrRead | Exit::MsrWrite | Exit::Xsetbv => Groups::ACDB.union(fetch),
        // The length is always told.
        Exit::Port => Groups::ACDB.union(Groups::QUAL),
        Exit::Hlt => Groups::RFLAGS.union(fetch),
        Exit::CacheInvalidate | Exit::Pause => fetch,
        Exit::Memory => {
            if tells.addresses {
                MEMORY
            } else {
                EMULATE
            }
        }
        Exit::Control => {
            if tells.lengths {
                CONTROL
            } else {
                CONTROL.union(EMULATE)
            }
        }
        Exit::Recall => Groups::RFLAGS.union(Groups::EVENT).union(Groups::BLOCKING),
        Exit::Startup
        | Exit::InterruptWindow
        | Exit::NmiWindow
        | Exit::Hypercall
        | Exit::Virtualization
        | Exit::Rdpmc
        | Exit::Mwait
        | Exit::Init => Groups::NONE,
        // For the report.
        Exit::BadState
        | Exit::TripleFault
        | Exit::Exception
        | Exit::Debug
        | Exit::DescriptorTable
        | Exit::Invlpg
        | Exit::Rdtsc
        | Exit::TaskSwitch
        | Exit::Other => Groups::ALL,
    }
}

/// The encoding that the instruction behind an exit has nearly always, if the machine carries it out without a look at it.
pub(super) const fn usual_code(exit: Exit) -> &'static [u8] {
    match exit {
        Exit::Cpuid => &[0x0f, 0xa2],
        Exit::MsrRead => &[0x0f, 0x32],
        Exit::MsrWrite => &[0x0f, 0x30],
        Exit::Hlt => &[0xf4],
        Exit::Xsetbv => &[0x0f, 0x01, 0xd1],
        Exit::CacheInvalidate => &[0x0f, 0x09],
        Exit::Pause => &[0xf3, 0x90],
        _ => &[],
    }
}
