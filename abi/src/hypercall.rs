//! How a thread asks the kernel for something.
//!
//! A hypercall is `call` [`crate::layout::HYPERCALL_PAGE`] with
//!
//! | register | in | out |
//! |---|---|---|
//! | RAX | [`Number`] (bits 0-7), flags (8-15), selector of the object acted on (32-63) | [`Status`] |
//! | RDI | argument 1 | value 1 |
//! | RSI | argument 2 | value 2 |
//! | R8, R9, R10 | arguments 3 to 5 | undefined |
//! | RSP | stack; the return address is on it | as before the `call` |
//!
//! All other registers and the flags are undefined afterwards (the kernel zeroes them: nothing of
//! one domain is seen in another). Arguments are numbers and selectors, never pointers: the kernel
//! reads no memory of a task but its UTCB. Selectors are looked up in the caller's object space.
//!
//! Wherever a call makes an object, RDI is the selector in the caller's object space that will hold
//! the new capability; it must be empty ([`Status::Occupied`]). The object's memory is charged to the domain
//! named by the main selector ([`Status::Quota`] when that has too little left; nothing is left half-made,
//! but page tables that were made on the way stay for the next try).

/// The hypercalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Number {
    /// Call the portal: RSI = message tag ([`crate::utcb::MsgTag`]). Blocks until the handler replies.
    /// Returns the reply's tag in RSI. The caller's scheduling context pays for the handler's time.
    ///
    /// [`Status::Aborted`]: the handler is gone. [`Status::BadCpu`]: the handler is bound to another CPU.
    Call = 0,
    /// Reply to the caller, if there is one, and wait for the next message: RSI = message tag, or, when
    /// answering a VM exit or a thread's exception, the groups to write back
    /// ([`crate::vcpu::Groups`], [`crate::fault::FaultGroups`]). Does not return: the next message enters at its portal's
    /// instruction pointer, with the handler's initial stack pointer.
    Reply = 1,
    /// Make a protection domain below the one named: RSI = pages of kernel memory moved
    /// from that domain's quota to the new one's, R8 = the highest priority of scheduling contexts it pays for (cut to that
    /// of the domain named), R9 = the CPUs it may use, a bit for each from CPU 0 on (cut to those of the domain named).
    /// Needs `PD_CREATE` and `PD_QUOTA`.
    CreatePd = 2,
    /// Make a space: RSI = [`crate::cap::SpaceKind`]. The first object, host and port space that a domain pays
    /// for become the ones its threads run in. Needs `PD_CREATE`.
    CreateSpace = 3,
    /// Make an execution context: RSI = [`EcKind`] (bits 0-7), CPU (8-23), first event selector (32-63).
    ///
    /// * thread: R8 = address of its UTCB (page-aligned, unmapped, below
    ///   [`crate::layout::USER_TOP`]), R9 = stack pointer, R10 = instruction pointer; it runs once a scheduling context is bound.
    /// * handler: the same without R10; it runs only when one of its portals is called, on the caller's
    ///   time, and starts each time with the stack pointer given here.
    /// * virtual CPU: R8 = guest memory space, R9 = MSR space or 0 (every register access
    ///   exits), R10 = port space or 0 (every port access exits), each with `SPACE_ASSIGN`.
    ///
    /// Exceptions of a thread go to the portal at "first event selector + vector", exits of a
    /// virtual CPU to "first event selector + [`crate::vcpu::Exit`]", looked up in the object space of
    /// the domain that pays for it. A thread sees that selector space as its own.
    ///
    /// [`Status::BadCpu`]: there is no such CPU, or the domain that pays may not use it.
    CreateEc = 4,
    /// Make a scheduling context and bind it: RSI = execution context (`EC_BIND_SC`; a handler cannot have one),
    /// R8 = priority (0 to [`PRIORITIES`] - 1, higher runs first, not above what the paying domain may give), R9 = budget and R10 = period
    /// in time-stamp-counter ticks; the context gets at most `budget` in each `period`. Period 0: the budget
    /// is a time slice among equals and nothing more. A budget is at least 10 microseconds. It is time of the CPU that the
    /// execution context is bound to, which the domain that pays must be allowed to use ([`Status::BadCpu`]).
    CreateSc = 5,
    /// Make a portal: RSI = handler (`EC_BIND_PT`; a handler, not a thread), R8 = instruction pointer, R9 = identifier
    /// that the handler receives, R10 = groups of state it wants with events.
    CreatePt = 6,
    /// Make a semaphore: RSI = initial count.
    CreateSm = 7,
    /// Grant from the space named (`SPACE_TAKE`) to another of a fitting kind: RDI = destination (`SPACE_GRANT`),
    /// RSI = first page, selector, port or register in the source, R8 = first in the destination, R9 = how many,
    /// R10 = rights ([`crate::cap::MemRights`], or [`crate::cap::Perms`] for capabilities; unused for ports and registers).
    ///
    /// What the source does not have is skipped; rights are what the source has and R10 allows. Memory already
    /// mapped at the destination is replaced; an occupied selector is not ([`Status::Occupied`]). Returns in
    /// RDI how many were worked through; [`Status::Partial`] asks the caller to go on from there. [`Status::BadCap`] also if one of the
    /// spaces is being destroyed.
    Grant = 8,
    /// Revoke from the space named (`SPACE_REVOKE`): RSI = first, R9 = how many, R10 = rights to take away (all for capabilities,
    /// ports and registers). Returns like [`Number::Grant`]; [`Status::BadCap`] also if it is a space of memory that is being destroyed.
    Revoke = 9,
    /// Control an execution context (`EC_CTRL`): flags = [`EcOp`].
    CtrlEc = 10,
    /// Read a scheduling context (`SC_CTRL`): RDI returns the ticks it has consumed.
    CtrlSc = 11,
    /// Change a portal (`PT_CTRL`): RSI = identifier, R8 = groups.
    CtrlPt = 12,
    /// Semaphore operation: flags = [`SmOp`], RSI = deadline in absolute time-stamp-counter ticks for a down
    /// (0: do not wait, [`FOREVER`]: no limit). [`Status::Timeout`] when it passed. Down on an interrupt's semaphore also
    /// lets the next interrupt of a level-triggered line through.
    CtrlSm = 13,
    /// Route an interrupt to its semaphore (`SM_BIND`): RSI = [`IntMode`] bits, R8 = CPU. From then on each interrupt is an up.
    /// A line that is not level-triggered is held back when 64 of them were not taken, until the next down: what comes meanwhile may
    /// be lost. [`Status::BadCpu`]: there is no such CPU, or the interrupt cannot be sent there.
    AssignInt = 14,
    /// Move kernel memory between quotas (`PD_QUOTA` on the domain named, which must be the caller's child): flags =
    /// [`PdOp`], RSI = pages. RDI returns the domain's free pages, RSI its limit.
    CtrlPd = 15,
    /// End the object named (`DESTROY`), in whatever state it is. All capabilities to it vanish, and its memory goes back to the
    /// domain that paid. [`Status::Partial`] asks the caller to go on.
    ///
    /// * domain: with all that it pays for; what it has left goes to its parent. Not the caller's own, nor one above it
    ///   ([`Status::BadParam`]).
    /// * thread, handler, virtual CPU: with its scheduling context. Its caller's call returns [`Status::Aborted`]; if that
    ///   was an event, the caller ends as if nobody had taken it. Its portals stay, and calls to them return
    ///   [`Status::Aborted`]. A handler that works for it finishes that, on the time of whoever calls next.
    /// * semaphore: who waits returns with [`Status::Aborted`]. An interrupt behind it is masked.
    /// * space: not while threads of its domain run in it, or a virtual CPU uses it ([`Status::Busy`]).
    Destroy = 16,
}

impl Number {
    /// The number, if `value` is one.
    #[must_use]
    pub const fn from_abi(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Call,
            1 => Self::Reply,
            2 => Self::CreatePd,
            3 => Self::CreateSpace,
            4 => Self::CreateEc,
            5 => Self::CreateSc,
            6 => Self::CreatePt,
            7 => Self::CreateSm,
            8 => Self::Grant,
            9 => Self::Revoke,
            10 => Self::CtrlEc,
            11 => Self::CtrlSc,
            12 => Self::CtrlPt,
            13 => Self::CtrlSm,
            14 => Self::AssignInt,
            15 => Self::CtrlPd,
            16 => Self::Destroy,
            _ => return None,
        })
    }
}

/// A deadline that never passes.
pub const FOREVER: u64 = u64::MAX;

/// Number of priorities.
pub const PRIORITIES: usize = 128;

/// Packs the RAX of a hypercall.
#[must_use]
pub const fn pack(number: Number, flags: u8, selector: crate::cap::Selector) -> u64 {
    number as u64 | (flags as u64) << 8 | (selector as u64) << 32
}

/// How a hypercall ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Status {
    /// Done.
    Success = 0,
    /// The deadline passed first.
    Timeout = 1,
    /// The other side of the communication died or was destroyed.
    Aborted = 2,
    /// There is no such hypercall, or not with these flags.
    BadHypercall = 3,
    /// A selector is out of range, empty, names another type of object, or lacks a permission.
    BadCap = 4,
    /// A number is out of its range or not aligned as it must be.
    BadParam = 5,
    /// The object is bound to another CPU, or there is no such CPU.
    BadCpu = 6,
    /// The paying domain has too little kernel memory left.
    Quota = 7,
    /// The destination selector or address is already taken.
    Occupied = 8,
    /// The object is in a state that does not allow this.
    Busy = 9,
    /// Part of the work is done: go on behind the returned count.
    Partial = 10,
    /// The processor has no such feature.
    BadFeature = 11,
}

impl Status {
    /// The status for a value out of RAX. Values that no kernel returns read as [`Status::BadHypercall`].
    #[must_use]
    pub const fn from_abi(value: u64) -> Self {
        match value {
            0 => Self::Success,
            1 => Self::Timeout,
            2 => Self::Aborted,
            4 => Self::BadCap,
            5 => Self::BadParam,
            6 => Self::BadCpu,
            7 => Self::Quota,
            8 => Self::Occupied,
            9 => Self::Busy,
            10 => Self::Partial,
            11 => Self::BadFeature,
            _ => Self::BadHypercall,
        }
    }
}

/// What [`Number::CreateEc`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EcKind {
    /// A thread with its own instruction pointer.
    Thread = 0,
    /// A thread that only serves portals.
    Handler = 1,
    /// A virtual CPU.
    Vcpu = 2,
}

/// Operations of [`Number::CtrlEc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EcOp {
    /// Make a virtual CPU leave its guest with [`crate::vcpu::Exit::Recall`], at once if it runs, else before
    /// its next instruction.
    Recall = 0,
    /// Look at it: RDI returns what it does ([`EcActivity`]), RSI how many events (exits or exceptions) it has had. If it waits
    /// for a reply, the registers of the one at the end of its chain of calls are in the caller's UTCB
    /// ([`crate::fault::FaultState`]; the cause is zeros); likewise its own, if it is a thread.
    Look = 1,
    /// Stop a virtual CPU: when this has succeeded it stands still between two instructions, whoever has time for it.
    /// [`Status::Busy`]: an exit of it is not answered yet, or it is on another CPU, and it will stand still when that is done;
    /// ask again.
    Stop = 2,
    /// Let a virtual CPU that was stopped go on. Nothing was lost: what is pending or has come due meanwhile happens now.
    Go = 3,
    /// Read the groups in RSI ([`crate::vcpu::Groups`]) of a virtual CPU that stands still into the caller's UTCB
    /// ([`crate::vcpu::VcpuState`]). [`Status::Busy`]: it does not stand still, or another CPU has yet to write its state
    /// back; ask again.
    Read = 4,
    /// Write the groups in RSI from there, likewise. Nothing is done about the instruction at RIP:
    /// [`crate::vcpu::Groups::DONE`] has no meaning here.
    Write = 5,
    /// Bind it to the CPU in RSI, with its scheduling context; what it waits for it goes on waiting for. Also the caller itself.
    /// [`Status::Busy`]: it calls somebody, or somebody calls it or waits for his turn, or it has to leave its CPU first; ask
    /// again. [`Status::BadCpu`]: there is no such CPU, or its domain, or the one that pays for its scheduling context, may not
    /// use it.
    Move = 6,
}

impl EcOp {
    /// The operation for the flags of a hypercall.
    #[must_use]
    pub const fn from_abi(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Recall,
            1 => Self::Look,
            2 => Self::Stop,
            3 => Self::Go,
            4 => Self::Read,
            5 => Self::Write,
            6 => Self::Move,
            _ => return None,
        })
    }
}

/// What an execution context does, as [`EcOp::Look`] returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum EcActivity {
    /// It runs or could run.
    Runs = 0,
    /// It waits for a reply, and whoever works on that runs or could run.
    Served = 1,
    /// It, or whoever works on its reply, waits for a semaphore.
    Waits = 2,
    /// A handler without a caller.
    Idle = 3,
    /// The kernel has ended it.
    Dead = 4,
    /// A virtual CPU that somebody has stopped.
    Stopped = 5,
}

impl EcActivity {
    /// The activity for a value out of RDI.
    #[must_use]
    pub const fn from_abi(value: u64) -> Option<Self> {
        Some(match value {
            0 => Self::Runs,
            1 => Self::Served,
            2 => Self::Waits,
            3 => Self::Idle,
            4 => Self::Dead,
            5 => Self::Stopped,
            _ => return None,
        })
    }
}

/// Operations of [`Number::CtrlSm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SmOp {
    /// Add one, or wake one waiter (`SM_UP`).
    Up = 0,
    /// Take one, waiting for it if need be (`SM_DOWN`).
    Down = 1,
    /// Take all there is, waiting for at least one (`SM_DOWN`).
    DownAll = 2,
}

/// Operations of [`Number::CtrlPd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PdOp {
    /// Only read.
    Read = 0,
    /// Move pages from the caller's domain to the one named.
    Give = 1,
    /// Move free pages from the one named to the caller's.
    Take = 2,
}

/// Mode bits of [`Number::AssignInt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct IntMode(pub u8);

impl IntMode {
    /// Edge-triggered, active high: what the ISA bus has.
    pub const ISA: Self = Self(0);
    /// Level-triggered instead of edge-triggered.
    pub const LEVEL: Self = Self(1 << 0);
    /// Active low instead of active high.
    pub const ACTIVE_LOW: Self = Self(1 << 1);
}
