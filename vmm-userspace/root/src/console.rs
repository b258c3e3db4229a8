//! Starting the console service.

use alloc::format;

use abi::cap::{MemRights, Perms, Selector};
use abi::hip::Framebuffer;
use abi::hypercall::IntMode;
use abi::layout::PAGE_SIZE;
use config::{CONSOLE_INTERRUPT, CONSOLE_PORTS};
use protocol::console::LogChannel;
use protocol::startup::{Area, Client, Display, MAX_CLIENTS, Share};
use root_task::frames::Frames;
use root_task::status::Failure;
use runtime::interrupt::Interrupt;
use runtime::memory::shared;
use runtime::pd::Limits;
use runtime::space::PortSpace;

use crate::channel::Channel;
use crate::context::Context;
use crate::partition::Partition;
use crate::task::{CAPS, Task, layout};
use crate::watch::{End, Watch};
use crate::{log, report, say};

/// The service's entry in the bundle.
const PROGRAM: &str = "console";
/// Where it runs. It talks to its clients by shared memory and semaphores, so those can be anywhere.
const CPU: u16 = 0;
/// Kernel memory in pages.
const QUOTA: u64 = 256;
/// It runs before the partitions, or their output would not appear while they compute.
const PRIORITY: u64 = 126;
/// Its time slice in nanoseconds.
const SLICE: u64 = 10_000_000;
/// Where the service finds the semaphores of its clients.
const WAKES: Selector = 72;

/// The service, which is started again if it faults: its clients do not notice, because their
/// channels are not part of it.
#[derive(Debug)]
pub struct Console {
    /// The root task's own log.
    own: Channel,
    pool: Frames,
    watch: Watch,
    running: Option<Task>,
}

impl Console {
    /// Starts the service for the root task's log and for `partitions`.
    ///
    /// # Errors
    /// When memory is short, the image is incomplete, or there are too many clients.
    pub fn start(context: &mut Context, partitions: &[Partition]) -> Result<Self, Failure> {
        let (own, area) = Channel::own(&mut context.memory, context.wake)?;
        let mut console = Self {
            own,
            pool: Frames::new(),
            watch: Watch::new(context.wake, 1 << CPU)?,
            running: None,
        };
        console.run(context, partitions)?;
        // SAFETY: the frames are visible for ever, and only rings are in them.
        if let Some(channel) = unsafe { shared::<LogChannel>(area) } {
            log::connect(channel, context.console);
        }
        Ok(console)
    }

    fn run(&mut self, context: &mut Context, partitions: &[Partition]) -> Result<(), Failure> {
        let (program, _) = context.find(PROGRAM)?;
        let limits = Limits { priority: PRIORITY, cpus: 1 << CPU };
        let mut task = Task::new(context.hip, QUOTA, limits, CPU)?;
        task.load(&mut context.memory, &mut self.pool, program.data)?;
        give_port(&mut task)?;
        // Without a screen there still is the serial port.
        match give_display(&task, context.hip.framebuffer) {
            Ok(display) => task.startup.display = display,
            Err(failure) => say!("nothing appears on the screen: {failure}"),
        }
        let wake = Perms::SM_DOWN.union(Perms::SM_UP);
        task.give(context.console.selector(), CAPS.wake, wake)?;
        add(&mut task, "", self.own)?;
        for partition in partitions {
            add(&mut task, partition.name(), partition.channel())?;
        }
        let share = Share { priority: PRIORITY, budget: context.clock.to_ticks(SLICE), period: 0 };
        task.start(&mut context.memory, &mut self.pool, share, &self.watch)?;
        self.running = Some(task);
        Ok(())
    }

    /// Sees to its end, if it has ended.
    pub fn attend(&mut self, context: &mut Context, partitions: &[Partition]) {
        if self.running.is_none() {
            return;
        }
        let Some(end) = self.watch.take() else { return };
        if let Some(task) = self.running.take() {
            task.end().into_iter().for_each(|range| self.pool.add(range));
            self.watch.detach();
        }
        let End::Fault(state) = end else {
            // It said itself that it cannot work: there is neither a serial port nor a screen.
            return;
        };
        report::fault(PROGRAM, &state);
        match self.run(context, partitions) {
            Ok(()) => say!("the console service was started again"),
            Err(failure) => say!("the console service cannot be started again: {failure}"),
        }
    }
}

/// The serial port is the service's alone from now on.
fn give_port(task: &mut Task) -> Result<(), Failure> {
    let mut give = || {
        let ports = PortSpace::create(task.pd)?;
        task.selectors.push(ports.selector());
        PortSpace::ALL.grant(CONSOLE_PORTS.first, CONSOLE_PORTS.count(), ports)?;
        Interrupt::global(CONSOLE_INTERRUPT).assign(IntMode::ISA, CPU)
    };
    give().map_err(Failure::doing("give the serial port to the console service"))
}

/// The screen is the service's alone from now on, but for the last words of the kernel.
fn give_display(task: &Task, framebuffer: Framebuffer) -> Result<Display, Failure> {
    /// Frame buffers are large, and so are their pages if the addresses allow it.
    const LARGE: u64 = 2 << 20;
    let Framebuffer { base, stride, width, height, bytes_per_pixel } = framebuffer;
    let len = u64::from(stride) * u64::from(height);
    if len == 0 {
        return Ok(Display::default());
    }
    if !base.is_multiple_of(PAGE_SIZE) {
        return Err(Failure::Other(format!("its memory at {base:#x} begins inside of a page")));
    }
    let memory = Area { base: layout::DISPLAY + base % LARGE, len };
    task.map(base, memory.base, len.next_multiple_of(PAGE_SIZE), MemRights::RW)?;
    Ok(Display { memory, stride, width, height, bytes_per_pixel })
}

/// Makes the owner of a channel a client.
fn add(task: &mut Task, name: &str, channel: Channel) -> Result<(), Failure> {
    let index = task.startup.client_count;
    let offset = index * layout::CHANNELS;
    let (console, log) = channel.map(task, layout::CONSOLE + offset, layout::LOG + offset)?;
    let wake = WAKES + index as Selector;
    task.give(channel.wake.selector(), wake, Perms::SM_UP)?;
    let most = MAX_CLIENTS - 1;
    let client = usize::try_from(index).ok().and_then(|at| task.startup.clients.get_mut(at));
    let client =
        client.ok_or_else(|| Failure::Other(format!("there are more than {most} partitions")))?;
    *client = Client::new(name);
    (client.console, client.log, client.wake) = (console, log, wake);
    task.startup.client_count += 1;
    Ok(())
}
