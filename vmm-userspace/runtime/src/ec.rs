//! Execution contexts: threads, handlers and virtual CPUs.

use abi::cap::Selector;
use abi::fault::FaultState;
use abi::hypercall::{EcActivity, EcOp, Status};
use abi::utcb::Utcb;
use abi::vcpu::{Groups, VcpuState};

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

    /// Stops a virtual CPU: whether it stands still now. If not, its exit has to be answered first; ask again.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn stop(self) -> Result<bool, Status> {
        match hypercall::ctrl_ec(self.0, EcOp::Stop, 0) {
            Ok(()) => Ok(true),
            Err(Status::Busy) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets a virtual CPU go on that was stopped.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn go(self) -> Result<(), Status> {
        hypercall::ctrl_ec(self.0, EcOp::Go, 0)
    }

    /// Binds it to another CPU, with its scheduling context: whether it is there now. If not, it has to end a call first, or
    /// to leave its CPU; ask again.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn move_to(self, cpu: u16) -> Result<bool, Status> {
        match hypercall::ctrl_ec(self.0, EcOp::Move, cpu.into()) {
            Ok(()) => Ok(true),
            Err(Status::Busy) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The state of a virtual CPU that stands still, through the calling thread's own UTCB.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn read(self, utcb: &mut Utcb, groups: Groups) -> Result<VcpuState, Status> {
        hypercall::lend(utcb);
        hypercall::ctrl_ec(self.0, EcOp::Read, groups.0)?;
        // SAFETY: a state is numbers and fits the words of a message page.
        Ok(unsafe { utcb.words.as_ptr().cast::<VcpuState>().read() })
    }

    /// Writes groups of the state of a virtual CPU that stands still.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CtrlEc`].
    pub fn write(self, utcb: &mut Utcb, groups: Groups, state: &VcpuState) -> Result<(), Status> {
        // SAFETY: as in `read`.
        unsafe { utcb.words.as_mut_ptr().cast::<VcpuState>().write(*state) };
        hypercall::lend(utcb);
        hypercall::ctrl_ec(self.0, EcOp::Write, groups.0)
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
