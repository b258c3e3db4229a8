//! Many threads that wait for the same thing.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::Selector;
use abi::hypercall::{EcActivity, FOREVER, Number, SmOp, Status, pack};
use abi::layout::{HYPERCALL_PAGE, PAGE_SIZE};
use abi::utcb::{MsgTag, Utcb};
use protocol::startup::Share;
use runtime::clock::{Clock, now};
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::pd::Pd;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::task::defaults;
use runtime::thread::Thread;

use super::{Case, FEW, Longest, ROUNDS, destroy, sm};

/// Threads that wait for the same thing.
const CROWD: usize = 200;
/// Where UTCBs of this module's threads go: nothing else is near.
const FAR: u64 = 0x5000_0000_0000;
/// Priorities below this task's and the console service's: of the crowd, and of the thread that sees when it has gone to wait.
const CROWD_PRIORITY: u64 = 100;
const WITNESS_PRIORITY: u64 = 50;

/// When a measured call began, where it ends in another thread.
pub(super) static BEGIN: AtomicU64 = AtomicU64::new(0);
/// When a thread went on because of it; 0: not yet.
pub(super) static END: AtomicU64 = AtomicU64::new(0);

/// The middle one of several calls that end in another thread.
#[derive(Default)]
struct Median(Vec<u64>);

impl Median {
    /// Counts the call that [`begin`] began, if the other thread has seen its end.
    fn add(&mut self) {
        let end = END.load(Ordering::Relaxed);
        self.0.extend(end.checked_sub(BEGIN.load(Ordering::Relaxed)));
    }

    /// The middle one.
    fn get(mut self) -> Result<u64, Status> {
        self.0.sort_unstable();
        self.0.get(self.0.len() / 2).copied().ok_or(Status::Timeout)
    }
}

/// Lets everybody else run for a while.
pub(super) struct Sleep {
    task_clock: Clock,
    never: Sm,
}

impl Sleep {
    /// A way to sleep.
    pub(super) fn new(task_clock: Clock) -> Result<Self, Status> {
        Ok(Self { task_clock, never: sm()? })
    }

    fn a_moment(&self) {
        self.nanoseconds(100_000);
    }

    fn nanoseconds(&self, ns: u64) {
        let _ = self.never.down_until(self.task_clock.in_ns(ns));
    }

    /// Until all threads wait, or what they called does.
    fn until_waiting(&self, threads: &[Selector]) -> Result<(), Status> {
        for thread in threads {
            while hypercall::look(*thread)?.0 != EcActivity::Waits as u64 {
                self.a_moment();
            }
        }
        Ok(())
    }
}

static ENTRY: u64 = HYPERCALL_PAGE;

/// A thread that does the same hypercall for ever: RAX and RSI are on its stack.
#[unsafe(naked)]
extern "C" fn repeat() {
    naked_asm!(
        "2:",
        "mov rax, [rsp]",
        "mov rsi, [rsp + 8]",
        "call qword ptr [rip + {entry}]",
        "jmp 2b",
        entry = sym ENTRY,
    )
}

/// A number for the address of a UTCB.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An address for a UTCB, where tables are missing if it is to be alone.
pub(super) fn utcb_address(alone: bool) -> u64 {
    const ROOM: u64 = 1 << 39;
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    if alone { FAR + (1 + nth % 64) * ROOM } else { FAR + nth * PAGE_SIZE }
}

/// A thread of [`repeat`].
pub(super) fn repeating(rax: u64, rsi: u64) -> Result<Selector, Status> {
    let stack: &'static mut [u64; 4] = Box::leak(Box::new([0, 0, rax, rsi]));
    let sp = &raw const stack[2] as u64;
    let (new, at) = (FREE.one()?, (defaults().cpu, defaults().events));
    let ip = repeat as *const () as u64;
    // SAFETY: the code needs no more of a stack than a return address, and never returns.
    unsafe {
        hypercall::create_thread(new, Pd::OWN.selector(), at, (utcb_address(false), sp, ip))
    }?;
    let time = (CROWD_PRIORITY, defaults().share.budget, 0);
    hypercall::create_sc(FREE.one()?, Pd::OWN.selector(), new, time)?;
    Ok(new)
}

/// Many threads that do the same hypercall.
fn crowd(rax: u64, rsi: u64) -> Result<Vec<Selector>, Status> {
    (0..CROWD).map(|_| repeating(rax, rsi)).collect()
}

fn disperse(threads: &[Selector]) -> Result<u64, Status> {
    let mut longest = Longest::default();
    for thread in threads {
        destroy(&mut longest, *thread)?;
    }
    Ok(longest.0)
}

/// Runs when nobody else does, and says since when.
fn witness() -> Result<(), Status> {
    let share = Share { priority: WITNESS_PRIORITY, ..defaults().share };
    Thread::spawn(share, |_| {
        loop {
            if END.load(Ordering::Relaxed) == 0 {
                END.store(now(), Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

/// Forgets when the last call ended, and begins one that ends in another thread.
#[inline(always)]
fn begin() {
    END.store(0, Ordering::Relaxed);
    BEGIN.store(now(), Ordering::Relaxed);
}

pub(super) fn semaphores(sleep: &Sleep, cases: &mut Vec<Case>) -> Result<(), Status> {
    let down = |sm: Sm| pack(Number::CtrlSm, SmOp::Down as u8, sm.selector());
    witness()?;
    // Up with a crowd that waits, each with a deadline, the first of whom is woken.
    let awaited = sm()?;
    let far = now() + sleep.task_clock.hz() * 3600;
    let threads = crowd(down(awaited), far)?;
    sleep.until_waiting(&threads)?;
    let mut up = Longest::default();
    for _ in 0..ROUNDS {
        up.call(|| awaited.up())?;
        sleep.a_moment();
    }
    cases.push(("up_waited", up.0));

    // Down with a deadline among many, until a thread of the lowest priority runs.
    let mut down_deadline = Median::default();
    for _ in 0..ROUNDS {
        let deadline = sleep.task_clock.in_ns(100_000);
        begin();
        let _ = sleep.never.down_until(deadline);
        down_deadline.add();
    }
    cases.push(("down_deadline", down_deadline.get()?));
    cases.push(("destroy_thread", disperse(&threads)?));

    // A handler waits in the middle of a call, and the time of all others who call it waits with it.
    let resource = sm()?;
    let handler = Handler::new(resource)?;
    let portal = handler.portal(0, 0, |resource: &mut Sm, _: &mut Utcb, _, tag| {
        begin();
        let _ = resource.down();
        MsgTag(tag)
    })?;
    let threads = crowd(pack(Number::Call, 0, portal.selector()), 0)?;
    sleep.until_waiting(&threads)?;
    let (mut up, mut down) = (Longest::default(), Median::default());
    for _ in 0..FEW {
        up.call(|| resource.up())?;
        // All their time comes to wait again, in one decision, long before this thread goes on.
        sleep.nanoseconds(2_000_000);
        down.add();
        sleep.until_waiting(&threads)?;
    }
    cases.push(("up_helped", up.0));
    cases.push(("down_helped", down.get()?));
    let mut ended = Longest::default();
    destroy(&mut ended, handler.ec().selector())?;
    cases.push(("destroy_helped", ended.0));
    disperse(&threads)?;
    Ok(())
}

pub(super) fn ends(sleep: &Sleep, cases: &mut Vec<Case>) -> Result<(), Status> {
    let awaited = sm()?;
    let threads = crowd(pack(Number::CtrlSm, SmOp::Down as u8, awaited.selector()), FOREVER)?;
    sleep.until_waiting(&threads)?;
    let mut ended = Longest::default();
    destroy(&mut ended, awaited.selector())?;
    cases.push(("destroy_sm", ended.0));
    disperse(&threads)?;
    Ok(())
}
