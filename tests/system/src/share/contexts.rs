//! Those who want the CPU.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::cap::MemRights;
use abi::hypercall::Status;
use abi::utcb::Utcb;
use abi::vcpu::{Exit, Groups, VcpuState};
use runtime::clock::now;
use runtime::ec::Ec;
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::sm::Sm;
use runtime::space::GuestSpace;
use runtime::task::defaults;
use runtime::thread::Thread;
use runtime::vcpu::{VcpuBuilder, real_mode_state};

const STACK: usize = 16 * 1024;
/// Where the guest's code is.
const CODE: u64 = 0x1000;
/// JMP to itself.
const SPIN: &[u8] = &[0xeb, 0xfe];

/// A guest that loops for ever.
pub struct Guest {
    /// Its time.
    pub sc: Sc,
    /// Exits that it has had, but for the one at its start.
    pub exits: &'static AtomicU64,
    vcpu: Ec,
}

impl Guest {
    /// One that runs, and when its first period began.
    pub fn new(memory: GuestMemory, share: Share) -> Result<(Self, u64), String> {
        let show = |status: Status| format!("{status:?}");
        memory.write(CODE, SPIN).map_err(|_| "too little memory")?;
        let region = memory.region(0, 0x2000).map_err(|_| "too little memory")?;
        let exits: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let make = || {
            let space = GuestSpace::create(Pd::OWN)?;
            space.grant(region, 0, MemRights::RWX)?;
            let start = |_: &mut &'static AtomicU64, state: &mut VcpuState| {
                let groups = real_mode_state(state, CODE as u16);
                // Bochs keeps interrupts of the host back from a guest that is entered with IF clear.
                state.rflags = 0x202;
                groups
            };
            VcpuBuilder::new(space, exits)?
                .on(Exit::Startup, Groups::NONE, start)
                .otherwise(Groups::NONE, |exits: &mut &'static AtomicU64, _, _| {
                    exits.fetch_add(1, Ordering::Relaxed);
                    // It is over.
                    runtime::park()
                })
                .create()
        };
        let vcpu = make().map_err(show)?;
        let before = now();
        let sc = Sc::create(Pd::OWN, vcpu, share).map_err(show)?;
        // The kernel takes the time somewhere in between.
        let release = before + (now() - before) / 2;
        Ok((Self { sc, exits, vcpu }, release))
    }

    /// Takes it out of its loop, for good.
    pub fn end(&self) {
        let _ = self.vcpu.recall();
    }
}

/// A thread that loops until it is told to stop.
pub struct Spinner {
    /// The thread.
    pub thread: Thread,
    stop: &'static AtomicBool,
}

impl Spinner {
    /// One that runs.
    pub fn new(share: Share) -> Result<Self, Status> {
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let body = move |_: &'static mut Utcb| while !stop.load(Ordering::Relaxed) {};
        Ok(Self { thread: Thread::spawn_with(defaults(), STACK, share, body)?, stop })
    }

    /// Stops it.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a periodic thread tells.
#[derive(Default)]
struct Record {
    done: AtomicU64,
    missed: AtomicU64,
    slowest: AtomicU64,
}

/// A thread that has to do the same work in each period, before that ends.
pub struct Periodic {
    /// The thread.
    pub thread: Thread,
    record: &'static Record,
    start: &'static AtomicU64,
    go: Sm,
    cost: u64,
}

/// Work: so many rounds of two instructions.
fn work(rounds: u64) {
    // SAFETY: counts down.
    unsafe {
        asm!("2:", "dec {rounds}", "jnz 2b", rounds = inout(reg) rounds => _, options(nomem, nostack));
    }
}

/// Ticks that work takes when nobody disturbs it.
fn measure(rounds: u64) -> u64 {
    (0..8)
        .map(|_| {
            let start = now();
            work(rounds);
            now() - start
        })
        .min()
        .unwrap_or(0)
}

impl Periodic {
    /// One whose work takes about `ticks`, and that waits for its first period.
    pub fn new(share: Share, ticks: u64, periods: u64) -> Result<Self, Status> {
        const SAMPLE: u64 = 10_000;
        let rounds = ticks * SAMPLE / measure(SAMPLE).max(1);
        let cost = measure(rounds);
        let record: &'static Record = Box::leak(Box::new(Record::default()));
        let start: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let (go, sleep) = (Sm::create(Pd::OWN, 0)?, Sm::create(Pd::OWN, 0)?);
        let period = share.period;
        let body = move |_: &'static mut Utcb| {
            let _ = go.down();
            let mut release = start.load(Ordering::Relaxed);
            for _ in 0..periods {
                let _ = sleep.down_until(release);
                work(rounds);
                let took = now() - release;
                record.slowest.fetch_max(took, Ordering::Relaxed);
                record.missed.fetch_add(u64::from(took > period), Ordering::Relaxed);
                record.done.fetch_add(1, Ordering::Relaxed);
                release += period;
            }
        };
        let thread = Thread::spawn_with(defaults(), STACK, share, body)?;
        Ok(Self { thread, record, start, go, cost })
    }

    /// Its first period starts then.
    pub fn begin(&self, at: u64) {
        self.start.store(at, Ordering::Relaxed);
        let _ = self.go.up();
    }

    /// Periods in which it has done its work.
    pub fn done(&self) -> u64 {
        self.record.done.load(Ordering::Relaxed)
    }

    /// Of these, those in which it was too late.
    pub fn missed(&self) -> u64 {
        self.record.missed.load(Ordering::Relaxed)
    }

    /// The longest time from the start of a period to the end of its work.
    pub fn slowest(&self) -> u64 {
        self.record.slowest.load(Ordering::Relaxed)
    }

    /// Ticks that its work takes when nobody disturbs it.
    pub fn cost(&self) -> u64 {
        self.cost
    }
}
