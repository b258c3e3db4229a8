//! Execution contexts: threads, handlers and virtual CPUs.

use abi::cap::Selector;
use abi::fault::FaultState;
use abi::hypercall::{EcActivity, Status};
use abi::utcb::Utcb;

use crate::hypercall;

/// What an execution context does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What it does.
    pub activity: EcActivity,
    /// How many events (exits or exceptions) it has had.
    pub events: u64,
    /// Registers of the thread or handler at the end of its chain of calls, zeros if there is none.
    pub state: FaultState,
}

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
        hypercall::recall(self.0)
    }

    /// Ends it, in whatever state it is.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::Destroy`].
    ///
    /// # Safety
    /// If it is a thread or handler of this task, nothing may use its message page any more, nor may anybody wait for what
    /// it holds.
    pub unsafe fn destroy(self) -> Result<(), Status> {
        // SAFETY: vouched for by the caller.
        unsafe { hypercall::destroy(self.0) }
    }

    /// Looks at it, through the calling thread's own UTCB.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn look(self, utcb: &mut Utcb) -> Result<Look, Status> {
        // SAFETY: a state is numbers and fits the words of a message page.
        let state = unsafe { &mut *utcb.words.as_mut_ptr().cast::<FaultState>() };
        *state = FaultState::default();
        hypercall::lend(utcb);
        let (activity, events) = hypercall::look(self.0)?;
        let activity = EcActivity::from_abi(activity).ok_or(Status::BadHypercall)?;
        // SAFETY: as above.
        let state = unsafe { utcb.words.as_ptr().cast::<FaultState>().read() };
        Ok(Look { activity, events, state })
    }
}
