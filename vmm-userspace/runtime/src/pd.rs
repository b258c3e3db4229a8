//! Protection domains.

use abi::cap::{Selector, own};
use abi::hypercall::{PRIORITIES, PdOp, Status};

use crate::{hypercall, selector};

/// A protection domain: what pays for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pd(Selector);

/// Kernel memory of a domain, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Not used yet.
    pub free: u64,
    /// All in all.
    pub limit: u64,
}

/// What a domain can have of CPU time, as far as the domain above it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The highest priority of its scheduling contexts.
    pub priority: u64,
    /// The CPUs that it may use: a bit for each, from CPU 0 on.
    pub cpus: u64,
}

impl Limits {
    /// All that the domain above has.
    pub const NONE: Self = Self { priority: PRIORITIES as u64 - 1, cpus: u64::MAX };
}

impl Pd {
    /// This task's domain.
    pub const OWN: Self = Self(own::PD);

    /// The domain at `selector`.
    #[must_use]
    pub const fn at(selector: Selector) -> Self {
        Self(selector)
    }

    /// Where its capability is.
    #[must_use]
    pub const fn selector(self) -> Selector {
        self.0
    }

    /// Makes a domain below this one and moves `pages` of kernel memory to it.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreatePd`].
    pub fn create_pd(self, pages: u64) -> Result<Self, Status> {
        self.create_pd_within(pages, Limits::NONE)
    }

    /// The same for a domain whose scheduling contexts have at most `priority`.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreatePd`].
    pub fn create_pd_below(self, pages: u64, priority: u64) -> Result<Self, Status> {
        self.create_pd_within(pages, Limits { priority, ..Limits::NONE })
    }

    /// The same for a domain that can have no more CPU time than `limits` say.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreatePd`].
    pub fn create_pd_within(self, pages: u64, limits: Limits) -> Result<Self, Status> {
        selector::fresh(|new| hypercall::create_pd(new, self.0, pages, limits)).map(Self)
    }

    /// Its kernel memory.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlPd`].
    pub fn quota(self) -> Result<Quota, Status> {
        Self::control(self, PdOp::Read, 0)
    }

    /// Moves `pages` of kernel memory from this task's domain to this child.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlPd`].
    pub fn give(self, pages: u64) -> Result<Quota, Status> {
        self.control(PdOp::Give, pages)
    }

    /// Moves `pages` of free kernel memory from this child to this task's domain.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlPd`].
    pub fn take(self, pages: u64) -> Result<Quota, Status> {
        self.control(PdOp::Take, pages)
    }

    /// Ends it, with all that it pays for.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Destroy`].
    pub fn destroy(self) -> Result<(), Status> {
        // SAFETY: the kernel refuses this task's own domain and those above it; another's memory is not used here.
        unsafe { hypercall::destroy(self.0) }
    }

    fn control(self, op: PdOp, pages: u64) -> Result<Quota, Status> {
        hypercall::ctrl_pd(self.0, op, pages).map(|(free, limit)| Quota { free, limit })
    }
}
