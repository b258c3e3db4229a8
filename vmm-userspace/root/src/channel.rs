//! The memory between a task and the console service.

use abi::cap::MemRights;
use protocol::console::{ConsoleChannel, LogChannel};
use protocol::startup::Area;
use root_task::frames::{Frames, Range};
use root_task::status::Failure;
use runtime::memory::shared;
use runtime::pd::Pd;
use runtime::sm::Sm;

use crate::memory::Memory;
use crate::task::Task;

/// The channels of one client. They outlive the client: one that is started again goes on with
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    log: Range,
    console: Option<Range>,
    views: Views,
    /// Wakes the client.
    pub wake: Sm,
}

/// The same channels as this task sees them.
#[derive(Clone, Copy, Debug)]
struct Views {
    log: Option<&'static LogChannel>,
    console: Option<&'static ConsoleChannel>,
}

impl Channel {
    /// Makes a log channel, and a console channel if asked to.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(memory: &mut Memory, console: bool) -> Result<Self, Failure> {
        let mut area = |bytes: usize| {
            let fresh = memory.fresh(&mut Frames::new(), bytes as u64)?;
            Ok((fresh.range(), fresh.keep()))
        };
        let (log, seen) = area(size_of::<LogChannel>())?;
        let console = console.then(|| area(size_of::<ConsoleChannel>())).transpose()?;
        let wake = Sm::create(Pd::OWN, 0).map_err(Failure::doing("make a semaphore"))?;
        // SAFETY: the frames are visible for ever, and only rings are in them.
        let views = unsafe {
            Views {
                log: shared(seen),
                console: console.and_then(|(_, seen): (Range, Area)| shared(seen)),
            }
        };
        Ok(Self { log, console: console.map(|(range, _)| range), views, wake })
    }

    /// A log channel for this task itself, and where it is.
    ///
    /// # Errors
    /// When memory is short.
    pub fn own(memory: &mut Memory, wake: Sm) -> Result<(Self, Area), Failure> {
        let fresh = memory.fresh(&mut Frames::new(), size_of::<LogChannel>() as u64)?;
        let views = Views { log: None, console: None };
        Ok((Self { log: fresh.range(), console: None, views, wake }, fresh.keep()))
    }

    /// Whether the console service has taken all that the client wrote. A client can say what it likes about that, so nobody
    /// should wait for it for ever.
    pub fn is_drained(&self) -> bool {
        self.views.log.is_none_or(|channel| channel.text.is_drained())
            && self.views.console.is_none_or(|channel| channel.output.is_drained())
    }

    /// Maps the channels into a task, at two addresses; says where the console channel and the log
    /// channel are.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn map(&self, task: &Task, console: u64, log: u64) -> Result<(Area, Area), Failure> {
        let map = |range: Range, va: u64| {
            task.map(range.base, va, range.len, MemRights::RW)?;
            Ok(Area { base: va, len: range.len })
        };
        let console = self.console.map(|range| map(range, console)).transpose()?;
        Ok((console.unwrap_or_default(), map(self.log, log)?))
    }
}
