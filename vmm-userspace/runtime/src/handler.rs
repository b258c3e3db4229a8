//! Handlers: functions behind portals.
//!
//! A [`Handler`] owns a piece of state, and its portals are functions on that state. The kernel
//! runs one of them at a time, so each has the state to itself.

use alloc::boxed::Box;
use core::arch::naked_asm;
use core::marker::PhantomData;
use core::ptr::NonNull;

use abi::cap::Selector;
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::Status;
use abi::utcb::{MsgTag, Utcb};
use abi::vcpu::{Groups, VcpuState};

use crate::ec::Ec;
use crate::pd::Pd;
use crate::pt::Pt;
use crate::task::{Defaults, defaults};
use crate::{hypercall, selector, stack};

/// What a UTCB holds when a message arrives.
///
/// # Safety
/// The type must be no larger than the words of a UTCB and valid for every content.
pub unsafe trait Message {
    /// What an answer to such a message consists of besides the words.
    type Reply: Reply;
}

// SAFETY: it is the page itself.
unsafe impl Message for Utcb {
    type Reply = MsgTag;
}

// SAFETY: numbers only; its size is checked where it is defined.
unsafe impl Message for VcpuState {
    type Reply = Groups;
}

// SAFETY: numbers only, 21 of 256 words.
unsafe impl Message for FaultState {
    type Reply = FaultGroups;
}

/// What a reply hypercall takes.
pub trait Reply {
    /// RSI of [`abi::hypercall::Number::Reply`].
    fn bits(self) -> u64;
}

impl Reply for MsgTag {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.0
    }
}

impl Reply for Groups {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.0
    }
}

impl Reply for FaultGroups {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.0
    }
}

/// A thread that only serves portals, with the state that its portals share.
#[derive(Debug)]
pub struct Handler<S> {
    ec: Ec,
    pd: Pd,
    cpu: u16,
    state: PhantomData<fn(S)>,
}

impl<S: Send + 'static> Handler<S> {
    /// Makes a handler on the task's CPU, with a stack of [`stack::DEFAULT_SIZE`].
    ///
    /// # Errors
    /// [`Status::Quota`] when memory is short; see [`abi::hypercall::Number::CreateEc`].
    pub fn new(state: S) -> Result<Self, Status> {
        Self::with(defaults(), stack::DEFAULT_SIZE, state)
    }

    /// Makes a handler with its own CPU, event portals and stack size.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with(defaults: Defaults, stack_size: usize, state: S) -> Result<Self, Status> {
        let pd = Pd::OWN;
        let utcb = stack::utcb_address();
        let top = stack::allocate(stack_size)?;
        let state = Box::into_raw(Box::new(state));
        let sp = stack::prepare(top, [state as u64, utcb]);
        let at = (defaults.cpu, defaults.events);
        // SAFETY: `portal` below is the only place that makes portals of this handler; their
        // entry finds on the stack what was just put there.
        let ec = selector::fresh(|new| unsafe {
            hypercall::create_handler(new, pd.selector(), at, (utcb, sp))
        })?;
        Ok(Self { ec: Ec::at(ec), pd, cpu: defaults.cpu, state: PhantomData })
    }

    /// Its execution context.
    #[must_use]
    pub const fn ec(&self) -> Ec {
        self.ec
    }

    /// The CPU that it was made on: whoever calls it has to be there.
    #[must_use]
    pub const fn cpu(&self) -> u16 {
        self.cpu
    }

    /// Makes a portal at a free selector; see [`Self::portal_at`].
    ///
    /// # Errors
    /// As for [`Self::portal_at`].
    pub fn portal<M, F>(&self, id: u64, groups: u64, serve: F) -> Result<Pt, Status>
    where
        M: Message,
        F: Fn(&mut S, &mut M, u64, u64) -> M::Reply + Copy + Send + 'static,
    {
        self.portal_at(selector::FREE.one()?, id, groups, serve)
    }

    /// Makes a portal at `selector`. A message calls `serve` with the state, what the UTCB holds,
    /// the portal's identifier, and the message's tag (for events: the groups that were
    /// delivered). What it returns is the reply.
    ///
    /// `serve` is a function, or a closure that captures nothing.
    ///
    /// # Errors
    /// See [`abi::hypercall::Number::CreatePt`].
    pub fn portal_at<M, F>(
        &self,
        selector: Selector,
        id: u64,
        groups: u64,
        _serve: F,
    ) -> Result<Pt, Status>
    where
        M: Message,
        F: Fn(&mut S, &mut M, u64, u64) -> M::Reply + Copy + Send + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a portal's function captures nothing") };
        let ip = entry::<S, M, F> as *const () as u64;
        // SAFETY: the entry belongs to a handler with this type of state.
        unsafe {
            hypercall::create_pt(selector, self.pd.selector(), self.ec.selector(), (ip, id, groups))
        }?;
        Ok(Pt::at(selector))
    }
}

/// Where a message enters: RDI = identifier, RSI = tag, state and UTCB on the stack above a place
/// for a return address. They are handed on in registers, because a function may overwrite the
/// stack words that it gets as arguments, and they are needed again for the next message.
#[unsafe(naked)]
extern "C" fn entry<S, M, F>()
where
    M: Message,
    F: Fn(&mut S, &mut M, u64, u64) -> M::Reply + Copy,
{
    naked_asm!(
        "mov rdx, [rsp + 8]",
        "mov rcx, [rsp + 16]",
        "jmp {serve}",
        serve = sym serve::<S, M, F>,
    )
}

extern "C" fn serve<S, M, F>(id: u64, tag: u64, state: *mut S, utcb: *mut M) -> !
where
    M: Message,
    F: Fn(&mut S, &mut M, u64, u64) -> M::Reply + Copy,
{
    // SAFETY: `portal_at` was given a value of this type, which has no content and can be copied.
    let function = unsafe { NonNull::<F>::dangling().read() };
    // SAFETY: both were put on the stack by `Handler::with`. The state was given away there and
    // the UTCB belongs to this thread; the thread serves one message at a time.
    let (state, message) = unsafe { (&mut *state, &mut *utcb) };
    let answer = function(state, message, id, tag).bits();
    // SAFETY: this is a handler, and nothing on its stack is needed again.
    unsafe { hypercall::reply(answer) }
}
