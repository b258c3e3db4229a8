//! Scheduling contexts: CPU time.

use abi::cap::Selector;
use abi::hypercall::Status;
use protocol::startup::Share;

use crate::ec::Ec;
use crate::pd::Pd;
use crate::{hypercall, task};

/// A scheduling context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sc(Selector);

impl Sc {
    /// The context at `selector`.
    #[must_use]
    pub const fn at(selector: Selector) -> Self {
        Self(selector)
    }

    /// Where its capability is.
    #[must_use]
    pub const fn selector(self) -> Selector {
        self.0
    }

    /// Lets `ec` run with that share of the CPU, paid for by `pd`.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreateSc`].
    pub fn create(pd: Pd, ec: Ec, share: Share) -> Result<Self, Status> {
        let Share { priority, budget, period } = share;
        let new = task::time_selector(ec.selector())?;
        hypercall::create_sc(new, pd.selector(), ec.selector(), (priority, budget, period))?;
        Ok(Self(new))
    }

    /// Ticks consumed so far.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlSc`].
    pub fn consumed(self) -> Result<u64, Status> {
        hypercall::ctrl_sc(self.0)
    }
}
