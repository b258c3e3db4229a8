//! What CPUs share without the lock of the kernel, or through nothing but it, in every order of events that the memory model
//! allows: `loom` runs the real code under all of them. A lost wake-up or answer shows as a deadlock, two at a time as a race.

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::lock::{Demand, TicketLock};

/// An interrupt of a CPU: it stays pending until it is taken.
struct Interrupt {
    pending: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    fn new() -> Self {
        Self { pending: Mutex::new(false), changed: Condvar::new() }
    }

    fn send(&self) {
        *self.pending.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// STI and HLT.
    fn wait(&self) {
        let mut pending = self.pending.lock().unwrap();
        while !*pending {
            pending = self.changed.wait(pending).unwrap();
        }
        *pending = false;
    }
}

/// The lock, and what it guards: without order of its own, so that what is not ordered by the lock shows.
struct Kernel {
    lock: TicketLock,
    steps: AtomicU64,
    ready: AtomicU64,
    errand: AtomicU64,
    held: AtomicU64,
    demand: Demand,
    interrupt: Interrupt,
}

impl Kernel {
    /// The lock is free.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: TicketLock { next: AtomicU32::new(0), serving: AtomicU32::new(0) },
            steps: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            errand: AtomicU64::new(0),
            held: AtomicU64::new(1),
            demand: Demand(AtomicU32::new(0)),
            interrupt: Interrupt::new(),
        })
    }

    /// A step of the kernel, on a CPU that does `waiting` while another is in it.
    fn step<R>(&self, mut waiting: impl FnMut(), act: impl FnOnce() -> R) -> R {
        self.lock.acquire(|| {
            waiting();
            thread::yield_now();
        });
        let result = act();
        self.lock.release();
        result
    }

    fn count(&self) {
        self.step(|| (), || self.steps.store(self.steps.load(Relaxed) + 1, Relaxed));
    }
}

/// Sets a cell to 0 and returns what was in it, as one that holds the lock does it.
fn take(cell: &AtomicU64) -> u64 {
    let value = cell.load(Relaxed);
    cell.store(0, Relaxed);
    value
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn one_cpu_at_a_time_is_in_the_kernel_and_each_gets_its_turn() {
    model(|| {
        let kernel = Kernel::new();
        let other = {
            let kernel = Arc::clone(&kernel);
            thread::spawn(move || {
                kernel.count();
                kernel.count();
            })
        };
        kernel.count();
        kernel.count();
        other.join().unwrap();
        assert_eq!(kernel.steps.load(Relaxed), 4);
    });
}

/// One CPU takes a page away and uses it for something else. The processor of another one goes on using it, whenever it likes, as
/// long as it remembers that it may.
#[test]
fn a_page_is_not_used_again_before_every_cpu_has_forgotten_it() {
    model(|| {
        let kernel = Kernel::new();
        let page = Arc::new(AtomicU64::new(0));
        // An access is not split by a flush.
        let remembered = Arc::new(Mutex::new(true));
        let processor = {
            let (page, remembered) = (Arc::clone(&page), Arc::clone(&remembered));
            thread::spawn(move || {
                for _ in 0..2 {
                    let remembered = remembered.lock().unwrap();
                    assert!(!*remembered || page.load(Relaxed) == 0, "somebody else's");
                }
            })
        };
        let other = {
            let (kernel, remembered) = (Arc::clone(&kernel), Arc::clone(&remembered));
            thread::spawn(move || {
                // An interrupt comes, or a hypercall is made.
                while *remembered.lock().unwrap() {
                    let forget = |_| *remembered.lock().unwrap() = false;
                    kernel.step(|| kernel.demand.meet(forget), || ());
                    thread::yield_now();
                }
            })
        };
        kernel.step(
            || (),
            || {
                kernel.demand.make(1);
                while !kernel.demand.is_met() {
                    thread::yield_now();
                }
                page.store(7, Relaxed);
            },
        );
        other.join().unwrap();
        processor.join().unwrap();
    });
}

/// A CPU that finds nothing to do waits for an interrupt without the lock; another one makes something ready.
#[test]
fn no_wake_up_is_lost_between_the_last_look_and_the_halt() {
    model(|| {
        let kernel = Kernel::new();
        let idle = {
            let kernel = Arc::clone(&kernel);
            thread::spawn(move || {
                let mut taken = 0;
                while taken < 2 {
                    let found = kernel.step(|| (), || take(&kernel.ready));
                    taken += found;
                    if found == 0 {
                        kernel.interrupt.wait();
                    }
                }
            })
        };
        for _ in 0..2 {
            kernel.step(
                || (),
                || {
                    kernel.ready.store(kernel.ready.load(Relaxed) + 1, Relaxed);
                    kernel.interrupt.send();
                },
            );
        }
        idle.join().unwrap();
    });
}

/// A context runs on one CPU; another one asks for it until it is let go of, and then finds its registers as they were left.
#[test]
fn an_errand_is_done_and_who_asked_finds_out() {
    model(|| {
        let kernel = Kernel::new();
        let registers = Arc::new(AtomicU64::new(0));
        let home = {
            let (kernel, registers) = (Arc::clone(&kernel), Arc::clone(&registers));
            thread::spawn(move || {
                let mut held = 1;
                while held != 0 {
                    // The guest runs.
                    registers.store(registers.load(Relaxed) + 1, Relaxed);
                    kernel.interrupt.wait();
                    let errand = || {
                        if take(&kernel.errand) != 0 {
                            kernel.held.store(0, Relaxed);
                        }
                        kernel.held.load(Relaxed)
                    };
                    held = kernel.step(|| (), errand);
                }
                registers.load(Relaxed)
            })
        };
        let ask = || {
            let held = kernel.held.load(Relaxed);
            if held != 0 {
                kernel.errand.store(1, Relaxed);
                kernel.interrupt.send();
            }
            held
        };
        while kernel.step(|| (), ask) != 0 {
            thread::yield_now();
        }
        let seen = registers.load(Relaxed);
        assert_eq!(home.join().unwrap(), seen);
    });
}
