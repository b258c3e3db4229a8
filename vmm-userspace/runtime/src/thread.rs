//! Threads with a flow of their own.

use alloc::boxed::Box;
use core::arch::naked_asm;

use abi::hypercall::Status;
use abi::utcb::Utcb;
use protocol::startup::Share;

use crate::ec::Ec;
use crate::pd::Pd;
use crate::sc::Sc;
use crate::task::{Defaults, defaults};
use crate::{hypercall, selector, stack};

/// A running thread.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its execution context.
    pub ec: Ec,
    /// Its CPU time.
    pub sc: Sc,
}

/// A type-erased thread body: the UTCB is the thread's own.
type Body = Box<dyn FnOnce(&'static mut Utcb) + Send>;

impl Thread {
    /// Starts `body` on the task's CPU with a stack of [`stack::DEFAULT_SIZE`]. A thread whose body
    /// returns sleeps for ever.
    ///
    /// # Errors
    /// [`Status::Quota`] when memory is short; see [`abi::hypercall::Number::CreateEc`] and
    /// [`abi::hypercall::Number::CreateSc`].
    pub fn spawn(
        share: Share,
        body: impl FnOnce(&'static mut Utcb) + Send + 'static,
    ) -> Result<Self, Status> {
        Self::spawn_with(defaults(), stack::DEFAULT_SIZE, share, body)
    }

    /// Starts `body` with its own CPU, event portals and stack size.
    ///
    /// # Errors
    /// As for [`Self::spawn`].
    pub fn spawn_with(
        defaults: Defaults,
        stack_size: usize,
        share: Share,
        body: impl FnOnce(&'static mut Utcb) + Send + 'static,
    ) -> Result<Self, Status> {
        let pd = Pd::OWN;
        let utcb = stack::utcb_address();
        let top = stack::allocate(stack_size)?;
        let body: Box<Body> = Box::new(Box::new(body));
        let sp = stack::prepare(top, [Box::into_raw(body) as u64, utcb]);
        let at = (defaults.cpu, defaults.events);
        let ip = entry as *const () as u64;
        // SAFETY: the entry finds on the stack what was just put there.
        let ec = selector::fresh(|new| unsafe {
            hypercall::create_thread(new, pd.selector(), at, (utcb, sp, ip))
        })?;
        let ec = Ec::at(ec);
        Ok(Self { ec, sc: Sc::create(pd, ec, share)? })
    }
}

/// Where a thread starts, with its body and its UTCB on the stack.
#[unsafe(naked)]
extern "C" fn entry() {
    naked_asm!(
        "mov rdi, [rsp + 8]",
        "mov rsi, [rsp + 16]",
        "xor ebp, ebp",
        "jmp {run}",
        run = sym run,
    )
}

extern "C" fn run(body: *mut Body, utcb: *mut Utcb) -> ! {
    // SAFETY: `spawn_with` gave the box away, and the UTCB is this thread's; both once.
    let (body, utcb) = unsafe { (Box::from_raw(body), &mut *utcb) };
    body(utcb);
    crate::park()
}
