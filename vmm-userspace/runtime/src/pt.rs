//! Portals, from the side of the caller.

use abi::cap::Selector;
use abi::hypercall::Status;
use abi::utcb::{MsgTag, Utcb};

use crate::hypercall;

/// A portal. [`crate::handler::Handler`] makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pt(Selector);

impl Pt {
    /// The portal at `selector`.
    #[must_use]
    pub const fn at(selector: Selector) -> Self {
        Self(selector)
    }

    /// Where its capability is.
    #[must_use]
    pub const fn selector(self) -> Selector {
        self.0
    }

    /// Calls it with the message in the calling thread's own UTCB, which holds the answer
    /// afterwards.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Call`].
    #[inline(always)]
    pub fn call(self, utcb: &mut Utcb, tag: MsgTag) -> Result<MsgTag, Status> {
        hypercall::lend(utcb);
        hypercall::call(self.0, tag)
    }

    /// Calls it without words or capabilities: a signal that waits for an answer.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Call`].
    #[inline(always)]
    pub fn signal(self) -> Result<(), Status> {
        hypercall::call(self.0, MsgTag::default()).map(|_| ())
    }

    /// Changes the identifier and the groups that its handler gets.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlPt`].
    pub fn change(self, id: u64, groups: u64) -> Result<(), Status> {
        hypercall::ctrl_pt(self.0, id, groups)
    }
}
