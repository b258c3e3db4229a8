//! What is counted.

use core::fmt;
use core::sync::atomic::Ordering;

use abi::hip::{LogRing, counter, features};
use protocol::startup::Area;
use runtime::clock::now;
use runtime::memory::shared;
use runtime::{Status, Task};

/// Rounds before the measurement, in which caches, tables and time slices settle.
pub const WARM_UP: u64 = 100;
/// Rounds of a measurement.
pub const ITERATIONS: u64 = 10_000;

/// Where the root task maps the kernel's log ring into this task, read-only, if the kernel counts.
const KERNEL_LOG: u64 = 0x7ffe_3000_0000;

/// How often the kernel accessed control structures and MSRs, indexed by [`counter`].
pub type Counts = [u64; 4];

/// Counts, if the kernel was built to.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    kernel: Option<&'static LogRing>,
}

/// Means of a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// Ticks in tenths.
    tenths: u64,
    counts: Counts,
}

/// What was counted at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    ticks: u64,
    counts: Counts,
}

impl Meter {
    /// The meter of this task.
    pub fn new(task: &Task) -> Self {
        if task.startup().features & features::COUNTERS == 0 {
            return Self { kernel: None };
        }
        let area = Area { base: KERNEL_LOG, len: size_of::<LogRing>() as u64 };
        // SAFETY: a root task on a kernel that counts maps the ring there; it is only read.
        Self { kernel: unsafe { shared(area) } }
    }

    /// How much has been counted up to now.
    pub fn counts(&self) -> Counts {
        self.kernel
            .map(|kernel| kernel.counters.each_ref().map(|word| word.load(Ordering::Relaxed)))
            .unwrap_or_default()
    }

    /// How much has been counted up to now, and the time.
    pub fn mark(&self) -> Mark {
        let counts = self.counts();
        Mark { ticks: now(), counts }
    }

    /// What `rounds` rounds since `start` took.
    pub fn since(&self, start: &Mark, rounds: u64) -> Figure {
        let ticks = now().wrapping_sub(start.ticks);
        Figure::new(ticks, difference(self.counts(), start.counts), rounds)
    }

    /// Measures one round of `path`.
    ///
    /// # Errors
    /// The first error of `path`.
    #[inline(always)]
    pub fn run(&self, mut path: impl FnMut() -> Result<(), Status>) -> Result<Figure, Status> {
        for _ in 0..WARM_UP {
            path()?;
        }
        let start = self.mark();
        for _ in 0..ITERATIONS {
            path()?;
        }
        Ok(self.since(&start, ITERATIONS))
    }
}

/// What was counted between two moments.
pub fn difference(end: Counts, start: Counts) -> Counts {
    core::array::from_fn(|i| end[i].wrapping_sub(start[i]))
}

impl Figure {
    /// The means of `rounds` rounds that took that much together, rounded.
    pub fn new(ticks: u64, counts: Counts, rounds: u64) -> Self {
        let mean = |sum: u64| (sum + rounds / 2) / rounds;
        Self { tenths: mean(ticks * 10), counts: counts.map(mean) }
    }

    /// The means of the rest, where this is the sum of `first` and `count` times the rest.
    pub fn rest(self, first: Self, count: u64) -> Self {
        let rest = |all: u64, one: u64| (all.saturating_sub(one) + count / 2) / count;
        Self {
            tenths: rest(self.tenths, first.tenths),
            counts: core::array::from_fn(|i| rest(self.counts[i], first.counts[i])),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(
            f,
            "{}.{} vmread={} vmwrite={} rdmsr={} wrmsr={}",
            self.tenths / 10,
            self.tenths % 10,
            counts[counter::CONTROL_READ],
            counts[counter::CONTROL_WRITE],
            counts[counter::MSR_READ],
            counts[counter::MSR_WRITE],
        )
    }
}
