//! Which state each portal needs.

use abi::vcpu::{Exit, Groups};

/// For fetching and the simple MOVs: no data segments.
const MEMORY: Groups = Groups::GPRS
    .union(Groups::RIP)
    .union(Groups::RFLAGS)
    .union(Groups::QUAL)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS);
const CONTROL: Groups = Groups::GPRS
    .union(Groups::QUAL)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS)
    .union(Groups::TABLES);
/// What [`emulate::emulate`] wants.
pub(super) const EMULATE: Groups = MEMORY.union(Groups::DS_ES).union(Groups::FS_GS);

/// The groups that the portal of `exit` is to deliver: as few as its usual case takes, because each costs instructions. Rare
/// cases ask for more with [`super::Outcome::Need`].
#[must_use]
pub const fn portal_groups(exit: Exit) -> Groups {
    match exit {
        Exit::Cpuid | Exit::MsrRead | Exit::MsrWrite | Exit::Xsetbv => Groups::ACDB,
        Exit::Port => Groups::ACDB.union(Groups::QUAL),
        Exit::Hlt => Groups::RFLAGS,
        Exit::Memory => MEMORY,
        Exit::Control => CONTROL,
        Exit::Recall => Groups::RFLAGS.union(Groups::EVENT).union(Groups::BLOCKING),
        Exit::Startup
        | Exit::InterruptWindow
        | Exit::NmiWindow
        | Exit::Hypercall
        | Exit::Virtualization
        | Exit::CacheInvalidate
        | Exit::Rdpmc
        | Exit::Pause
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
