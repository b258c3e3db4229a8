//! Looking whether a task's virtual CPU gets its answers.

use abi::cap::{NULL, Perms, Selector};
use abi::hypercall::Status;
use root_task::hang::{Finding, Judge, Verdict};
use runtime::clock::now;
use runtime::ec::{Ec, Look};
use runtime::sc::Sc;
use runtime::selector;
use runtime::space::ObjectSpace;

use crate::context::Context;
use crate::task::CAPS;
use crate::watch::End;

/// Nanoseconds from one look to the next.
const INTERVAL: u64 = 1_000_000_000;

/// Watches the virtual CPU of one task.
#[derive(Debug)]
pub struct Watchdog {
    judge: Judge,
    /// When to look next, in nanoseconds.
    next: u64,
    /// Where what is looked at is put for that time: [`NULL`] if there was no selector left.
    scratch: Selector,
}

impl Watchdog {
    /// A watchdog that has seen nothing yet.
    pub fn new() -> Self {
        let scratch = selector::FREE.range(2).unwrap_or(NULL);
        Self { judge: Judge::default(), next: 0, scratch }
    }

    /// Forgets what it saw: the task was started again.
    pub fn restart(&mut self) {
        self.judge = Judge::default();
        self.next = 0;
    }

    /// Looks, if it is time to, and says how the task has ended if it has.
    pub fn look(&mut self, context: &mut Context, objects: ObjectSpace) -> Option<End> {
        let at = context.clock.to_ns(now());
        if at < self.next || self.scratch == NULL {
            return None;
        }
        self.next = at.saturating_add(INTERVAL);
        // Without a virtual CPU there is nothing to look at.
        let (Look { activity, events, state }, consumed) = self.find(context, objects).ok()?;
        let consumed = consumed.map(|ticks| context.clock.to_ns(ticks));
        match self.judge.judge(Finding { at, activity, exits: events, consumed }) {
            Verdict::Healthy => None,
            Verdict::Hangs => Some(End::Hang { exits: events, state }),
            Verdict::Dead => Some(End::Dead),
        }
    }

    /// Looks at the virtual CPU, and how many ticks it has had.
    fn find(
        &self,
        context: &mut Context,
        objects: ObjectSpace,
    ) -> Result<(Look, Option<u64>), Status> {
        let own = ObjectSpace::OWN;
        let (vcpu, time) = (self.scratch, self.scratch + 1);
        // What is not there is not copied, and looking finds nothing.
        objects.grant(CAPS.vcpu, own, vcpu, Perms::EC_CTRL)?;
        let time_given = objects.grant(CAPS.vcpu_time, own, time, Perms::SC_CTRL);
        let look = Ec::at(vcpu).look(context.utcb);
        let consumed = time_given.and_then(|()| Sc::at(time).consumed()).ok();
        own.revoke(self.scratch, 2)?;
        Ok((look?, consumed))
    }
}
