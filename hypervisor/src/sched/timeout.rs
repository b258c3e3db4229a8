//! Timeouts: what must happen at an absolute time-stamp-counter value.
//!
//! The timeouts of a CPU are a heap, linked through the objects that own them, so that arming and
//! disarming take bounded time however many there are. The hardware timer is programmed for the first one
//! or for the end of the running budget, whichever comes first.

use hypervisor_logic::sched::{self, Links, Node};

use crate::object::Ref;
use crate::object::ec::Ec;
use crate::object::sc::Sc;
use crate::sync::Guarded;

/// Whose timeout it is.
#[derive(Clone, Copy)]
pub enum Owner {
    /// A thread waiting for a semaphore, or a virtual CPU's deadline.
    Ec(Ref<Ec>),
    /// A scheduling context waiting for its budget.
    Sc(Ref<Sc>),
}

/// A timeout inside its owner.
pub struct Timeout {
    links: Links<Ref<Self>>,
    /// Since it was armed for the first time.
    owner: Guarded<Option<Owner>>,
}

impl Timeout {
    /// Not armed.
    pub const fn new() -> Self {
        Self { links: Links::new(), owner: Guarded::new(None) }
    }
}

impl Node for Ref<Timeout> {
    #[inline(always)]
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

/// The timeouts of a CPU. Only what is bound to that CPU is armed here, and it must be disarmed before it
/// is bound to another or destroyed.
pub struct Timeouts {
    heap: sched::Timeouts<Ref<Timeout>>,
}

impl Timeouts {
    /// None.
    pub const fn new() -> Self {
        Self { heap: sched::Timeouts::new() }
    }

    /// The earliest deadline.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.heap.next()
    }

    /// Arms `timeout`, which must belong to `owner`; [`u64::MAX`] disarms. Returns whether the earliest deadline may have changed.
    pub fn arm(&self, timeout: &Timeout, owner: Owner, deadline: u64) -> bool {
        if deadline == u64::MAX {
            return self.disarm(timeout);
        }
        timeout.owner.set(Some(owner));
        self.heap.arm(Ref::of(timeout), deadline)
    }

    /// Disarms `timeout`. Returns whether it was the first.
    #[inline(always)]
    pub fn disarm(&self, timeout: &Timeout) -> bool {
        self.heap.disarm(Ref::of(timeout))
    }

    /// Disarms `timeout`, and tells its deadline if it was armed.
    pub fn take_out(&self, timeout: &Timeout) -> Option<u64> {
        let deadline = timeout.links.armed();
        self.disarm(timeout);
        deadline
    }

    /// Takes out the first one if its time has come.
    pub fn expired(&self, now: u64) -> Option<Owner> {
        self.heap.expired(now)?.owner.get()
    }
}
