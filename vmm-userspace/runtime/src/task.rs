//! What the root task gave this task, and how the task ends.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use abi::cap::{NULL, Selector};
use abi::hypercall::Status;
use abi::utcb::Utcb;
use config::Partition;
use protocol::outcome::Outcome;
use protocol::startup::{Area, Client, PORTALS, Share, Startup, portals};

use crate::clock::Clock;
use crate::console::{self, Input, Output};
use crate::interrupt::Interrupt;
use crate::memory::{self, GuestMemory};
use crate::pd::Pd;
use crate::pt::Pt;
use crate::selector;
use crate::selector::Kept;
use crate::sm::Sm;
use crate::space::{MsrSpace, PortSpace};

/// What further threads get unless their maker says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The CPU of the first thread.
    pub cpu: u16,
    /// First event selector: where the root task hears of exceptions.
    pub events: Selector,
    /// The CPU time that the task was promised.
    pub share: Share,
}

impl Defaults {
    /// The same on `cpu`, which the task must be allowed to use.
    #[must_use]
    pub fn on(self, cpu: u16) -> Self {
        let usable = USABLE.load(Ordering::Relaxed);
        let first = self.events - portals(usable, self.cpu);
        Self { cpu, events: first + portals(usable, cpu), ..self }
    }
}

static CPU: AtomicU16 = AtomicU16::new(0);
static EVENTS: AtomicU32 = AtomicU32::new(NULL);
static EXIT: AtomicU32 = AtomicU32::new(NULL);
/// The CPUs that the task may use.
static USABLE: AtomicU64 = AtomicU64::new(1);
/// Where the root task looks for the task's virtual CPU and its scheduling context.
pub(crate) static VCPU: Kept = Kept::none();
static VCPU_TIME: Kept = Kept::none();
/// The virtual CPU that is or will be looked at.
static WATCHED: AtomicU32 = AtomicU32::new(NULL);
static SHARE: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// What further threads get unless their maker says otherwise.
#[must_use]
pub fn defaults() -> Defaults {
    let [priority, budget, period] = SHARE.each_ref().map(|word| word.load(Ordering::Relaxed));
    Defaults {
        cpu: CPU.load(Ordering::Relaxed),
        events: EVENTS.load(Ordering::Relaxed),
        share: Share { priority, budget, period },
    }
}

/// The CPUs that this task may use, the lowest first.
pub fn cpus() -> impl Iterator<Item = u16> {
    let usable = USABLE.load(Ordering::Relaxed);
    (0..u64::BITS as u16).filter(move |cpu| usable >> cpu & 1 != 0)
}

/// Sets [`defaults`]. For the start of a task.
pub fn set_defaults(defaults: Defaults) {
    let Defaults { cpu, events, share } = defaults;
    CPU.store(cpu, Ordering::Relaxed);
    EVENTS.store(events, Ordering::Relaxed);
    for (word, value) in SHARE.iter().zip([share.priority, share.budget, share.period]) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Where to put the scheduling context of the execution context at `ec`.
pub(crate) fn time_selector(ec: Selector) -> Result<Selector, Status> {
    if ec == WATCHED.load(Ordering::Relaxed) { VCPU_TIME.take() } else { selector::FREE.one() }
}

/// A task as its `main` gets it: what the root task gave it.
#[derive(Debug)]
pub struct Task {
    startup: &'static Startup,
    /// The first thread's message page.
    pub utcb: &'static mut Utcb,
}

impl Task {
    /// The task that was started with this page.
    pub(crate) fn new(startup: &'static Startup, utcb: &'static mut Utcb) -> Self {
        EXIT.store(startup.caps.exit, Ordering::Relaxed);
        USABLE.store(startup.usable, Ordering::Relaxed);
        VCPU.keep(startup.caps.vcpu);
        VCPU_TIME.keep(startup.caps.vcpu_time);
        WATCHED.store(startup.caps.vcpu, Ordering::Relaxed);
        set_defaults(Defaults {
            cpu: startup.cpu as u16,
            events: startup.caps.exceptions + startup.portals(startup.cpu as u16),
            share: startup.share,
        });
        Self { startup, utcb }
    }

    /// The page itself.
    #[must_use]
    pub const fn startup(&self) -> &'static Startup {
        self.startup
    }

    /// The clock that all deadlines are in.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        Clock::new(self.startup.tsc_hz)
    }

    /// How many CPUs the machine has; they are numbered from 0.
    #[must_use]
    pub const fn cpus(&self) -> u64 {
        self.startup.cpus
    }

    /// The CPUs that this task may use: a bit for each, from CPU 0 on.
    #[must_use]
    pub const fn usable_cpus(&self) -> u64 {
        self.startup.usable
    }

    /// The description of this task's partition, if it can be read.
    #[must_use]
    pub fn partition(&self) -> Option<Partition> {
        config::decode(bytes(self.startup.config)?).ok()?.partitions.into_iter().next()
    }

    /// The guest's kernel image.
    #[must_use]
    pub fn kernel(&self) -> Option<&'static [u8]> {
        bytes(self.startup.kernel)
    }

    /// The guest's initial RAM disk.
    #[must_use]
    pub fn initrd(&self) -> Option<&'static [u8]> {
        bytes(self.startup.initrd)
    }

    /// Memory for the guest.
    #[must_use]
    pub fn guest_memory(&self) -> Option<GuestMemory> {
        let area = self.startup.guest_memory;
        // SAFETY: the root task made this area for this purpose.
        (!area.is_empty()).then(|| unsafe { GuestMemory::new(area) })
    }

    /// The task's console, if it was given one. To be taken once: a second copy would send and
    /// receive the same bytes again.
    #[must_use]
    pub fn console(&self) -> Option<(Output, Input)> {
        // SAFETY: the root task mapped the channel for reading and writing.
        let channel = unsafe { memory::shared(self.startup.console) }?;
        Some(console::open(channel, Sm::at(self.startup.caps.console), self.wake()))
    }

    /// The semaphore that wakes this task for its console.
    #[must_use]
    pub const fn wake(&self) -> Sm {
        Sm::at(self.startup.caps.wake)
    }

    /// The registers that a guest may use without an exit.
    #[must_use]
    pub fn msrs(&self) -> Option<MsrSpace> {
        let selector = self.startup.caps.msrs;
        (selector != NULL).then_some(MsrSpace::at(selector))
    }

    /// The port space with the ports of the machine that this task may use.
    #[must_use]
    pub fn ports(&self) -> Option<PortSpace> {
        let selector = self.startup.caps.ports;
        (selector != NULL).then_some(PortSpace::at(selector))
    }

    /// The interrupts of the machine that this task may serve, by their numbers. None comes before it is assigned; what an earlier run
    /// of the task had assigned stays so, and what it did not take is there.
    #[must_use]
    pub fn interrupts(&self) -> Vec<(u32, Interrupt)> {
        let numbers = self.partition().map(|partition| partition.interrupts).unwrap_or_default();
        let first = self.startup.caps.interrupts;
        numbers.into_iter().zip((first..).map(Interrupt::at)).collect()
    }

    /// For the console service: whom it serves.
    #[must_use]
    pub fn clients(&self) -> &'static [Client] {
        self.startup.clients()
    }
}

/// The bytes of an area that the root task mapped and nobody changes.
fn bytes(area: Area) -> Option<&'static [u8]> {
    let len = usize::try_from(area.len).ok()?;
    // SAFETY: the areas of images and of the description are mapped as long as the task lives, and
    // are read-only here and unchanged elsewhere.
    (!area.is_empty()).then(|| unsafe { core::slice::from_raw_parts(area.base as *const u8, len) })
}

/// Ends the task. Any thread of it may say so.
pub fn exit(outcome: Outcome) -> ! {
    let first = EXIT.load(Ordering::Relaxed) + outcome as u32;
    let cpus = USABLE.load(Ordering::Relaxed).count_ones();
    // A call stays on its CPU, so only one of these portals is for this thread: if somebody moves it just now, not the one
    // that it was at first.
    for index in (0..cpus).cycle() {
        // The portal is answered only if there is nobody who could end the task.
        if Pt::at(first + index * PORTALS).signal() != Err(Status::BadCpu) {
            break;
        }
    }
    park()
}

/// What [`park`] waits for: a semaphore that nobody ups.
static NEVER: AtomicU32 = AtomicU32::new(NULL);

/// Makes what [`park`] needs, when the task starts: who parks takes no lock, and so can be ended while it does.
pub(crate) fn prepare_park() {
    if let Ok(never) = Sm::create(Pd::OWN, 0) {
        NEVER.store(never.selector(), Ordering::Relaxed);
    }
}

/// Puts the calling thread to sleep for ever; its handlers and virtual CPUs go on.
pub fn park() -> ! {
    // An error could only mean that the semaphore was never made, or is gone and the domain with it.
    while Sm::at(NEVER.load(Ordering::Relaxed)).down().is_ok() {}
    die()
}

/// Raises an invalid-opcode exception, which shows the registers to whoever watches this task.
pub fn die() -> ! {
    // SAFETY: the exception's handler does not return here.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
