//! A partition: its task, and what stays when the task is started again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use abi::cap::{MemRights, Perms};
use abi::layout::PAGE_SIZE;
use config::{Ports, System};
use protocol::outcome::Outcome;
use protocol::startup::{Area, Share};
use root_task::frames::{Frames, Range};
use root_task::policy::{self, Ending};
use root_task::status::Failure;
use runtime::clock::now;
use runtime::interrupt::Interrupt;
use runtime::pd::Limits;
use runtime::space::{MsrSpace, PortSpace};

use crate::channel::Channel;
use crate::context::Context;
use crate::task::{INTERRUPTS, MSRS, PORTS, Task, guest_frames, layout};
use crate::watch::{End, Watch};
use crate::watchdog::Watchdog;
use crate::{report, say};

/// Kernel memory of every partition, in pages: objects, message pages, tables for its program.
const QUOTA: u64 = 1024;
/// Pages of guest memory for which another page of kernel memory is set aside. Small pages need
/// one table for 512, in the task and in the guest each.
const PAGES_PER_TABLE: u64 = 128;

/// Nanoseconds from one start to the next at least: a partition that fails at once must not keep
/// the machine busy with starting it.
const RESTART_INTERVAL: u64 = 1_000_000_000;

/// A partition.
#[derive(Debug)]
pub struct Partition {
    config: config::Partition,
    channel: Channel,
    /// Its guest's memory, the same at every start.
    guest: Vec<Range>,
    /// Frames of earlier runs, for the next: never for anybody else.
    pool: Frames,
    state: State,
    watch: Watch,
    watchdog: Watchdog,
    /// When it was started last, in ticks.
    started: u64,
    starts: u64,
}

/// What a partition does.
#[derive(Debug)]
enum State {
    /// Its task runs.
    Runs(Box<Task>),
    /// It is to be started again.
    Waits,
    /// It has ended.
    Ended,
}

impl Partition {
    /// A partition that does not run yet.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(context: &mut Context, config: config::Partition) -> Result<Self, Failure> {
        let channel = Channel::new(&mut context.memory, config.console)?;
        let usable = config.cpu.usable(context.hip.cpus);
        Ok(Self {
            config,
            channel,
            guest: Vec::new(),
            pool: Frames::new(),
            state: State::Ended,
            watch: Watch::new(context.wake, usable)?,
            watchdog: Watchdog::new(),
            started: 0,
            starts: 0,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its channels to the console service.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Whether its task runs or will run again.
    pub const fn is_alive(&self) -> bool {
        !matches!(self.state, State::Ended)
    }

    /// Starts its task.
    ///
    /// # Errors
    /// When its CPU is not there, memory is short, or the image is incomplete.
    fn start(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.state = State::Ended;
        self.started = now();
        self.watchdog.restart();
        let quota = QUOTA + (self.config.memory / PAGE_SIZE).div_ceil(PAGES_PER_TABLE);
        let (first, cpus) = (self.config.cpu.first(), context.hip.cpus);
        let limits =
            Limits { priority: self.config.priority.into(), cpus: self.config.cpu.usable(cpus) };
        if limits.cpus == 0 {
            return Err(Failure::Other(no_cpu(first, cpus)));
        }
        let mut task = Task::new(context.hip, quota, limits, first)?;
        if let Err(failure) = self.fill(context, &mut task) {
            self.retire(task);
            return Err(failure);
        }
        self.state = State::Runs(Box::new(task));
        Ok(())
    }

    fn fill(&mut self, context: &mut Context, task: &mut Task) -> Result<(), Failure> {
        let (program, _) = context.find(&self.config.vmm)?;
        task.load(&mut context.memory, &mut self.pool, program.data)?;
        task.startup.kernel = image(context, task, self.config.kernel.as_deref(), layout::KERNEL)?;
        task.startup.initrd = image(context, task, self.config.initrd.as_deref(), layout::INITRD)?;
        task.startup.guest_memory = self.guest_memory(context, task)?;
        task.startup.config = self.description(context, task)?;
        let (console, log) = self.channel.map(task, layout::CONSOLE, layout::LOG)?;
        task.startup.console = console;
        task.startup.log = log;
        task.give_semaphores(self.channel.wake, context.console)?;
        give_msrs(task)?;
        give_ports(task, &self.config.ports)?;
        give_interrupts(task, &self.config.interrupts)?;
        if context.hip.features & abi::hip::features::COUNTERS != 0 {
            show_counters(task)?;
        }
        task.startup.restarts = self.starts;
        task.startup.epoch = context.epoch;
        let share = self.share(context);
        task.start(&mut context.memory, &mut self.pool, share, &self.watch)
    }

    /// A budget as long as the period is no limit, only a time slice.
    fn share(&self, context: &Context) -> Share {
        let ticks = |us: u64| context.clock.to_ticks(us.saturating_mul(1000)).max(1);
        let (budget, period) = (self.config.budget_us, self.config.period_us);
        let period = if budget == period { 0 } else { ticks(period) };
        Share { priority: self.config.priority.into(), budget: ticks(budget), period }
    }

    fn guest_memory(&mut self, context: &mut Context, task: &Task) -> Result<Area, Failure> {
        if self.guest.is_empty() && self.config.memory > 0 {
            self.guest = guest_frames(&mut context.memory, self.config.memory)?;
        }
        let mut va = layout::GUEST;
        for piece in &self.guest {
            // A guest executes what is in its memory, and gets no right that its task lacks.
            task.map(piece.base, va, piece.len, MemRights::RWX)?;
            va += piece.len;
        }
        Ok(Area { base: layout::GUEST, len: va - layout::GUEST })
    }

    /// The task's own part of the system description.
    fn description(&mut self, context: &mut Context, task: &mut Task) -> Result<Area, Failure> {
        let system = System { partitions: Vec::from([self.config.clone()]), ..System::default() };
        let bytes =
            config::encode(&system).map_err(|invalid| Failure::Other(invalid.to_string()))?;
        task.give_bytes(&mut context.memory, &mut self.pool, &bytes, layout::CONFIG)
    }

    /// Sees to its end, if its task has ended: reports it, stops what is left of it, and starts it
    /// again if it should be, now or later.
    pub fn attend(&mut self, context: &mut Context) {
        if let State::Runs(task) = &self.state {
            let end = self.watch.take().or_else(|| self.watchdog.look(context, task.objects));
            let Some(end) = end else { return };
            if let State::Runs(task) = mem::replace(&mut self.state, State::Ended) {
                self.retire(*task);
            }
            let ending = self.report(end);
            if policy::again(self.config.restart, ending) {
                self.state = State::Waits;
            }
        }
        let ran = now().saturating_sub(self.started);
        if matches!(self.state, State::Waits) && context.clock.to_ns(ran) >= RESTART_INTERVAL {
            say!("{} is started again (start {})", self.name(), self.starts + 1);
            self.start_or_report(context);
        }
    }

    /// Starts its task, or says why that does not work.
    pub fn start_or_report(&mut self, context: &mut Context) {
        if let Err(failure) = self.start(context) {
            say!("{} cannot be started: {failure}", self.name());
        }
        self.starts += 1;
    }

    fn report(&self, end: End) -> Ending {
        let name = self.name();
        match end {
            End::Outcome(outcome) => {
                match outcome {
                    Outcome::Done => say!("{name} has ended"),
                    Outcome::Reset => say!("{name} asked for a reset"),
                    Outcome::Failed => say!("{name} has failed; its own messages say why"),
                }
                Ending::Outcome(outcome)
            }
            End::Fault(state) => {
                report::fault(name, &state);
                say!("{name} was stopped");
                Ending::Fault
            }
            End::Hang { exits, state } => {
                report::hang(name, exits, &state);
                say!("{name} was stopped");
                Ending::Fault
            }
            End::Dead => {
                say!(
                    "{name}: the kernel ended its virtual CPU, whose exit nobody takes; the \
                     kernel's lines above say which"
                );
                say!("{name} was stopped");
                Ending::Fault
            }
        }
    }

    /// Ends a run, and keeps its frames for the next one.
    fn retire(&mut self, task: Task) {
        task.end().into_iter().for_each(|range| self.pool.add(range));
        self.watch.detach();
    }
}

/// Why a partition cannot be on a CPU, and what can be done.
fn no_cpu(cpu: u16, cpus: u64) -> String {
    let there = match cpus {
        1 => "only CPU 0 runs".to_string(),
        _ => format!("CPUs 0 to {} run", cpus - 1),
    };
    format!(
        "there is no CPU {cpu}, {there}: correct `cpu` in the manifest or give the machine more"
    )
}

/// Gives the task an image from the bundle, in place.
fn image(context: &Context, task: &Task, name: Option<&str>, va: u64) -> Result<Area, Failure> {
    let Some(name) = name else { return Ok(Area::default()) };
    let (entry, pa) = context.find(name)?;
    let len = entry.data.len() as u64;
    task.map(pa, va, len, MemRights::R)?;
    Ok(Area { base: va, len })
}

/// A kernel that counts is there to be measured: the task sees the counts, in the kernel's log.
fn show_counters(task: &Task) -> Result<(), Failure> {
    let span = runtime::hypercall::Span {
        from: abi::layout::ROOT_LOG / PAGE_SIZE,
        to: layout::KERNEL_LOG / PAGE_SIZE,
        count: size_of::<abi::hip::LogRing>() as u64 / PAGE_SIZE,
    };
    let (own, rights) = (abi::cap::own::MEMORY, MemRights::R);
    // SAFETY: read-only, into a task that does not run yet.
    unsafe { runtime::hypercall::grant(own, task.host.selector(), span, rights.0.into()) }
        .map_err(Failure::doing("show the task the kernel's counters"))
}

/// Gives the task ports of the machine.
fn give_ports(task: &mut Task, ranges: &[Ports]) -> Result<(), Failure> {
    if ranges.is_empty() {
        return Ok(());
    }
    let mut make = || {
        let ports = PortSpace::create(task.pd)?;
        task.selectors.push(ports.selector());
        for range in ranges {
            PortSpace::ALL.grant(range.first, range.count(), ports)?;
        }
        Ok(ports)
    };
    let ports = make().map_err(Failure::doing("make the task's port space"))?;
    task.give(ports.selector(), PORTS, Perms::ALL)?;
    task.startup.caps.ports = PORTS;
    Ok(())
}

/// Gives the task interrupts of the machine. It routes them itself: only it knows how its devices signal.
fn give_interrupts(task: &mut Task, interrupts: &[u32]) -> Result<(), Failure> {
    let serve = Perms::SM_DOWN.union(Perms::SM_BIND);
    for (interrupt, at) in interrupts.iter().zip(INTERRUPTS..) {
        let semaphore = Interrupt::global(*interrupt).semaphore();
        task.give(semaphore.selector(), at, serve)?;
        task.startup.caps.interrupts = INTERRUPTS;
    }
    Ok(())
}

/// Gives the task the registers that a guest may use without an exit.
fn give_msrs(task: &mut Task) -> Result<(), Failure> {
    /// The two ranges that an MSR bitmap covers (SDM 3C 25.6.9).
    const RANGES: [(u32, u64); 2] = [(0, 0x2000), (0xc000_0000, 0x2000)];
    let mut make = || {
        let msrs = MsrSpace::create(task.pd)?;
        task.selectors.push(msrs.selector());
        for (first, count) in RANGES {
            MsrSpace::ALL.grant(first, count, msrs)?;
        }
        Ok(msrs)
    };
    let msrs = make().map_err(Failure::doing("make the guest's MSR space"))?;
    task.give(msrs.selector(), MSRS, Perms::ALL)?;
    task.startup.caps.msrs = MSRS;
    Ok(())
}
