//! Making a task: a protection domain, its spaces, its memory, its first thread.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use abi::cap::{MemRights, Perms, Selector, own};
use abi::hip::Hip;
use abi::program::Program;
use protocol::startup::{ADDRESS, Area, Caps, PORTALS, Share, Startup, UTCBS};
use root_task::frames::{Frames, Range};
use root_task::status::Failure;
use runtime::ec::Ec;
use runtime::pd::{Limits, Pd};
use runtime::sc::Sc;
use runtime::sm::Sm;
use runtime::space::{HostSpace, ObjectSpace};
use runtime::{hypercall, selector};

use crate::memory::{Memory, no_memory};
use crate::watch::Watch;

/// Where every task finds what it is given. Each area has room to grow to the next.
pub mod layout {
    /// Guest memory.
    pub const GUEST: u64 = 0x1000_0000_0000;
    /// The guest's kernel image.
    pub const KERNEL: u64 = 0x2000_0000_0000;
    /// The guest's initial RAM disk.
    pub const INITRD: u64 = 0x3000_0000_0000;
    /// The task's description.
    pub const CONFIG: u64 = 0x7ffe_0010_0000;
    /// The task's console channel. The console service has those of its clients from here on.
    pub const CONSOLE: u64 = 0x7ffe_1000_0000;
    /// The task's log channel. The console service has those of its clients from here on.
    pub const LOG: u64 = 0x7ffe_2000_0000;
    /// The kernel's log ring, if the kernel counts.
    pub const KERNEL_LOG: u64 = 0x7ffe_3000_0000;
    /// The machine's screen.
    pub const DISPLAY: u64 = 0x7ffe_4000_0000;
    /// Distance between channels of the console service's clients.
    pub const CHANNELS: u64 = 0x10_0000;
}

/// The selectors that every task finds filled, or fills.
pub const CAPS: Caps = Caps {
    wake: 68,
    console: 69,
    msrs: 0,
    ports: 0,
    interrupts: 0,
    vcpu: 112,
    vcpu_time: 113,
    exceptions: 128,
    exit: 160,
    // Behind the portals of each CPU that the task may use.
    free: 128,
};
/// Where a task finds its MSR space, if it gets one.
pub const MSRS: Selector = 70;

/// Where it finds its port space, if it has ports.
pub const PORTS: Selector = 71;
/// Where it finds the first of its interrupts.
pub const INTERRUPTS: Selector = 72;

/// A task in the making, and what is kept of it later.
#[derive(Debug)]
pub struct Task {
    /// Its domain.
    pub pd: Pd,
    /// Its capabilities.
    pub objects: ObjectSpace,
    /// Its memory.
    pub host: HostSpace,
    /// What it will be told.
    pub startup: Box<Startup>,
    /// The frames that are its alone.
    pub frames: Vec<Range>,
    /// Where this task has capabilities to what is the task's.
    pub selectors: Vec<Selector>,
    /// The CPU of its first thread.
    cpu: u16,
    entry: u64,
}

impl Task {
    /// An empty task with `quota` pages of kernel memory, whose threads can have what `limits` say; `cpu` is that of the first. It is told
    /// what `hip` says of the machine.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn new(hip: &Hip, quota: u64, limits: Limits, cpu: u16) -> Result<Self, Failure> {
        let pd = Pd::OWN
            .create_pd_within(quota, limits)
            .map_err(Failure::doing(format!("set {quota} pages of kernel memory aside")))?;
        let make = || -> Result<_, abi::hypercall::Status> {
            let objects = ObjectSpace::create(pd)?;
            let host = HostSpace::create(pd)?;
            let from = ObjectSpace::OWN;
            let create = Perms::PD_CREATE.union(Perms::PD_QUOTA);
            from.grant(pd.selector(), objects, own::PD, create)?;
            from.grant(objects.selector(), objects, own::OBJECTS, Perms::ALL)?;
            // It may pass on and drop its memory, not map other memory over it.
            let pass = Perms::SPACE_TAKE.union(Perms::SPACE_REVOKE);
            from.grant(host.selector(), objects, own::MEMORY, pass)?;
            Ok((objects, host))
        };
        let made = make().inspect_err(|_| {
            // With it comes back what it was given. It is new, so nothing speaks against that.
            let _ = pd.destroy();
        });
        let (objects, host) = made.map_err(Failure::doing("make the task's spaces"))?;
        let usable = limits.cpus;
        let caps = Caps { free: CAPS.free + usable.count_ones() * PORTALS, ..CAPS };
        let startup = Box::new(Startup {
            caps,
            tsc_hz: hip.tsc_hz,
            features: hip.features,
            cpus: hip.cpus,
            cpu: cpu.into(),
            usable,
            ..Startup::new()
        });
        let selectors = [pd.selector(), objects.selector(), host.selector()].to_vec();
        Ok(Self { pd, objects, host, startup, frames: Vec::new(), selectors, cpu, entry: 0 })
    }

    /// Makes physical memory visible to the task.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn map(&self, pa: u64, va: u64, bytes: u64, rights: MemRights) -> Result<(), Failure> {
        // SAFETY: the space is the task's, not this one's; its callers choose frames that are the
        // task's or are shared with it on purpose.
        unsafe { self.host.grant_physical(pa, va, bytes, rights) }
            .map_err(Failure::doing("map the task's memory"))
    }

    /// Copies the segments of a program into new frames.
    ///
    /// # Errors
    /// When the file is no program, or memory is short.
    pub fn load(
        &mut self,
        memory: &mut Memory,
        pool: &mut Frames,
        program: &[u8],
    ) -> Result<(), Failure> {
        let program = Program::parse(program).map_err(|error| {
            Failure::Other(format!("its program is damaged ({error:?}): build the image again"))
        })?;
        for segment in program.segments() {
            let mut fresh = memory.fresh(pool, segment.size)?;
            self.frames.push(fresh.range());
            let room = fresh.bytes().get_mut(..segment.content.len());
            room.unwrap_or_default().copy_from_slice(segment.content);
            self.map(fresh.range().base, segment.address, segment.size, segment.rights)?;
        }
        self.entry = program.entry();
        Ok(())
    }

    /// Gives the task a read-only copy of `bytes`.
    ///
    /// # Errors
    /// When memory is short.
    pub fn give_bytes(
        &mut self,
        memory: &mut Memory,
        pool: &mut Frames,
        bytes: &[u8],
        va: u64,
    ) -> Result<Area, Failure> {
        let mut fresh = memory.fresh(pool, bytes.len().max(1) as u64)?;
        self.frames.push(fresh.range());
        fresh.bytes().get_mut(..bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        self.map(fresh.range().base, va, fresh.range().len, MemRights::R)?;
        Ok(Area { base: va, len: bytes.len() as u64 })
    }

    /// Gives the task a semaphore or another capability of this task.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn give(&self, from: Selector, at: Selector, perms: Perms) -> Result<(), Failure> {
        ObjectSpace::OWN
            .grant(from, self.objects, at, perms)
            .map_err(Failure::doing("pass capabilities to the task"))
    }

    /// Gives the task its two semaphores: `wake` is its own, `console` wakes the console service.
    ///
    /// # Errors
    /// When kernel memory is short.
    pub fn give_semaphores(&self, wake: Sm, console: Sm) -> Result<(), Failure> {
        let both = Perms::SM_UP.union(Perms::SM_DOWN);
        self.give(wake.selector(), CAPS.wake, both)?;
        self.give(console.selector(), CAPS.console, Perms::SM_UP)
    }

    /// Starts the task's first thread; `watch` watches the task from then on.
    ///
    /// # Errors
    /// When memory is short.
    pub fn start(
        &mut self,
        memory: &mut Memory,
        pool: &mut Frames,
        share: Share,
        watch: &Watch,
    ) -> Result<(), Failure> {
        self.startup.share = share;
        let mut fresh = memory.fresh(pool, size_of::<Startup>() as u64)?;
        self.frames.push(fresh.range());
        // SAFETY: the bytes are as many and as aligned as a start-up page.
        unsafe { fresh.bytes().as_mut_ptr().cast::<Startup>().write((*self.startup).clone()) };
        self.map(fresh.range().base, ADDRESS, fresh.range().len, MemRights::R)?;
        watch.attach(self.objects, &CAPS)?;
        let run = || -> Result<_, abi::hypercall::Status> {
            let ec = selector::FREE.one()?;
            let at = (self.cpu, CAPS.exceptions + self.startup.portals(self.cpu));
            // SAFETY: the program was loaded for this domain; it brings its stack itself.
            unsafe {
                hypercall::create_thread(ec, self.pd.selector(), at, (UTCBS, 0, self.entry))?;
            }
            Sc::create(self.pd, Ec::at(ec), share).map(|sc| [ec, sc.selector()])
        };
        let own = run().map_err(Failure::doing("start the task's first thread"))?;
        self.selectors.extend(own);
        Ok(())
    }

    /// Ends everything in the task, whatever it does, and returns the frames that it had. If it did not end, which the kernel has
    /// no reason for, nobody may use them.
    pub fn end(self) -> Vec<Range> {
        if self.pd.destroy().is_err() {
            return Vec::new();
        }
        self.selectors.into_iter().for_each(|selector| selector::FREE.give(selector));
        self.frames
    }
}

/// Frames for the guest, as large pages where that is possible.
///
/// # Errors
/// When memory is short.
pub fn guest_frames(memory: &mut Memory, bytes: u64) -> Result<Vec<Range>, Failure> {
    const LARGE: u64 = 2 << 20;
    memory.frames.take_pieces(bytes, LARGE).ok_or_else(|| no_memory(bytes))
}
