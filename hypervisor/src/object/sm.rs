//! Semaphores.

use abi::cap::ObjectType;
use abi::hypercall::Status;

use super::ec::Ec;
use super::{Header, Object};
use crate::list::List;
use crate::sched;
use crate::sync::Guarded;

/// A semaphore: a counter, or a queue of threads that wait for it to become one.
#[repr(C)]
pub struct Sm {
    header: Header,
    count: Guarded<u64>,
    /// The threads that wait.
    pub queue: List<Ec>,
    /// The interrupt behind it.
    pub interrupt: Option<u32>,
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Sm {
    const TYPE: ObjectType = ObjectType::Sm;
}

impl Sm {
    /// A semaphore with a count.
    pub const fn new(count: u64, interrupt: Option<u32>) -> Self {
        Self {
            header: Header::new(ObjectType::Sm),
            count: Guarded::new(count),
            queue: List::new(),
            interrupt,
        }
    }

    /// Adds one, if nobody waits.
    #[inline(always)]
    pub fn try_up(&self) -> bool {
        let vacant = self.queue.first().is_none();
        if vacant {
            self.count.set(self.count.get().saturating_add(1));
        }
        vacant
    }

    /// Whether it was upped far more often than anybody has waited for it.
    pub fn is_behind(&self) -> bool {
        const FAR: u64 = 64;
        self.count.get() >= FAR
    }

    /// Adds one, or wakes the first waiter.
    pub fn up(&self) {
        match self.queue.pop() {
            Some(first) => sched::wake(first, Status::Success),
            None => self.count.set(self.count.get().saturating_add(1)),
        }
    }

    /// Takes one, or all, if there is any.
    #[inline]
    pub fn try_down(&self, all: bool) -> bool {
        let count = self.count.get();
        if count == 0 {
            return false;
        }
        self.count.set(if all { 0 } else { count - 1 });
        true
    }
}
