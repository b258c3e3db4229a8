//! Timeouts: what must happen at an absolute time-stamp-counter value.
//!
//! The timeouts of a CPU are a list sorted by deadline, linked through the objects that own them. The
//! hardware timer is programmed for the first one or for the end of the running budget, whichever comes first.

use crate::object::Ref;
use crate::object::ec::Ec;
use crate::object::sc::Sc;
use crate::sync::Local;

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
    state: Local<Option<Armed>>,
}

#[derive(Clone, Copy)]
struct Armed {
    deadline: u64,
    owner: Owner,
    next: Option<Ref<Timeout>>,
    previous: Option<Ref<Timeout>>,
}

/// The timeouts of a CPU.
pub struct Timeouts {
    first: Local<Option<Ref<Timeout>>>,
}

impl Timeout {
    /// Not armed.
    pub const fn new() -> Self {
        Self { state: Local::new(None) }
    }

    fn update(&self, change: impl FnOnce(&mut Armed)) {
        if let Some(mut armed) = self.state.get() {
            change(&mut armed);
            self.state.set(Some(armed));
        }
    }
}

impl Timeouts {
    /// None.
    pub const fn new() -> Self {
        Self { first: Local::new(None) }
    }

    /// The earliest deadline.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        match self.first.get().and_then(|timeout| timeout.state.get()) {
            Some(armed) => armed.deadline,
            None => u64::MAX,
        }
    }

    /// Arms `timeout`, which must belong to `owner`; [`u64::MAX`] disarms. Returns whether the earliest deadline may have changed.
    pub fn arm(&self, timeout: &Timeout, owner: Owner, deadline: u64) -> bool {
        let was_first = self.disarm(timeout);
        if deadline == u64::MAX {
            return was_first;
        }
        let node = Ref::of(timeout);
        let mut previous = None;
        let mut next = self.first.get();
        while let Some(candidate) = next {
            let Some(armed) = candidate.state.get() else { break };
            if armed.deadline > deadline {
                break;
            }
            previous = next;
            next = armed.next;
        }
        timeout.state.set(Some(Armed { deadline, owner, next, previous }));
        if let Some(next) = next {
            next.update(|armed| armed.previous = Some(node));
        }
        match previous {
            Some(previous) => previous.update(|armed| armed.next = Some(node)),
            None => self.first.set(Some(node)),
        }
        was_first || previous.is_none()
    }

    /// Disarms `timeout`. Returns whether it was the first.
    #[inline(always)]
    pub fn disarm(&self, timeout: &Timeout) -> bool {
        match timeout.state.get() {
            Some(armed) => self.unlink(timeout, armed),
            None => false,
        }
    }

    fn unlink(&self, timeout: &Timeout, armed: Armed) -> bool {
        timeout.state.set(None);
        if let Some(next) = armed.next {
            next.update(|other| other.previous = armed.previous);
        }
        match armed.previous {
            Some(previous) => {
                previous.update(|other| other.next = armed.next);
                false
            }
            None => {
                self.first.set(armed.next);
                true
            }
        }
    }

    /// Takes out the first one if its time has come.
    pub fn expired(&self, now: u64) -> Option<Owner> {
        let first = self.first.get()?;
        let armed = first.state.get()?;
        if armed.deadline > now {
            return None;
        }
        self.disarm(&first);
        Some(armed.owner)
    }
}
