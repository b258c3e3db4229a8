//! Semaphores.

use abi::cap::ObjectType;
use abi::hypercall::Status;

use super::ec::Ec;
use super::pd::Pd;
use super::{Header, Object, Ref};
use crate::sched;
use crate::sync::Local;

/// A semaphore: a counter, or a queue of threads that wait for it to become one.
#[repr(C)]
pub struct Sm {
    header: Header,
    count: Local<u64>,
    /// First and last waiting thread, linked through [`Ec::wait`].
    queue: Local<Option<(Ref<Ec>, Ref<Ec>)>>,
    /// The interrupt behind it.
    pub interrupt: Local<Option<u32>>,
    pd: Ref<Pd>,
}

/// The links of a thread in the queue of a semaphore.
#[derive(Clone, Copy)]
pub struct Wait {
    /// The semaphore it waits for.
    pub sm: Option<Ref<Sm>>,
    next: Option<Ref<Ec>>,
    previous: Option<Ref<Ec>>,
}

impl Wait {
    /// Not waiting.
    pub const NONE: Self = Self { sm: None, next: None, previous: None };
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Sm {
    const TYPE: ObjectType = ObjectType::Sm;
}

impl Sm {
    /// A semaphore with a count, paid for by `pd`.
    pub const fn new(pd: Ref<Pd>, count: u64, interrupt: Option<u32>) -> Self {
        Self {
            header: Header::new(ObjectType::Sm),
            count: Local::new(count),
            queue: Local::new(None),
            interrupt: Local::new(interrupt),
            pd,
        }
    }

    /// Adds one, if nobody waits.
    #[inline(always)]
    pub fn try_up(&self) -> bool {
        let vacant = self.queue.get().is_none();
        if vacant {
            self.count.set(self.count.get().saturating_add(1));
        }
        vacant
    }

    /// Adds one, or wakes the first waiter.
    pub fn up(&self) {
        match self.pop() {
            Some(first) => sched::wake(first, Status::Success),
            None => self.count.set(self.count.get().saturating_add(1)),
        }
    }

    /// Takes the first waiter out of the queue.
    #[inline(always)]
    fn pop(&self) -> Option<Ref<Ec>> {
        let (first, last) = self.queue.get()?;
        let next = first.wait.get().next;
        first.wait.set(Wait::NONE);
        match next {
            Some(next) => {
                next.wait.set(Wait { previous: None, ..next.wait.get() });
                self.queue.set(Some((next, last)));
            }
            None => self.queue.set(None),
        }
        Some(first)
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

    /// Queues a thread.
    pub fn enqueue(&self, ec: Ref<Ec>) {
        let last = self.queue.get().map(|(_, last)| last);
        ec.wait.set(Wait { sm: Some(Ref::of(self)), next: None, previous: last });
        match self.queue.get() {
            None => self.queue.set(Some((ec, ec))),
            Some((first, last)) => {
                last.wait.set(Wait { next: Some(ec), ..last.wait.get() });
                self.queue.set(Some((first, ec)));
            }
        }
    }

    /// Takes a thread out of the queue.
    pub fn unlink(&self, ec: Ref<Ec>) {
        let wait = ec.wait.replace(Wait::NONE);
        let Some((mut first, mut last)) = self.queue.get() else { return };
        match wait.previous {
            Some(previous) => previous.wait.set(Wait { next: wait.next, ..previous.wait.get() }),
            None => match wait.next {
                Some(next) => first = next,
                None => return self.queue.set(None),
            },
        }
        match wait.next {
            Some(next) => next.wait.set(Wait { previous: wait.previous, ..next.wait.get() }),
            None => {
                if let Some(previous) = wait.previous {
                    last = previous;
                }
            }
        }
        self.queue.set(Some((first, last)));
    }

    /// The last capability is gone: whoever waits is told.
    ///
    /// # Safety
    /// Nothing refers to the semaphore but its own queue.
    pub unsafe fn end(this: Ref<Self>) {
        // An interrupt's semaphore stays: the interrupt refers to it.
        if this.interrupt.get().is_some() {
            return;
        }
        while let Some(first) = this.pop() {
            sched::wake(first, Status::Aborted);
        }
        let pd = this.pd;
        // SAFETY: by the caller's word, and the queue is empty.
        unsafe { this.destroy(&pd) };
    }
}
