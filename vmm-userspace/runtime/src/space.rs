//! Spaces: sets of capabilities, memory, ports and registers.

use abi::cap::{MemRights, Perms, Selector, SpaceKind, own, root};
use abi::hypercall::Status;
use abi::layout::PAGE_SHIFT;

use crate::hypercall::Span;
use crate::memory::Region;
use crate::pd::Pd;
use crate::{hypercall, selector};

macro_rules! space {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(Selector);

        impl $name {
            /// The space at `selector`.
            #[must_use]
            pub const fn at(selector: Selector) -> Self {
                Self(selector)
            }

            /// Where its capability is.
            #[must_use]
            pub const fn selector(self) -> Selector {
                self.0
            }

            /// Makes an empty space that `pd` pays for.
            ///
            /// # Errors
            /// See [`abi::hypercall::Number::CreateSpace`].
            pub fn create(pd: Pd) -> Result<Self, Status> {
                selector::fresh(|new| {
                    hypercall::create_space(new, pd.selector(), SpaceKind::$kind)
                })
                .map(Self)
            }
        }
    };
}

space!(
    /// An object space: capabilities by selector.
    ObjectSpace, Object
);
space!(
    /// A host space: the memory of a task, by page.
    HostSpace, Host
);
space!(
    /// A guest space: guest-physical memory, by page.
    GuestSpace, Guest
);
space!(
    /// A port space: I/O ports.
    PortSpace, Port
);
space!(
    /// An MSR space: model-specific registers, by index.
    MsrSpace, Msr
);

impl ObjectSpace {
    /// This task's own.
    pub const OWN: Self = Self(own::OBJECTS);

    /// Copies the capability at `from` to the selector `at` of another space, with no more than
    /// `perms`.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    pub fn grant(self, from: Selector, to: Self, at: Selector, perms: Perms) -> Result<(), Status> {
        self.grant_range(from, to, at, 1, perms)
    }

    /// Copies `count` capabilities in a row.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    pub fn grant_range(
        self,
        from: Selector,
        to: Self,
        at: Selector,
        count: u32,
        perms: Perms,
    ) -> Result<(), Status> {
        let span = Span { from: from.into(), to: at.into(), count: count.into() };
        // SAFETY: capabilities are no memory.
        unsafe { hypercall::grant(self.0, to.0, span, perms.0.into()) }
    }

    /// Removes `count` capabilities.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Revoke`].
    pub fn revoke(self, first: Selector, count: u32) -> Result<(), Status> {
        // SAFETY: capabilities are no memory.
        unsafe { hypercall::revoke(self.0, first.into(), count.into(), u64::MAX) }
    }
}

impl HostSpace {
    /// This task's own.
    pub const OWN: Self = Self(own::MEMORY);

    /// Grants physical memory, in the root task: `bytes` at the physical address `pa` become
    /// visible at `va` of this space.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    ///
    /// # Safety
    /// Nothing may lie at `va` yet that this task uses, nor may the frames be in use as something
    /// that others must not reach.
    pub unsafe fn grant_physical(
        self,
        pa: u64,
        va: u64,
        bytes: u64,
        rights: MemRights,
    ) -> Result<(), Status> {
        let span = Span {
            from: pa >> PAGE_SHIFT,
            to: va >> PAGE_SHIFT,
            count: bytes.div_ceil(1 << PAGE_SHIFT),
        };
        // SAFETY: vouched for by the caller.
        unsafe { hypercall::grant(root::PHYSICAL, self.0, span, rights.0.into()) }
    }

    /// Takes rights to the pages of a range away; all of them unmaps it.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Revoke`].
    ///
    /// # Safety
    /// If this is the task's own space, nothing may use the range any more in such a way.
    pub unsafe fn revoke(self, va: u64, bytes: u64, rights: MemRights) -> Result<(), Status> {
        let (first, count) = (va >> PAGE_SHIFT, bytes.div_ceil(1 << PAGE_SHIFT));
        // SAFETY: vouched for by the caller.
        unsafe { hypercall::revoke(self.0, first, count, rights.0.into()) }
    }
}

impl GuestSpace {
    /// Gives the guest this task's memory in `region`, at guest-physical address `gpa`
    /// (page-aligned), with no more rights than the region allows.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    pub fn grant(self, region: Region, gpa: u64, rights: MemRights) -> Result<(), Status> {
        let span = Span {
            from: region.base() >> PAGE_SHIFT,
            to: gpa >> PAGE_SHIFT,
            count: region.len() >> PAGE_SHIFT,
        };
        let rights = rights.intersection(region.rights());
        // SAFETY: a region is memory that others may reach with these rights.
        unsafe { hypercall::grant(own::MEMORY, self.0, span, rights.0.into()) }
    }

    /// Takes rights to a range of guest-physical memory away from the guest.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Revoke`].
    pub fn revoke(self, gpa: u64, bytes: u64, rights: MemRights) -> Result<(), Status> {
        let (first, count) = (gpa >> PAGE_SHIFT, bytes.div_ceil(1 << PAGE_SHIFT));
        // SAFETY: the guest's view of memory is not this task's.
        unsafe { hypercall::revoke(self.0, first, count, rights.0.into()) }
    }
}

impl PortSpace {
    /// The root task's source of all ports.
    pub const ALL: Self = Self(root::PORTS);

    /// Grants `count` ports to the space `to`, under the same numbers.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    pub fn grant(self, first: u16, count: u64, to: Self) -> Result<(), Status> {
        let span = Span { from: first.into(), to: first.into(), count };
        // SAFETY: ports are no memory.
        unsafe { hypercall::grant(self.0, to.0, span, 0) }
    }
}

impl MsrSpace {
    /// The root task's source of all registers that a guest may be given.
    pub const ALL: Self = Self(root::MSRS);

    /// Grants `count` registers to the space `to`, under the same numbers. Those that this space
    /// does not have are skipped.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Grant`].
    pub fn grant(self, first: u32, count: u64, to: Self) -> Result<(), Status> {
        let span = Span { from: first.into(), to: first.into(), count };
        // SAFETY: registers are no memory.
        unsafe { hypercall::grant(self.0, to.0, span, 0) }
    }
}
