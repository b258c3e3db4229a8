//! A virtual machine whose exits are looked at one by one.
//!
//! Its handler stops at every exit and waits until the test has looked at the state and says what to write back. So a test is a
//! straight line: run, look at the exit, run on.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use abi::cap::{MemRights, Selector};
use abi::hypercall::Status;
use abi::vcpu::{EXITS, Exit, Groups, VcpuState};
use emulate::End;
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall;
use runtime::lock::Lock;
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, MsrSpace, PortSpace};
use runtime::task::{Defaults, defaults};
use runtime::vcpu::VcpuBuilder;

use super::modes::{self, Mode};
use crate::kernel::threads;
use crate::processor::is_tcg;
use crate::report::Bench;

/// Where guest code is put and starts.
pub const CODE: u64 = 0x1000;
/// A page for the guest's data.
pub const DATA: u64 = 0x9000;
/// Top of the guest's stack.
pub const STACK: u64 = 0x8000;
/// Bytes of guest memory that are there.
pub const MEMORY: u64 = 0x40_0000;

/// What test and handler share.
struct Shared {
    slot: Lock<Slot>,
    stopped: Sm,
    go: Sm,
}

struct Slot {
    exit: Exit,
    state: VcpuState,
    reply: Groups,
}

/// A virtual machine under test.
pub struct Vm {
    shared: &'static Shared,
    /// Its virtual CPU.
    pub vcpu: Ec,
    /// That one's CPU time.
    pub sc: Sc,
    /// Who answers its exits.
    pub handler: Ec,
    /// First of the portals for them.
    portals: Selector,
    /// Its memory, as the guest sees it.
    pub space: GuestSpace,
    memory: GuestMemory,
    /// The state at the last exit, to be changed by the test.
    pub state: VcpuState,
    /// The same, as it came.
    came: VcpuState,
    /// What virtual CPUs can do here: [`abi::hip::features`].
    pub features: u64,
    /// Whether the handler waits for the test.
    stopped: bool,
    /// Time that an exit may take, in milliseconds.
    pub patience: u64,
    hz: u64,
}

/// The spaces of a virtual machine besides its memory.
#[derive(Clone, Copy, Default)]
pub struct Spaces {
    pub msrs: Option<MsrSpace>,
    pub ports: Option<PortSpace>,
}

fn show(status: Status) -> String {
    format!("{status:?}")
}

fn serve(shared: &mut &'static Shared, state: &mut VcpuState, exit: Exit) -> Groups {
    {
        let mut slot = shared.slot.lock();
        slot.exit = exit;
        slot.state = *state;
    }
    let _ = shared.stopped.up();
    while shared.go.down().is_err() {}
    let slot = shared.slot.lock();
    *state = slot.state;
    slot.reply
}

impl Vm {
    /// A virtual machine with [`MEMORY`] from `at` in the test's memory on, its virtual CPU stopped before its first instruction.
    pub fn new(bench: &Bench<'_>, at: u64, spaces: Spaces) -> Result<Self, String> {
        let share = Share { priority: bench.priority - 2, budget: bench.hz / 100, period: 0 };
        Self::on(bench, at, spaces, (defaults(), share))
    }

    /// The same on the CPU of `defaults`, with that share of it.
    pub fn on(
        bench: &Bench<'_>,
        at: u64,
        spaces: Spaces,
        (defaults, share): (Defaults, Share),
    ) -> Result<Self, String> {
        let space = GuestSpace::create(Pd::OWN).map_err(show)?;
        let region =
            bench.memory.region(at, MEMORY).map_err(|_| "the test has too little memory")?;
        space.grant(region, 0, MemRights::RWX).map_err(show)?;
        let make = || -> Result<_, Status> {
            let (stopped, go) = (Sm::create(Pd::OWN, 0)?, Sm::create(Pd::OWN, 0)?);
            let slot = Slot { exit: Exit::Other, state: VcpuState::default(), reply: Groups::NONE };
            let shared: &'static Shared =
                Box::leak(Box::new(Shared { slot: Lock::new(slot), stopped, go }));
            let handler = Handler::with(defaults, threads::STACK, shared)?;
            let server = handler.ec();
            let portals = FREE.range(EXITS)?;
            let mut builder = VcpuBuilder::at(space, handler, portals);
            if let Some(msrs) = spaces.msrs {
                builder = builder.msrs(msrs);
            }
            if let Some(ports) = spaces.ports {
                builder = builder.ports(ports);
            }
            let vcpu = builder.otherwise(Groups::ALL, serve).create()?;
            Ok((shared, vcpu, (server, portals), Sc::create(Pd::OWN, vcpu, share)?))
        };
        let (shared, vcpu, (handler, portals), sc) = make().map_err(show)?;
        // Where the clock runs on while nothing else does, everything may take longer.
        let hz = if is_tcg() { bench.hz * 10 } else { bench.hz };
        let features = bench.features;
        let state = VcpuState::default();
        let memory = part(bench.memory, at)?;
        let mut vm = Self {
            shared,
            vcpu,
            sc,
            handler,
            portals,
            space,
            memory,
            state,
            came: state,
            features,
            stopped: false,
            patience: 100,
            hz,
        };
        match vm.wait()? {
            Exit::Startup => Ok(vm),
            other => Err(format!("the first exit is {other:?}")),
        }
    }

    /// Waits for the next exit.
    pub fn wait(&mut self) -> Result<Exit, String> {
        let deadline = runtime::clock::now() + self.hz / 1000 * self.patience;
        self.shared.stopped.down_until(deadline).map_err(|status| match status {
            Status::Timeout => String::from("the guest does not leave"),
            other => show(other),
        })?;
        self.stopped = true;
        let slot = self.shared.slot.lock();
        self.state = slot.state;
        self.came = slot.state;
        Ok(slot.exit)
    }

    /// Writes `reply` back and lets the guest run. A reply with [`Groups::DONE`] brings the length of the instruction, where the
    /// exit did not tell it; where it did, that must be right.
    pub fn resume(&mut self, reply: Groups) -> Result<(), String> {
        if reply.contains(Groups::DONE) && !reply.contains(Groups::RIP) {
            let length = self.instruction_length()?;
            let told = self.came.inst_len;
            if told == 0 {
                self.state.inst_len = length;
            } else if told != length {
                return Err(format!("the exit tells {told} bytes, the instruction has {length}"));
            }
        }
        {
            let mut slot = self.shared.slot.lock();
            slot.state = self.state;
            slot.reply = reply;
        }
        self.stopped = false;
        self.shared.go.up().map_err(show)
    }

    /// The length of the instruction that exited.
    fn instruction_length(&mut self) -> Result<u64, String> {
        let mut state = self.came;
        match emulate::length(&mut state, &mut Memory(self.memory), &[]) {
            End::Done => Ok(state.inst_len),
            other => Err(format!("no instruction at {:#x}: {other:?}", state.rip)),
        }
    }

    /// Lets the guest run to its next exit.
    pub fn run(&mut self, reply: Groups) -> Result<Exit, String> {
        self.resume(reply)?;
        self.wait()
    }

    /// Lets the guest run to its next exit, which must be `exit`.
    pub fn expect(&mut self, reply: Groups, exit: Exit) -> Result<(), String> {
        let got = self.run(reply)?;
        if got == exit {
            return Ok(());
        }
        let VcpuState { rip, qual, event, .. } = &self.state;
        Err(format!("exit {got:?} at {rip:#x} with {qual:x?} {event:x?}, expected {exit:?}"))
    }

    /// Ends it, in whatever state it is; its guest's memory stays.
    pub fn end(self) -> Result<(), String> {
        // SAFETY: a virtual CPU has no memory of this task's.
        unsafe { self.vcpu.destroy() }.map_err(show)?;
        self.end_rest()
    }

    /// Ends what is left when the virtual CPU is gone.
    pub fn end_rest(self) -> Result<(), String> {
        // SAFETY: nobody waits for what the handler holds, and its message page is its own.
        unsafe { self.handler.destroy() }.map_err(show)?;
        let semaphores = [self.shared.stopped.selector(), self.shared.go.selector()];
        let portals = self.portals..self.portals + EXITS;
        for selector in portals.chain(semaphores).chain([self.space.selector()]) {
            // SAFETY: portals and semaphores are no memory, and a guest's is none of this task's.
            unsafe { hypercall::destroy(selector) }.map_err(show)?;
            FREE.give(selector);
        }
        for selector in [self.vcpu.selector(), self.sc.selector(), self.handler.selector()] {
            FREE.give(selector);
        }
        Ok(())
    }

    /// Makes sure that the virtual CPU is stopped, whatever it does.
    pub fn stop(&mut self) -> Result<(), String> {
        // A test that failed may have left anything behind.
        while self.shared.stopped.down_until(0).is_ok() {
            self.stopped = true;
        }
        if !self.stopped {
            self.vcpu.recall().map_err(show)?;
            self.wait()?;
        }
        Ok(())
    }

    /// Puts the virtual CPU into `mode` with `code` to run, everything else as new; it stays stopped. The next reply must be
    /// [`Groups::ALL`].
    pub fn load(&mut self, mode: Mode, code: &[u8]) -> Result<(), String> {
        self.stop()?;
        modes::prepare(self.memory, mode)?;
        self.poke(CODE, code)?;
        self.state = modes::state(mode);
        Ok(())
    }

    /// The same, and lets it run to its first exit, which must be `exit`.
    pub fn start(&mut self, mode: Mode, code: &[u8], exit: Exit) -> Result<(), String> {
        self.load(mode, code)?;
        self.expect(Groups::ALL, exit)
    }

    /// Writes guest memory.
    pub fn poke(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory.write(at, bytes).map_err(|_| "outside of guest memory".into())
    }

    /// Reads guest memory.
    pub fn peek<const N: usize>(&self, at: u64) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.memory.read(at, &mut bytes).map_err(|_| "outside of guest memory")?;
        Ok(bytes)
    }

    /// Reads a word of guest memory.
    pub fn peek_u64(&self, at: u64) -> Result<u64, String> {
        self.peek(at).map(u64::from_le_bytes)
    }

    /// Maps a part of the guest's memory, at the same address, with these rights.
    pub fn map(&self, at: u64, bytes: u64, rights: MemRights) -> Result<(), String> {
        let region = self.memory.region(at, bytes).map_err(|_| "outside of guest memory")?;
        self.space.grant(region, at, rights).map_err(show)
    }

    /// Takes rights to a part of its memory away from the guest.
    pub fn unmap(&self, at: u64, bytes: u64, rights: MemRights) -> Result<(), String> {
        self.space.revoke(at, bytes, rights).map_err(show)
    }
}

/// The guest's memory, for the decoder.
struct Memory(GuestMemory);

impl emulate::Bus for Memory {
    fn read(&mut self, gpa: u64, size: u8) -> u64 {
        let mut bytes = [0xff; 8];
        if let Some(part) = bytes.get_mut(..size.into()) {
            // What is not there reads as ones.
            let _ = self.0.read(gpa, part);
        }
        u64::from_le_bytes(bytes)
    }
    fn write(&mut self, _: u64, _: u8, _: u64) {}
    fn port_read(&mut self, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: u16, _: u8, _: u32) {}
    fn physical_bits(&self) -> u32 {
        52
    }
}

/// The part of the test's memory from `at` on.
fn part(memory: GuestMemory, at: u64) -> Result<GuestMemory, String> {
    let region = memory.region(at, MEMORY).map_err(|_| "the test has too little memory")?;
    let area = runtime::protocol::startup::Area { base: region.base(), len: region.len() };
    // SAFETY: a part of memory that is set aside for guests.
    Ok(unsafe { GuestMemory::new(area) })
}
