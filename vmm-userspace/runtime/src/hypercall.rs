//! The kernel's interface as functions, one for each hypercall, nothing added.
//!
//! The reference is [`abi::hypercall`]; what is said there about registers, errors and blocking is
//! not repeated here. The functions that can change what memory of this task means, or start code
//! at an address, are `unsafe`.

use core::arch::asm;

use abi::cap::{Selector, SpaceKind};
use abi::hypercall::{EcKind, EcOp, IntMode, Number, PdOp, SmOp, Status, pack};
use abi::layout::HYPERCALL_PAGE;
use abi::utcb::{MsgTag, Utcb};

use crate::pd::Limits;

/// The target of every hypercall's `call`: the page is too far from a task for a relative one.
static ENTRY: u64 = HYPERCALL_PAGE;

/// What a hypercall leaves in registers.
#[derive(Clone, Copy, Debug)]
struct Returned {
    status: u64,
    value1: u64,
    value2: u64,
}

impl Returned {
    #[inline(always)]
    fn check(self) -> Result<Self, Status> {
        // Status::Success is 0.
        if self.status == 0 { Ok(self) } else { Err(Status::from_abi(self.status)) }
    }

    #[inline(always)]
    fn done(self) -> Result<(), Status> {
        self.check().map(|_| ())
    }
}

/// Enters the kernel with RAX and RSI only.
///
/// # Safety
/// The hypercall must not change memory that this task uses as its own.
#[inline(always)]
unsafe fn enter(rax: u64, rsi: u64) -> Returned {
    let (status, value1, value2);
    // SAFETY: the page is mapped executable in every task. The kernel keeps nothing but RSP, so
    // everything else is declared lost, or saved here where the compiler accepts no declaration.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call qword ptr [rip + {entry}]",
            "pop rbp",
            "pop rbx",
            entry = sym ENTRY,
            inlateout("rax") rax => status,
            inlateout("rsi") rsi => value2,
            lateout("rdi") value1,
            lateout("rcx") _, lateout("rdx") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    Returned { status, value1, value2 }
}

/// Enters the kernel with all arguments.
///
/// # Safety
/// As for [`enter`].
#[inline(always)]
unsafe fn enter_wide(rax: u64, [rdi, rsi, r8, r9, r10]: [u64; 5]) -> Returned {
    let (status, value1, value2);
    // SAFETY: as in `enter`.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call qword ptr [rip + {entry}]",
            "pop rbp",
            "pop rbx",
            entry = sym ENTRY,
            inlateout("rax") rax => status,
            inlateout("rdi") rdi => value1,
            inlateout("rsi") rsi => value2,
            inlateout("r8") r8 => _, inlateout("r9") r9 => _, inlateout("r10") r10 => _,
            lateout("rcx") _, lateout("rdx") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
        );
    }
    Returned { status, value1, value2 }
}

/// Tells the compiler that the kernel reads and writes this message page in the hypercalls that
/// follow: it would otherwise keep the words of a page that it holds the only reference to in
/// registers.
#[inline(always)]
pub fn lend(utcb: &mut Utcb) {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} */", in(reg) core::ptr::from_mut(utcb), options(nostack, preserves_flags));
    }
}

/// [`Number::Call`]: returns the reply's tag.
///
/// # Errors
/// See the hypercall.
#[inline(always)]
pub fn call(portal: Selector, tag: MsgTag) -> Result<MsgTag, Status> {
    // SAFETY: a call changes no memory but the caller's UTCB, which Rust code reaches through a
    // reference that it gives up around the call (`pt::Pt::call` takes it and lends it).
    let returned = unsafe { enter(pack(Number::Call, 0, portal), tag.0) };
    returned.check().map(|returned| MsgTag(returned.value2))
}

/// [`Number::Reply`]: `rsi` is a tag, or the groups to write back.
///
/// # Safety
/// Only a handler may reply, and whatever its stack holds is gone.
#[inline(always)]
pub unsafe fn reply(rsi: u64) -> ! {
    // SAFETY: the next message enters at the start of a portal with a fresh stack, so this does not
    // come back and no register is lost. Whatever the return address overwrites on this stack is
    // not needed, so nothing has to be kept clear for it.
    unsafe {
        asm!(
            "call qword ptr [rip + {entry}]",
            "ud2",
            entry = sym ENTRY,
            in("rax") pack(Number::Reply, 0, 0),
            in("rsi") rsi,
            options(nostack),
        );
    }
    // Saying so with `noreturn` would tell the optimizer that nothing on the way here is worth
    // inlining.
    loop {
        core::hint::spin_loop();
    }
}

/// [`Number::CreatePd`].
///
/// # Errors
/// See the hypercall.
pub fn create_pd(
    new: Selector,
    parent: Selector,
    pages: u64,
    limits: Limits,
) -> Result<(), Status> {
    let rax = pack(Number::CreatePd, 0, parent);
    // SAFETY: makes an object and changes no memory.
    unsafe { enter_wide(rax, [new.into(), pages, limits.priority, limits.cpus, 0]) }.done()
}

/// [`Number::CreateSpace`].
///
/// # Errors
/// See the hypercall.
pub fn create_space(new: Selector, pd: Selector, kind: SpaceKind) -> Result<(), Status> {
    let rax = pack(Number::CreateSpace, 0, pd);
    // SAFETY: makes an object and changes no memory.
    unsafe { enter_wide(rax, [new.into(), kind as u64, 0, 0, 0]) }.done()
}

const fn ec_word(kind: EcKind, cpu: u16, events: Selector) -> u64 {
    kind as u64 | (cpu as u64) << 8 | (events as u64) << 32
}

/// [`Number::CreateEc`] for a thread.
///
/// # Errors
/// See the hypercall.
///
/// # Safety
/// In the domain that pays, code must lie at `ip` that may run with that stack and UTCB.
pub unsafe fn create_thread(
    new: Selector,
    pd: Selector,
    (cpu, events): (u16, Selector),
    (utcb, sp, ip): (u64, u64, u64),
) -> Result<(), Status> {
    let rax = pack(Number::CreateEc, 0, pd);
    let word = ec_word(EcKind::Thread, cpu, events);
    // SAFETY: vouched for by the caller; the UTCB goes where nothing is mapped.
    unsafe { enter_wide(rax, [new.into(), word, utcb, sp, ip]) }.done()
}

/// [`Number::CreateEc`] for a handler.
///
/// # Errors
/// See the hypercall.
///
/// # Safety
/// In the domain that pays, portals of the handler must be able to run with that stack and UTCB.
pub unsafe fn create_handler(
    new: Selector,
    pd: Selector,
    (cpu, events): (u16, Selector),
    (utcb, sp): (u64, u64),
) -> Result<(), Status> {
    let rax = pack(Number::CreateEc, 0, pd);
    let word = ec_word(EcKind::Handler, cpu, events);
    // SAFETY: vouched for by the caller; the UTCB goes where nothing is mapped.
    unsafe { enter_wide(rax, [new.into(), word, utcb, sp, 0]) }.done()
}

/// [`Number::CreateEc`] for a virtual CPU; `msrs` and `ports` can be [`abi::cap::NULL`].
///
/// # Errors
/// See the hypercall.
pub fn create_vcpu(
    new: Selector,
    pd: Selector,
    (cpu, events): (u16, Selector),
    (memory, msrs, ports): (Selector, Selector, Selector),
) -> Result<(), Status> {
    let rax = pack(Number::CreateEc, 0, pd);
    let word = ec_word(EcKind::Vcpu, cpu, events);
    // SAFETY: makes an object. Its guest reaches only what was granted to its spaces.
    unsafe { enter_wide(rax, [new.into(), word, memory.into(), msrs.into(), ports.into()]) }.done()
}

/// [`Number::CreateSc`]; budget and period in ticks.
///
/// # Errors
/// See the hypercall.
pub fn create_sc(
    new: Selector,
    pd: Selector,
    ec: Selector,
    (priority, budget, period): (u64, u64, u64),
) -> Result<(), Status> {
    let rax = pack(Number::CreateSc, 0, pd);
    // SAFETY: lets a context run whose maker vouched for it.
    unsafe { enter_wide(rax, [new.into(), ec.into(), priority, budget, period]) }.done()
}

/// [`Number::CreatePt`].
///
/// # Errors
/// See the hypercall.
///
/// # Safety
/// Code must lie at `ip` that may run as this handler, with the stack it was made with.
pub unsafe fn create_pt(
    new: Selector,
    pd: Selector,
    handler: Selector,
    (ip, id, groups): (u64, u64, u64),
) -> Result<(), Status> {
    let rax = pack(Number::CreatePt, 0, pd);
    // SAFETY: vouched for by the caller.
    unsafe { enter_wide(rax, [new.into(), handler.into(), ip, id, groups]) }.done()
}

/// [`Number::CreateSm`].
///
/// # Errors
/// See the hypercall.
pub fn create_sm(new: Selector, pd: Selector, count: u64) -> Result<(), Status> {
    let rax = pack(Number::CreateSm, 0, pd);
    // SAFETY: makes an object and changes no memory.
    unsafe { enter_wide(rax, [new.into(), count, 0, 0, 0]) }.done()
}

/// What a grant moves: `count` pages, selectors, ports or registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First one in the source.
    pub from: u64,
    /// First one in the destination.
    pub to: u64,
    /// How many.
    pub count: u64,
}

/// [`Number::Grant`], as often as it takes.
///
/// # Errors
/// See the hypercall; what was worked through before the error stays granted.
///
/// # Safety
/// If the destination is a memory space, whoever owns the memory there must expect it to change,
/// and whoever owns the memory that is granted must expect others to reach it.
pub unsafe fn grant(
    source: Selector,
    destination: Selector,
    span: Span,
    rights: u64,
) -> Result<(), Status> {
    let Span { mut from, mut to, mut count } = span;
    loop {
        // SAFETY: vouched for by the caller.
        match unsafe { grant_once(source, destination, Span { from, to, count }, rights) } {
            (Status::Success, _) => return Ok(()),
            (Status::Partial, done) => {
                let done = done.min(count);
                from = from.wrapping_add(done);
                to = to.wrapping_add(done);
                count -= done;
            }
            (error, _) => return Err(error),
        }
    }
}

/// [`Number::Grant`], once: its status, and how many were worked through.
///
/// # Safety
/// As for [`grant`].
#[inline(always)]
pub unsafe fn grant_once(
    source: Selector,
    destination: Selector,
    span: Span,
    rights: u64,
) -> (Status, u64) {
    let rax = pack(Number::Grant, 0, source);
    let arguments = [destination.into(), span.from, span.to, span.count, rights];
    // SAFETY: vouched for by the caller.
    let returned = unsafe { enter_wide(rax, arguments) };
    (Status::from_abi(returned.status), returned.value1)
}

/// [`Number::Revoke`], as often as it takes.
///
/// # Errors
/// See the hypercall; what was worked through before the error stays revoked.
///
/// # Safety
/// If the space is this task's memory, nothing may use it any more in a way that is taken away.
pub unsafe fn revoke(
    space: Selector,
    mut first: u64,
    mut count: u64,
    rights: u64,
) -> Result<(), Status> {
    loop {
        // SAFETY: vouched for by the caller.
        match unsafe { revoke_once(space, first, count, rights) } {
            (Status::Success, _) => return Ok(()),
            (Status::Partial, done) => {
                let done = done.min(count);
                first = first.wrapping_add(done);
                count -= done;
            }
            (error, _) => return Err(error),
        }
    }
}

/// [`Number::Revoke`], once: its status, and how many were worked through.
///
/// # Safety
/// As for [`revoke`].
#[inline(always)]
pub unsafe fn revoke_once(space: Selector, first: u64, count: u64, rights: u64) -> (Status, u64) {
    // SAFETY: vouched for by the caller.
    let returned =
        unsafe { enter_wide(pack(Number::Revoke, 0, space), [0, first, 0, count, rights]) };
    (Status::from_abi(returned.status), returned.value1)
}

/// [`Number::CtrlEc`] with [`EcOp::Recall`].
///
/// # Errors
/// See the hypercall.
#[inline(always)]
pub fn recall(ec: Selector) -> Result<(), Status> {
    // SAFETY: stops a context; changes no memory.
    unsafe { enter(pack(Number::CtrlEc, EcOp::Recall as u8, ec), 0) }.done()
}

/// [`Number::CtrlEc`] with [`EcOp::Look`]: returns the activity and the number of events.
///
/// # Errors
/// See the hypercall.
pub fn look(ec: Selector) -> Result<(u64, u64), Status> {
    // SAFETY: changes no memory but the caller's UTCB, like `call`.
    let returned = unsafe { enter(pack(Number::CtrlEc, EcOp::Look as u8, ec), 0) };
    returned.check().map(|returned| (returned.value1, returned.value2))
}

/// [`Number::CtrlEc`] with an operation that returns nothing: `word` is the groups to read or write, which are in the UTCB of
/// the calling thread, or the CPU to move to.
///
/// # Errors
/// See the hypercall.
pub fn ctrl_ec(ec: Selector, op: EcOp, word: u64) -> Result<(), Status> {
    // SAFETY: changes no memory but the caller's UTCB, like `call`.
    unsafe { enter(pack(Number::CtrlEc, op as u8, ec), word) }.done()
}

/// [`Number::CtrlSc`]: returns the ticks consumed.
///
/// # Errors
/// See the hypercall.
pub fn ctrl_sc(sc: Selector) -> Result<u64, Status> {
    // SAFETY: only reads.
    unsafe { enter(pack(Number::CtrlSc, 0, sc), 0) }.check().map(|returned| returned.value1)
}

/// [`Number::CtrlPt`].
///
/// # Errors
/// See the hypercall.
pub fn ctrl_pt(pt: Selector, id: u64, groups: u64) -> Result<(), Status> {
    // SAFETY: changes what a handler is told; the handler's code takes any identifier.
    unsafe { enter_wide(pack(Number::CtrlPt, 0, pt), [0, id, groups, 0, 0]) }.done()
}

/// [`Number::CtrlSm`]; `deadline` counts for a down only.
///
/// # Errors
/// See the hypercall.
#[inline(always)]
pub fn ctrl_sm(sm: Selector, op: SmOp, deadline: u64) -> Result<(), Status> {
    // SAFETY: blocks or wakes; changes no memory.
    unsafe { enter(pack(Number::CtrlSm, op as u8, sm), deadline) }.done()
}

/// [`Number::AssignInt`].
///
/// # Errors
/// See the hypercall.
pub fn assign_int(sm: Selector, mode: IntMode, cpu: u16) -> Result<(), Status> {
    let rax = pack(Number::AssignInt, 0, sm);
    // SAFETY: an interrupt is an up and changes no memory.
    unsafe { enter_wide(rax, [0, mode.0.into(), cpu.into(), 0, 0]) }.done()
}

/// [`Number::CtrlPd`]: returns the domain's free pages and its limit.
///
/// # Errors
/// See the hypercall.
pub fn ctrl_pd(pd: Selector, op: PdOp, pages: u64) -> Result<(u64, u64), Status> {
    // SAFETY: moves numbers between quotas.
    let returned = unsafe { enter(pack(Number::CtrlPd, op as u8, pd), pages) };
    returned.check().map(|returned| (returned.value1, returned.value2))
}

/// [`Number::Destroy`], as often as it takes.
///
/// # Errors
/// See the hypercall.
///
/// # Safety
/// If memory goes with the object that this task sees, a message page or a space, nothing may use it any more.
pub unsafe fn destroy(object: Selector) -> Result<(), Status> {
    loop {
        // SAFETY: vouched for by the caller.
        match unsafe { destroy_once(object) } {
            Err(Status::Partial) => {}
            outcome => return outcome,
        }
    }
}

/// [`Number::Destroy`], once.
///
/// # Errors
/// See the hypercall; [`Status::Partial`] when there is more to do.
///
/// # Safety
/// As for [`destroy`].
#[inline(always)]
pub unsafe fn destroy_once(object: Selector) -> Result<(), Status> {
    // SAFETY: vouched for by the caller.
    unsafe { enter(pack(Number::Destroy, 0, object), 0) }.done()
}
