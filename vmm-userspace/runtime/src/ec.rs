//! Execution contexts: threads, handlers and virtual CPUs.

use abi::cap::Selector;
use abi::hypercall::{EcOp, Status};

use crate::hypercall;

/// An execution context.
///
/// They are made by [`crate::thread::Thread`], [`crate::handler::Handler`] and
/// [`crate::vcpu::VcpuBuilder`], or in other domains with the functions in [`hypercall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ec(Selector);

impl Ec {
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

    /// Makes a virtual CPU leave its guest with [`abi::vcpu::Exit::Recall`].
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    #[inline]
    pub fn recall(self) -> Result<(), Status> {
        hypercall::ctrl_ec(self.0, EcOp::Recall)
    }
}
