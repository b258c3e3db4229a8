//! Execution contexts: threads, handlers, virtual CPUs.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{ObjectType, Selector};
use abi::fault::Gprs;
use abi::utcb::Utcb;

use super::pd::Pd;
use super::pt::Pt;
use super::sc::Sc;
use super::{Header, Object, Ref};
use crate::arch::cpu::Cpu;
use crate::arch::{Resume, Vcpu, Vendor};
use crate::list::{Linked, Links, List};
use crate::sched::timeout::Timeout;
use crate::sync::Guarded;

/// The registers of a context that does not run, in the order in which the entry paths push them:
/// the last seven words are what the processor and the entry stub push for an exception.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub gpr: Gprs,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// What a context does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, is ready to run, or waits for its callee, which then runs in its place.
    Ready,
    /// A handler without a caller.
    Idle,
    /// It waits for a semaphore.
    Blocked,
    /// A virtual CPU that was stopped, between two instructions.
    Stopped,
    /// It will not run again, and somebody on another CPU is about to destroy it.
    Ending,
    /// It will never run again.
    Dead,
}

/// What a context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has its own time.
    Thread,
    /// Serves portals, on the time of its callers.
    Handler,
    /// A virtual CPU, and what runs it: known with the same comparison.
    Vcpu(Vendor),
}

impl Kind {
    /// Whether it is a virtual CPU.
    #[inline(always)]
    pub const fn is_vcpu(self) -> bool {
        matches!(self, Self::Vcpu(_))
    }
}

/// What a context still has to do before it goes on.
#[derive(Clone, Copy)]
pub enum Retry {
    /// Nothing.
    None,
    /// A call to a portal whose handler was busy: selector and message tag.
    Call(Selector, u64),
    /// An event (exit or exception) for the portal at this selector.
    Event(Selector),
}

/// An execution context.
#[repr(C)]
pub struct Ec {
    header: Header,
    /// How it goes on: the address of an exit path in `arch`.
    pub resume: Guarded<Resume>,
    /// Its registers; of a virtual CPU only `gpr`.
    pub frame: Guarded<Frame>,
    /// Top of the kernel stack of its CPU, for the exit path of a virtual CPU.
    pub kernel_stack: Guarded<u64>,
    /// Its message page, in the window; null for a virtual CPU.
    pub utcb: *mut Utcb,
    /// Where its domain sees that page.
    pub utcb_address: u64,
    /// Page-table root of its domain.
    pub cr3: Guarded<u64>,
    /// Its domain.
    pub pd: Ref<Pd>,
    /// A handler's stack pointer at each entry.
    pub entry_sp: u64,
    /// What it does.
    pub state: Guarded<State>,
    /// Who called it and waits for its reply.
    pub caller: Guarded<Option<Ref<Self>>>,
    /// Whom it has called, or wants to call and helps.
    pub callee: Guarded<Option<Ref<Self>>>,
    /// Whether its callee handles an event of it, not a call.
    pub in_event: Guarded<bool>,
    /// First selector of its event portals.
    pub events: Selector,
    /// Events it has had.
    pub event_count: Guarded<u64>,
    /// What it is.
    pub kind: Kind,
    /// The CPU it is bound to.
    pub cpu: Guarded<Ref<Cpu>>,
    /// Unfinished business.
    pub retry: Guarded<Retry>,
    /// Its place in the queue of a semaphore, or among the waiters of a handler.
    wait: Links<Self>,
    /// Who waits for its turn with it.
    pub waiters: List<Self>,
    /// The portals it serves.
    pub portals: List<Pt>,
    /// Its deadline: of a semaphore down, or of a virtual CPU.
    pub timeout: Timeout,
    /// Scheduling contexts that would run it if it were not blocked.
    pub parked: List<Sc>,
    /// Its scheduling context.
    pub sc: Guarded<Option<Ref<Sc>>>,
    /// A virtual CPU's own part.
    pub vcpu: Vcpu,
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Ec {
    const TYPE: ObjectType = ObjectType::Ec;
}

impl Ec {
    /// A context of `pd` on `cpu` that has nothing yet, and never runs.
    pub fn new(pd: Ref<Pd>, kind: Kind, cpu: Ref<Cpu>) -> Self {
        Self {
            header: Header::new(ObjectType::Ec),
            resume: Guarded::new(Resume::never()),
            frame: Guarded::new(Frame::default()),
            kernel_stack: Guarded::new(cpu.stack_top),
            utcb: core::ptr::null_mut(),
            utcb_address: 0,
            cr3: Guarded::new(pd.cr3.get()),
            pd,
            entry_sp: 0,
            state: Guarded::new(if kind == Kind::Handler { State::Idle } else { State::Ready }),
            caller: Guarded::new(None),
            callee: Guarded::new(None),
            in_event: Guarded::new(false),
            events: 0,
            event_count: Guarded::new(0),
            kind,
            cpu: Guarded::new(cpu),
            retry: Guarded::new(Retry::None),
            wait: Links::new(),
            waiters: List::new(),
            portals: List::new(),
            timeout: Timeout::new(),
            parked: List::new(),
            sc: Guarded::new(None),
            vcpu: Vcpu::none(),
        }
    }

    /// Its registers. Whoever changes them must be the kernel path that runs for it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn regs(&self) -> &mut Frame {
        // SAFETY: the lock is held, and the context does not run: it is on this CPU, or another one has nothing of it.
        unsafe { &mut *self.frame.as_ptr() }
    }

    /// Sets what its hypercall returns.
    #[inline(always)]
    pub fn set_result(&self, status: abi::hypercall::Status) {
        self.regs().gpr.rax = status as u64;
    }
}

impl Linked for Ec {
    #[inline(always)]
    fn links(&self) -> &Links<Self> {
        &self.wait
    }
}

static NOBODY: AtomicU64 = AtomicU64::new(0);

/// Says who stands in for handlers that have ended.
pub fn set_nobody(ec: Ref<Ec>) {
    ec.state.set(State::Dead);
    NOBODY.store(ec.address(), Ordering::Relaxed);
}

/// A context that never lived: it serves the portals of handlers that have ended.
pub fn nobody() -> Ref<Ec> {
    // SAFETY: it was set at boot, before there was a portal, and stays.
    unsafe { Ref::from_address(NOBODY.load(Ordering::Relaxed)) }
}
