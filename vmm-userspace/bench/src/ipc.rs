//! A call into another protection domain and the reply.
//!
//! The other domain shares this program and nothing else: it has spaces, a message page and a stack of its own.

use alloc::boxed::Box;

use abi::cap::{MemRights, own};
use abi::layout::{PAGE_SHIFT, PAGE_SIZE};
use abi::utcb::{MsgTag, Utcb};
use protocol::startup::UTCBS;
use runtime::hypercall::{self, Span};
use runtime::memory::Page;
use runtime::pd::Pd;
use runtime::pt::Pt;
use runtime::selector;
use runtime::space::{HostSpace, ObjectSpace};
use runtime::task::defaults;
use runtime::{Status, Task};

use crate::meter::{Figure, Meter};

/// Kernel memory of the other domain, in pages.
const QUOTA: u64 = 64;
/// Where programs are linked.
const PROGRAM: u64 = 0x40_0000;

unsafe extern "C" {
    /// End of the program, by its linker script.
    safe static __stack_top: u8;
}

/// Measures a call with one word, answered with one word.
///
/// # Errors
/// What the kernel says.
pub fn measure(task: &mut Task, meter: &Meter) -> Result<Figure, Status> {
    let portal = other_domain()?;
    let utcb = &mut *task.utcb;
    utcb.words[0] = 0;
    let mut sent = 0;
    let figure = meter.run(|| {
        sent += 1;
        portal.call(utcb, MsgTag::new(1, 0)).map(|_| ())
    })?;
    // Every call was answered, in the other domain.
    if utcb.words[0] == sent { Ok(figure) } else { Err(Status::Aborted) }
}

/// Makes a domain with a handler behind the portal that is returned.
fn other_domain() -> Result<Pt, Status> {
    let pd = Pd::OWN.create_pd(QUOTA)?;
    ObjectSpace::create(pd)?;
    let memory = HostSpace::create(pd)?;
    let end = (&raw const __stack_top as u64).next_multiple_of(PAGE_SIZE);
    share(memory, PROGRAM, end - PROGRAM, MemRights::RX)?;
    let stack = Box::leak(Box::new([const { Page([0; PAGE_SIZE as usize]) }; 2]));
    let (base, len) = (stack.as_ptr() as u64, size_of_val(stack) as u64);
    share(memory, base, len, MemRights::RW)?;

    let handler = selector::FREE.one()?;
    let portal = selector::FREE.one()?;
    let at = (defaults().cpu, abi::cap::NULL);
    // Aligned as behind a call (System V ABI, AMD64, 3.2.2).
    let sp = base + len - 8;
    // SAFETY: nothing is mapped at the message page's address; the stack is shared, and left alone here.
    unsafe { hypercall::create_handler(handler, pd.selector(), at, (UTCBS, sp)) }?;
    let ip = answer as *const () as u64;
    // SAFETY: the function is in the shared program and never returns.
    unsafe { hypercall::create_pt(portal, Pd::OWN.selector(), handler, (ip, 0, 0)) }?;
    Ok(Pt::at(portal))
}

/// Shows the other domain memory of this one, at the same address.
fn share(memory: HostSpace, base: u64, len: u64, rights: MemRights) -> Result<(), Status> {
    let page = base >> PAGE_SHIFT;
    let span = Span { from: page, to: page, count: len >> PAGE_SHIFT };
    // SAFETY: the other domain is empty, and only runs `answer`, which writes to nothing but its stack.
    unsafe { hypercall::grant(own::MEMORY, memory.selector(), span, rights.0.into()) }
}

/// What the other domain does with a message: adds one to its word.
extern "C" fn answer(_id: u64, _tag: u64) -> ! {
    // SAFETY: the kernel mapped this handler's message page here, in its domain.
    let utcb = unsafe { &mut *(UTCBS as *mut Utcb) };
    utcb.words[0] = utcb.words[0].wrapping_add(1);
    // SAFETY: a handler, and its stack holds nothing.
    unsafe { hypercall::reply(MsgTag::new(1, 0).0) }
}
