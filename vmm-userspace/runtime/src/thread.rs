//! Threads with a flow of their own.

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
    /// The body itself is on that stack, not in the heap: so the thread can be ended at any time at which what it does is nobody
    /// else's business.
    ///
    /// # Errors
    /// As for [`Self::spawn`].
    pub fn spawn_with<F>(
        defaults: Defaults,
        stack_size: usize,
        share: Share,
        body: F,
    ) -> Result<Self, Status>
    where
        F: FnOnce(&'static mut Utcb) + Send + 'static,
    {
        let pd = Pd::OWN;
        let utcb = stack::utcb_address();
        let top = stack::allocate(stack_size)?;
        let body = stack::put(top, body);
        let sp = stack::prepare(body.cast(), [body.as_ptr() as u64, utcb]);
        let at = (defaults.cpu, defaults.events);
        let ip = entry::<F> as *const () as u64;
        // SAFETY: the entry finds on the stack what was just put there.
        let ec = selector::fresh(|new| unsafe {
            hypercall::create_thread(new, pd.selector(), at, (utcb, sp, ip))
        })
        // SAFETY: there is no thread that would use it.
        .inspect_err(|_| unsafe { body.drop_in_place() })?;
        let ec = Ec::at(ec);
        Ok(Self { ec, sc: Sc::create(pd, ec, share)? })
    }
}

/// Where a thread starts, with its body and its UTCB on the stack.
#[unsafe(naked)]
extern "C" fn entry<F: FnOnce(&'static mut Utcb)>() {
    naked_asm!(
        "mov rdi, [rsp + 8]",
        "mov rsi, [rsp + 16]",
        "xor ebp, ebp",
        "jmp {run}",
        run = sym run::<F>,
    )
}

extern "C" fn run<F: FnOnce(&'static mut Utcb)>(body: *mut F, utcb: *mut Utcb) -> ! {
    // SAFETY: `spawn_with` put the body there for this thread, and the UTCB is this thread's; both are taken once.
    let (body, utcb) = unsafe { (body.read(), &mut *utcb) };
    body(utcb);
    crate::park()
}
