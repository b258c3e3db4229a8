//! The answers to exits.

use core::arch::x86_64::__cpuid_count;

use machine::pc::{Outcome, Pc, Settings, Stop, Tells, portal_groups};
use runtime::abi::hip::features;
use runtime::abi::hypercall::FOREVER;
use runtime::abi::vcpu::{EXITS, Exit, Groups, VcpuState};
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::pt::Pt;
use runtime::sm::Sm;
use runtime::space::{GuestSpace, MsrSpace};
use runtime::vcpu::VcpuBuilder;
use runtime::{Status, exit, println};

use crate::clock::GuestClock;
use crate::console::Console;
use crate::guest::Software;
use crate::ram::Ram;
use crate::report;

/// What a machine is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its memory.
    pub ram: Ram,
    /// The clock that guest time is derived from.
    pub clock: runtime::clock::Clock,
    /// Seconds since 1970 when the time-stamp counter was zero.
    pub epoch: u64,
    /// What virtual CPUs can do: [`features`].
    pub features: u64,
    /// The far end of the serial line.
    pub console: Console,
    /// What runs in it.
    pub software: Software,
    /// Upped when a guest that halts has to look again.
    pub wake: Sm,
}

/// A machine with the state that its portals share.
#[derive(Debug)]
pub struct Monitor {
    pc: Pc,
    clock: GuestClock,
    parts: Parts,
    /// Deadline that the kernel has for the virtual CPU.
    armed: u64,
    /// First portal of the virtual CPU.
    portals: u32,
    /// What the processor tells.
    tells: Tells,
    /// What the portal of memory exits delivers usually.
    memory: Groups,
}

fn power_on(parts: &Parts) -> (Pc, GuestClock) {
    let clock = GuestClock::start(parts.clock);
    let since_epoch = parts.clock.to_ns(runtime::clock::now()) / 1_000_000_000;
    let settings = Settings {
        memory: *parts.ram.map(),
        unix_seconds: parts.epoch.wrapping_add(since_epoch),
        xsave: parts.features & features::XSAVE != 0,
        tsc_offset: clock.tsc_offset(),
    };
    let host = |leaf, subleaf| {
        let r = __cpuid_count(leaf, subleaf);
        [r.eax, r.ebx, r.ecx, r.edx]
    };
    (Pc::new(&settings, host), clock)
}

/// Makes the virtual CPU of a machine; it runs when it gets a scheduling context.
///
/// # Errors
/// See [`runtime::vcpu::VcpuBuilder::create`].
pub fn create(parts: Parts, memory: GuestSpace, msrs: Option<MsrSpace>) -> Result<Ec, Status> {
    let (pc, clock) = power_on(&parts);
    let portals = runtime::selector::FREE.range(EXITS)?;
    let tells = Tells::by(parts.features);
    let usual = portal_groups(Exit::Memory, tells);
    let monitor = Monitor { pc, clock, parts, armed: u64::MAX, portals, tells, memory: usual };
    let mut builder = VcpuBuilder::at(memory, Handler::new(monitor)?, portals);
    if let Some(msrs) = msrs {
        builder = builder.msrs(msrs);
    }
    // Chosen once, here, and not at each exit.
    if tells.lengths {
        with_portals::<true>(builder, tells)
    } else {
        with_portals::<false>(builder, tells)
    }
    .create()
}

/// Gives each exit its portal, for a processor that tells the lengths of instructions or does not.
fn with_portals<const LENGTHS: bool>(
    mut builder: VcpuBuilder<Monitor>,
    tells: Tells,
) -> VcpuBuilder<Monitor> {
    macro_rules! serve {
        ($($exit:ident)*) => {
            $(builder = builder.on_event(
                Exit::$exit,
                portal_groups(Exit::$exit, tells),
                serve::<{ Exit::$exit as u8 }, LENGTHS>,
            );)*
        };
    }
    serve!(Startup Recall BadState TripleFault Exception InterruptWindow NmiWindow Hlt Cpuid Port);
    serve!(MsrRead MsrWrite Memory Control Debug DescriptorTable Hypercall Virtualization);
    serve!(CacheInvalidate Xsetbv Rdtsc Rdpmc Invlpg Pause Mwait TaskSwitch Init Other);
    builder
}

/// Answers one kind of exit.
#[inline(always)]
fn serve<const EXIT: u8, const LENGTHS: bool>(
    monitor: &mut Monitor,
    state: &mut VcpuState,
    _: u64,
    have: u64,
) -> Groups {
    let exit = const { Exit::ALL[EXIT as usize] };
    let have = Groups(have);
    match exit {
        Exit::Startup => return monitor.load(state),
        Exit::Recall => monitor.recalled(),
        _ => {}
    }
    let (ram, clock) = (&mut monitor.parts.ram, &monitor.clock);
    let outcome = monitor.pc.exit::<LENGTHS>(exit, have, state, ram, clock);
    let Outcome::Continue(groups) = outcome else {
        return monitor.settle(exit, have, state, outcome);
    };
    match exit {
        // These touch no device.
        Exit::Cpuid
        | Exit::InterruptWindow
        | Exit::NmiWindow
        | Exit::CacheInvalidate
        | Exit::Pause => groups,
        Exit::Port => {
            if monitor.move_bytes() {
                monitor.look_again(groups, state)
            } else {
                monitor.with_deadline(groups, state)
            }
        }
        _ => {
            let groups = monitor.with_deadline(groups, state);
            let usual = match exit {
                Exit::Memory => monitor.memory,
                // Addresses matter to no other.
                _ => portal_groups(exit, Tells { lengths: LENGTHS, addresses: false }),
            };
            if have == usual { groups } else { monitor.narrow(exit, groups) }
        }
    }
}

impl Monitor {
    /// After an access to a port: what the guest sent goes out, what waits for it comes in. Returns whether the guest
    /// may have to be interrupted for that.
    #[inline(always)]
    fn move_bytes(&mut self) -> bool {
        let mut moved = false;
        if self.pc.output_waiting() != 0 {
            moved = self.parts.console.send(&mut self.pc);
        }
        if self.parts.console.deadline() == u64::MAX && self.parts.console.has_input() {
            self.parts.console.pump(&mut self.pc, &self.clock);
            moved = true;
        }
        moved && self.pc.interrupt_waiting()
    }

    /// A deadline that has passed: the virtual CPU leaves its guest again at once.
    #[cold]
    fn look_again(&mut self, groups: Groups, state: &mut VcpuState) -> Groups {
        self.armed = 0;
        state.deadline = 0;
        groups | Groups::DEADLINE
    }

    /// The deadline has passed, or there is news from the console.
    fn recalled(&mut self) {
        if runtime::clock::now() >= self.armed {
            self.armed = u64::MAX;
        }
        self.parts.console.pump(&mut self.pc, &self.clock);
    }

    /// The virtual CPU's deadline is the machine's or the console's, whichever is earlier.
    #[inline(always)]
    fn with_deadline(&mut self, groups: Groups, state: &mut VcpuState) -> Groups {
        let deadline = self.pc.deadline().min(self.parts.console.deadline());
        if deadline == self.armed {
            return Groups(groups.0 & !Groups::DEADLINE.0);
        }
        self.armed = deadline;
        state.deadline = deadline;
        groups | Groups::DEADLINE
    }

    /// Everything but going on at once.
    #[cold]
    fn settle(
        &mut self,
        reason: Exit,
        have: Groups,
        state: &mut VcpuState,
        outcome: Outcome,
    ) -> Groups {
        match outcome {
            Outcome::Continue(groups) => groups,
            Outcome::Need(groups) => {
                self.configure(reason, have | groups);
                Groups::NONE
            }
            Outcome::Halt => self.halt(state),
            Outcome::Reset => self.reset(state),
            Outcome::PowerOff => exit(runtime::Outcome::Done),
            // Only an NMI could end this, and the machine has no source of one.
            Outcome::Stop(Stop::Halted) => {
                println!("the guest has halted for good");
                exit(runtime::Outcome::Done)
            }
            Outcome::Stop(stop) => {
                println!("the guest is ended: {stop}");
                report::registers(state);
                exit(runtime::Outcome::Failed)
            }
        }
    }

    /// The guest waits: so does this task, until something is due or comes in.
    fn halt(&mut self, state: &mut VcpuState) -> Groups {
        loop {
            let deadline = self.pc.deadline().min(self.parts.console.deadline());
            let limit = if deadline == u64::MAX { FOREVER } else { deadline };
            // Whether it was upped or the time has passed: both mean to look again.
            let _ = self.parts.wake.down_all(limit);
            self.parts.console.pump(&mut self.pc, &self.clock);
            if let Some(groups) = self.pc.wake(state, &self.clock) {
                return self.with_deadline(groups, state);
            }
        }
    }

    /// The first start.
    fn load(&mut self, state: &mut VcpuState) -> Groups {
        match self.parts.software.load(&mut self.pc, &mut self.parts.ram, &self.clock, state) {
            Ok(groups) => groups,
            Err(error) => {
                println!("{error}");
                exit(runtime::Outcome::Failed)
            }
        }
    }

    /// The guest asked for a reset: devices and registers as after power-on, memory as it is but for what is loaded.
    fn reset(&mut self, state: &mut VcpuState) -> Groups {
        println!("the guest restarts");
        self.parts.console.send(&mut self.pc);
        (self.pc, self.clock) = power_on(&self.parts);
        self.armed = u64::MAX;
        self.parts.console.pump(&mut self.pc, &self.clock);
        let groups = self.load(state);
        self.with_deadline(groups, state) | groups
    }

    /// The rare case is over: the portal delivers the usual groups again.
    #[cold]
    fn narrow(&self, reason: Exit, groups: Groups) -> Groups {
        self.configure(reason, portal_groups(reason, self.tells));
        groups
    }

    /// Says which groups the portal of an exit delivers from now on.
    fn configure(&self, reason: Exit, groups: Groups) {
        let portal = Pt::at(self.portals + reason as u32);
        if let Err(status) = portal.change(reason as u64, groups.0) {
            println!("a portal of this task cannot be changed: {status:?}");
            exit(runtime::Outcome::Failed);
        }
    }
}
