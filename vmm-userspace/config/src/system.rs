//! What a system consists of, and which descriptions make sense.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a page; guest memory is a multiple of it.
pub const PAGE_SIZE: u64 = 4096;
/// The highest priority a partition may have; 0 is the idle thread's.
pub const MAX_PRIORITY: u8 = 127;
/// The priority of a partition whose manifest names none.
pub const DEFAULT_PRIORITY: u8 = 64;
/// Budget and period of a partition whose manifest names none, in microseconds.
pub const DEFAULT_TIME_SLICE_US: u64 = 10_000;
/// The most virtual CPUs a partition may have.
pub const MAX_CPUS: u32 = 1;
/// The highest number of a CPU that a partition can be on: domains name theirs by the bits of a word.
pub const MAX_CPU: u16 = 63;

/// The highest global system interrupt that the kernel serves.
pub const MAX_INTERRUPT: u32 = 191;
/// The most interrupts a partition may have.
pub const MAX_INTERRUPTS: usize = 32;
/// The ports of the console service: the first serial port.
pub const CONSOLE_PORTS: Ports = Ports { first: 0x3f8, last: 0x3ff };
/// Its interrupt.
pub const CONSOLE_INTERRUPT: u32 = 4;

/// What the root task does when every partition has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnEnd {
    /// Turns the machine off.
    #[default]
    Poweroff,
    /// Resets the machine.
    Reboot,
    /// Stops, and leaves the machine on.
    Halt,
}

/// When the root task starts a partition again that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    Never,
    /// Whenever it ends.
    Always,
    /// When it ended by a fault or with an error.
    OnFailure,
}

/// Which CPUs of the machine a partition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// This one, for all its threads and virtual CPUs.
    Cpu(u16),
    /// It begins on CPU 0 and may use them all.
    All,
}

impl Default for Place {
    fn default() -> Self {
        Self::Cpu(0)
    }
}

impl Place {
    /// The CPU that it begins on.
    #[must_use]
    pub const fn first(self) -> u16 {
        match self {
            Self::Cpu(cpu) => cpu,
            Self::All => 0,
        }
    }

    /// The CPUs that it may use in a machine with `cpus` of them: a bit for each, none if its own is not there.
    #[must_use]
    pub fn usable(self, cpus: u64) -> u64 {
        let all = u32::try_from(cpus).ok().and_then(|cpus| 1_u64.checked_shl(cpus));
        let all = all.map_or(u64::MAX, |above| above - 1);
        match self {
            Self::Cpu(cpu) => 1_u64.checked_shl(cpu.into()).unwrap_or(0) & all,
            Self::All => all,
        }
    }
}

/// I/O ports of the machine in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one; not below the first.
    pub last: u16,
}

impl Ports {
    /// Whether a port is in both.
    #[must_use]
    pub const fn overlap(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(self.first.into())
    }
}

/// One partition: a task, and the virtual machine it runs if it runs one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Unique among the partitions.
    pub name: String,
    /// Bundle entry of the task's program.
    pub vmm: String,
    /// Guest-physical memory in bytes, a multiple of [`PAGE_SIZE`]; 0 for a task without a guest.
    pub memory: u64,
    /// Number of virtual CPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// Where it runs; no CPU above [`MAX_CPU`].
    pub cpu: Place,
    /// Scheduling priority, 1 to [`MAX_PRIORITY`]; higher runs first.
    pub priority: u8,
    /// CPU time within each period, in microseconds; 1 to `period_us`.
    pub budget_us: u64,
    /// Length of a period in microseconds.
    pub period_us: u64,
    /// Bundle entry of the guest's kernel.
    pub kernel: Option<String>,
    /// Bundle entry of the guest's initial RAM disk; only with a kernel.
    pub initrd: Option<String>,
    /// The guest kernel's command line.
    pub cmdline: String,
    /// Free text for the task.
    pub args: String,
    /// When it is started again.
    pub restart: Restart,
    /// Whether it is connected to the console service.
    pub console: bool,
    /// Ports of the machine that its task may use; nobody else has them.
    pub ports: Vec<Ports>,
    /// Global system interrupts that its task may serve, at most [`MAX_INTERRUPTS`]; nobody else has them.
    pub interrupts: Vec<u32>,
}

/// All that the root task starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// For people.
    pub name: String,
    /// What happens when every partition has ended.
    pub on_end: OnEnd,
    /// In the order in which they are started.
    pub partitions: Vec<Partition>,
}

/// Why a description makes no sense; each names the partition by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// No name, or one that an earlier partition has.
    Name(usize),
    /// No task.
    Vmm(usize),
    /// Guest memory that is not whole pages.
    Memory(usize),
    /// No CPUs, or more than [`MAX_CPUS`].
    Cpus(usize),
    /// A CPU above [`MAX_CPU`].
    Cpu(usize),
    /// Priority 0, or above [`MAX_PRIORITY`].
    Priority(usize),
    /// No budget, or a budget that is longer than the period.
    Budget(usize),
    /// A kernel without memory, or an initial RAM disk without a kernel.
    Guest(usize),
    /// A range of ports that ends before it begins, or that somebody else has as well.
    Ports(usize),
    /// Too many interrupts, one that is not there, or one that somebody else has as well.
    Interrupts(usize),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, text) = match *self {
            Self::Name(index) => (index, "has no name of its own"),
            Self::Vmm(index) => (index, "has no task"),
            Self::Memory(index) => (index, "has memory that is not whole pages"),
            Self::Cpus(index) => (index, "has no CPUs, or too many"),
            Self::Cpu(index) => (index, "is on a CPU that no machine has"),
            Self::Priority(index) => (index, "has a priority out of range"),
            Self::Budget(index) => (index, "has no budget, or one above its period"),
            Self::Guest(index) => {
                (index, "has a kernel without memory, or an initrd without a kernel")
            }
            Self::Ports(index) => (index, "has ports that are none, or somebody else's"),
            Self::Interrupts(index) => {
                (index, "has too many interrupts, or one that is not there or somebody else's")
            }
        };
        write!(f, "partition {index} {text}")
    }
}

impl System {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first rule that a partition breaks.
    pub fn check(&self) -> Result<(), Invalid> {
        for (index, partition) in self.partitions.iter().enumerate() {
            let earlier = self.partitions.iter().take(index);
            if partition.name.is_empty() || earlier.clone().any(|p| p.name == partition.name) {
                return Err(Invalid::Name(index));
            }
            partition.check(index)?;
            let ports = earlier.clone().flat_map(|p| &p.ports);
            if !partition.ports_are_free(ports) {
                return Err(Invalid::Ports(index));
            }
            if !partition.interrupts_are_free(earlier.flat_map(|p| &p.interrupts)) {
                return Err(Invalid::Interrupts(index));
            }
        }
        Ok(())
    }
}

/// Whether nothing is in a list twice, or in what is `taken`.
fn all_apart<'a, T: 'a>(
    list: &'a [T],
    taken: impl Iterator<Item = &'a T> + Clone,
    meet: impl Fn(&T, &T) -> bool,
) -> bool {
    list.iter().enumerate().all(|(index, item)| {
        let earlier = list.iter().take(index);
        !taken.clone().chain(earlier).any(|other| meet(item, other))
    })
}

impl Partition {
    fn ports_are_free<'a>(&'a self, taken: impl Iterator<Item = &'a Ports> + Clone) -> bool {
        self.ports.iter().all(|ports| ports.first <= ports.last)
            && all_apart(&self.ports, taken.chain([&CONSOLE_PORTS]), |a, b| a.overlap(*b))
    }

    fn interrupts_are_free<'a>(&'a self, taken: impl Iterator<Item = &'a u32> + Clone) -> bool {
        self.interrupts.len() <= MAX_INTERRUPTS
            && self.interrupts.iter().all(|interrupt| *interrupt <= MAX_INTERRUPT)
            && all_apart(&self.interrupts, taken.chain([&CONSOLE_INTERRUPT]), |a, b| a == b)
    }

    fn check(&self, index: usize) -> Result<(), Invalid> {
        let rules = [
            (!self.vmm.is_empty(), Invalid::Vmm(index)),
            (self.memory.is_multiple_of(PAGE_SIZE), Invalid::Memory(index)),
            ((1..=MAX_CPUS).contains(&self.cpus), Invalid::Cpus(index)),
            (self.cpu.first() <= MAX_CPU, Invalid::Cpu(index)),
            ((1..=MAX_PRIORITY).contains(&self.priority), Invalid::Priority(index)),
            ((1..=self.period_us).contains(&self.budget_us), Invalid::Budget(index)),
            (self.kernel.is_none() || self.memory > 0, Invalid::Guest(index)),
            (self.initrd.is_none() || self.kernel.is_some(), Invalid::Guest(index)),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }
}
