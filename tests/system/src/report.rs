//! How tests say what they found.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use abi::utcb::Utcb;
use runtime::console::Input;
use runtime::interrupt::Interrupt;
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::sm::Sm;
use runtime::space::{MsrSpace, PortSpace};
use runtime::{Outcome, Task};

/// What tests work with: what the task was given.
pub struct Bench<'a> {
    /// Ticks in a second.
    pub hz: u64,
    /// The main thread's message page.
    pub utcb: &'a mut Utcb,
    /// Priority of the main thread.
    pub priority: u64,
    /// Memory for guests and for grants.
    pub memory: GuestMemory,
    /// Registers that a guest may be given.
    pub msrs: Option<MsrSpace>,
    /// What virtual CPUs can do here: [`abi::hip::features`].
    pub features: u64,
    /// Ports of the machine.
    pub ports: Option<PortSpace>,
    /// Interrupts of the machine, by their numbers.
    pub interrupts: Vec<(u32, Interrupt)>,
    out: &'a mut dyn Write,
    passed: u32,
    failed: u32,
}

/// How a test went.
pub type Check = Result<(), String>;

/// A test: its name, and what it does.
pub type Test = (&'static str, fn(&mut Bench<'_>) -> Check);

impl<'a> Bench<'a> {
    /// A bench whose tests speak to `out`. `main` is everything that is the main thread's own: its message page and
    /// its priority; `hz` are the ticks in a second.
    pub fn new(
        out: &'a mut dyn Write,
        hz: u64,
        main: (&'a mut Utcb, u64),
        memory: GuestMemory,
        msrs: Option<MsrSpace>,
        features: u64,
    ) -> Self {
        let (utcb, priority) = main;
        let (ports, interrupts) = (None, Vec::new());
        let (passed, failed) = (0, 0);
        Self { hz, utcb, priority, memory, msrs, features, ports, interrupts, out, passed, failed }
    }

    /// A point in time that far from now.
    #[must_use]
    pub fn in_ms(&self, ms: u64) -> u64 {
        runtime::clock::now().saturating_add(self.hz / 1000 * ms)
    }

    /// Tells people something.
    pub fn say(&mut self, what: core::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "{what}\r");
    }

    /// Says how one test went.
    pub fn report(&mut self, name: &str, result: Check) {
        // The console has nowhere to report an error to.
        let _ = match result {
            Ok(()) => {
                self.passed += 1;
                writeln!(self.out, "TEST {name} ok\r")
            }
            Err(why) => {
                self.failed += 1;
                writeln!(self.out, "TEST {name} FAILED: {why}\r")
            }
        };
    }

    /// Says how all of them went.
    pub fn verdict(&mut self) -> Outcome {
        let (failed, total) = (self.failed, self.passed + self.failed);
        if failed == 0 {
            let _ = writeln!(self.out, "VERDICT pass {total}\r");
            Outcome::Done
        } else {
            let _ = writeln!(self.out, "VERDICT fail {failed} of {total}\r");
            Outcome::Failed
        }
    }
}

/// How long the console service may take to draw what a test has said, in milliseconds: it rests for 20 each time. It outranks most of what
/// tests measure.
const DRAWING: u64 = 70;

/// The `main` of a test task: runs `tests` with what the task was given. With `only=WORD` in the manifest's `args`, only those
/// whose names begin so.
pub fn main(task: Task, tests: &[&[Test]]) -> Outcome {
    let arguments = task.partition().map(|partition| partition.args).unwrap_or_default();
    let only = arguments.split_whitespace().find_map(|word| word.strip_prefix("only="));
    with_bench(task, |bench, _| {
        let never = Sm::create(Pd::OWN, 0);
        for (name, test) in tests.iter().copied().flatten() {
            if name.starts_with(only.unwrap_or_default()) {
                let _ = never.map(|never| never.down_until(bench.in_ms(DRAWING)));
                let result = test(bench);
                bench.report(name, result);
            }
        }
    })
}

/// The `main` of a test task with one test that listens to its console, and returns how often it has done its work.
pub fn interactive(
    task: Task,
    name: &str,
    test: fn(&Bench<'_>, &mut Input) -> Result<u64, String>,
) -> Outcome {
    with_bench(task, |bench, input| {
        let result = test(bench, input).map(|rounds| {
            let _ = writeln!(bench.out, "{name}: {rounds} rounds\r");
        });
        bench.report(name, result);
    })
}

fn with_bench(task: Task, run: impl FnOnce(&mut Bench<'_>, &mut Input)) -> Outcome {
    let startup = task.startup();
    let (Some((mut out, mut input)), Some(memory)) = (task.console(), task.guest_memory()) else {
        runtime::println!("a test task needs `console = true` and `memory`");
        return Outcome::Failed;
    };
    let (ports, interrupts) = (task.ports(), task.interrupts());
    let main = (&mut *task.utcb, startup.share.priority);
    let msrs = (startup.caps.msrs != 0).then(|| MsrSpace::at(startup.caps.msrs));
    let mut bench = Bench::new(&mut out, startup.tsc_hz, main, memory, msrs, startup.features);
    (bench.ports, bench.interrupts) = (ports, interrupts);
    run(&mut bench, &mut input);
    bench.verdict()
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::format!($($why)+));
        }
    };
}

/// Fails the test unless both sides are equal.
#[macro_export]
macro_rules! check_eq {
    ($got:expr, $expected:expr, $($what:tt)+) => {
        match (&$got, &$expected) {
            (got, expected) => {
                if *got != *expected {
                    let what = $crate::format!($($what)+);
                    return Err($crate::format!("{what}: got {got:x?}, expected {expected:x?}"));
                }
            }
        }
    };
}
