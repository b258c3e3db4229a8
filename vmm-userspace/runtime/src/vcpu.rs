//! Virtual CPUs made of ordinary functions.

use abi::cap::{NULL, Selector};
use abi::hypercall::Status;
use abi::vcpu::{EXITS, Exit, Groups, Segment, TableRegister, VcpuState};

use crate::ec::Ec;
use crate::handler::Handler;
use crate::pd::Pd;
use crate::sc::Sc;
use crate::space::{GuestSpace, MsrSpace, PortSpace};
use crate::task::{self, Defaults, defaults};
use crate::{hypercall, selector, stack};

/// A virtual CPU in the making: a handler, and a portal for each exit.
///
/// Every exit needs a function, by [`Self::on`] or [`Self::otherwise`]; the kernel ends a virtual
/// CPU whose exit nobody takes.
#[derive(Debug)]
pub struct VcpuBuilder<S> {
    handler: Handler<S>,
    portals: Selector,
    memory: GuestSpace,
    msrs: Selector,
    ports: Selector,
    taken: u32,
    error: Option<Status>,
}

impl<S: Send + 'static> VcpuBuilder<S> {
    /// A virtual CPU whose guest sees `memory`, and whose exits work on `state`.
    ///
    /// # Errors
    /// As for [`Handler::new`].
    pub fn new(memory: GuestSpace, state: S) -> Result<Self, Status> {
        Self::with_handler(memory, Handler::new(state)?)
    }

    /// The same on the CPU of `defaults`: an exit is a message, which stays on its CPU.
    ///
    /// # Errors
    /// As for [`Handler::with`].
    pub fn on_cpu(memory: GuestSpace, state: S, defaults: Defaults) -> Result<Self, Status> {
        Self::with_handler(memory, Handler::with(defaults, stack::DEFAULT_SIZE, state)?)
    }

    /// The same with a handler that exists already, on the CPU of that.
    ///
    /// # Errors
    /// [`Status::BadCap`] when no selectors are left.
    pub fn with_handler(memory: GuestSpace, handler: Handler<S>) -> Result<Self, Status> {
        Ok(Self::at(memory, handler, selector::FREE.range(EXITS)?))
    }

    /// The same with its portals from `portals` on: [`EXITS`] free selectors.
    #[must_use]
    pub const fn at(memory: GuestSpace, handler: Handler<S>, portals: Selector) -> Self {
        Self { handler, portals, memory, msrs: NULL, ports: NULL, taken: 0, error: None }
    }

    /// Lets the guest use the registers in `msrs` without an exit.
    #[must_use]
    pub fn msrs(self, msrs: MsrSpace) -> Self {
        Self { msrs: msrs.selector(), ..self }
    }

    /// Lets the guest use the ports in `ports` without an exit.
    #[must_use]
    pub fn ports(self, ports: PortSpace) -> Self {
        Self { ports: ports.selector(), ..self }
    }

    /// On `exit`, `serve` is called with the state and with the groups `groups` of the virtual
    /// CPU. It returns the groups that it changed.
    #[must_use]
    pub fn on<F>(self, exit: Exit, groups: Groups, serve: F) -> Self
    where
        F: Fn(&mut S, &mut VcpuState) -> Groups + Copy + Send + 'static,
    {
        self.on_event(exit, groups, move |state: &mut S, vcpu: &mut VcpuState, _, _| {
            serve(state, vcpu)
        })
    }

    /// Every exit that has no function yet calls `serve`.
    #[must_use]
    pub fn otherwise<F>(mut self, groups: Groups, serve: F) -> Self
    where
        F: Fn(&mut S, &mut VcpuState, Exit) -> Groups + Copy + Send + 'static,
    {
        for exit in Exit::ALL {
            if self.taken & 1 << exit as u32 == 0 {
                self = self.on_event(
                    exit,
                    groups,
                    move |state: &mut S, vcpu: &mut VcpuState, id, _| {
                        serve(state, vcpu, exit_from(id))
                    },
                );
            }
        }
        self
    }

    /// As [`Self::on`], for a function that also takes the exit's number and the groups that were delivered: those can be
    /// changed with [`crate::pt::Pt::change`].
    #[must_use]
    pub fn on_event<F>(mut self, exit: Exit, groups: Groups, serve: F) -> Self
    where
        F: Fn(&mut S, &mut VcpuState, u64, u64) -> Groups + Copy + Send + 'static,
    {
        self.taken |= 1 << exit as u32;
        let selector = self.portals + exit as u32;
        let portal = self.handler.portal_at(selector, exit as u64, groups.0, serve);
        self.error = self.error.or(portal.err());
        self
    }

    /// Makes the virtual CPU. It runs when it gets a scheduling context. The first one of a task
    /// goes where the root task looks whether exits are answered.
    ///
    /// # Errors
    /// What went wrong first on the way here.
    pub fn create(self) -> Result<Ec, Status> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let at = (self.handler.cpu(), self.portals);
        let spaces = (self.memory.selector(), self.msrs, self.ports);
        let new = task::VCPU.take()?;
        hypercall::create_vcpu(new, Pd::OWN.selector(), at, spaces)?;
        Ok(Ec::at(new))
    }

    /// Makes the virtual CPU and lets it run with the task's own share of the CPU.
    ///
    /// # Errors
    /// What went wrong first on the way here.
    pub fn run(self) -> Result<Ec, Status> {
        let vcpu = self.create()?;
        Sc::create(Pd::OWN, vcpu, defaults().share)?;
        Ok(vcpu)
    }
}

fn exit_from(id: u64) -> Exit {
    Exit::ALL.into_iter().find(|exit| *exit as u64 == id).unwrap_or(Exit::Other)
}

/// Puts a virtual CPU into real mode at `cs:ip` = 0:`ip`, with all segments at 0 and everything
/// else as after a reset (SDM 3A 10.1.1). Returns the groups this changes.
pub fn real_mode_state(state: &mut VcpuState, ip: u16) -> Groups {
    let data = Segment { selector: 0, attr: 0x93, limit: 0xffff, base: 0 };
    let table = TableRegister { base: 0, limit: 0xffff };
    *state = VcpuState {
        rip: ip.into(),
        rflags: 2,
        cr0: 0x10,
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        pat: 0x0007_0406_0007_0406,
        cs: Segment { attr: 0x9b, ..data },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        tr: Segment { attr: 0x8b, ..data },
        ldtr: Segment { attr: 0x82, ..data },
        gdtr: table,
        idtr: TableRegister { base: 0, limit: 0x3ff },
        deadline: u64::MAX,
        xcr0: 1,
        ..VcpuState::default()
    };
    Groups::ALL
}
