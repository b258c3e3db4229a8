//! Semaphores.

use abi::cap::Selector;
use abi::hypercall::{FOREVER, SmOp, Status};

use crate::pd::Pd;
use crate::{hypercall, selector};

/// A semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sm(Selector);

impl Sm {
    /// The semaphore at `selector`.
    #[must_use]
    pub const fn at(selector: Selector) -> Self {
        Self(selector)
    }

    /// Where its capability is.
    #[must_use]
    pub const fn selector(self) -> Selector {
        self.0
    }

    /// Makes a semaphore that `pd` pays for.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreateSm`].
    pub fn create(pd: Pd, count: u64) -> Result<Self, Status> {
        selector::fresh(|new| hypercall::create_sm(new, pd.selector(), count)).map(Self)
    }

    /// Adds one, or wakes one waiter.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlSm`].
    #[inline(always)]
    pub fn up(self) -> Result<(), Status> {
        hypercall::ctrl_sm(self.0, SmOp::Up, 0)
    }

    /// Takes one, waiting for it as long as it takes.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlSm`].
    #[inline(always)]
    pub fn down(self) -> Result<(), Status> {
        hypercall::ctrl_sm(self.0, SmOp::Down, FOREVER)
    }

    /// Takes one, waiting for it until `deadline` (absolute ticks; 0 does not wait).
    ///
    /// # Errors
    /// [`Status::Timeout`] when the deadline passed.
    #[inline(always)]
    pub fn down_until(self, deadline: u64) -> Result<(), Status> {
        hypercall::ctrl_sm(self.0, SmOp::Down, deadline)
    }

    /// Takes all there is, waiting for at least one until `deadline` (absolute ticks, [`FOREVER`]
    /// for no limit).
    ///
    /// # Errors
    /// [`Status::Timeout`] when the deadline passed.
    #[inline(always)]
    pub fn down_all(self, deadline: u64) -> Result<(), Status> {
        hypercall::ctrl_sm(self.0, SmOp::DownAll, deadline)
    }
}

/// Wakes a task that may have died: then there is nobody to wake, and no harm done.
#[inline]
pub(crate) fn wake(semaphore: Sm) {
    let _ = semaphore.up();
}
