//! The ready queue: a bitmap of priorities over lists of equals.

use abi::hypercall::PRIORITIES;
use hypervisor_logic::sched::PriorityBitmap;

use crate::object::Ref;
use crate::object::sc::Sc;
use crate::sync::Local;

/// Scheduling contexts that could run.
pub struct ReadyQueue {
    bitmap: Local<PriorityBitmap>,
    lists: [Local<Option<Ends>>; PRIORITIES],
}

#[derive(Clone, Copy)]
struct Ends {
    first: Ref<Sc>,
    last: Ref<Sc>,
}

impl ReadyQueue {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            bitmap: Local::new(PriorityBitmap::new()),
            lists: [const { Local::new(None) }; PRIORITIES],
        }
    }

    /// The highest priority in the queue.
    #[inline(always)]
    pub fn highest(&self) -> Option<u8> {
        self.bitmap.get().highest()
    }

    #[inline(always)]
    fn list(&self, priority: u8) -> Option<&Local<Option<Ends>>> {
        self.lists.get(usize::from(priority))
    }

    #[inline(always)]
    fn mark(&self, priority: u8, present: bool) {
        let mut bitmap = self.bitmap.get();
        if present {
            bitmap.set(priority);
        } else {
            bitmap.clear(priority);
        }
        self.bitmap.set(bitmap);
    }

    /// Behind its equals.
    #[inline(always)]
    pub fn push_back(&self, sc: Ref<Sc>) {
        let Some(list) = self.list(sc.priority) else { return };
        sc.next.set(None);
        match list.get() {
            None => {
                list.set(Some(Ends { first: sc, last: sc }));
                self.mark(sc.priority, true);
            }
            Some(ends) => {
                ends.last.next.set(Some(sc));
                list.set(Some(Ends { last: sc, ..ends }));
            }
        }
    }

    /// Before its equals: it was preempted and has time left.
    #[inline(always)]
    pub fn push_front(&self, sc: Ref<Sc>) {
        let Some(list) = self.list(sc.priority) else { return };
        match list.get() {
            None => {
                sc.next.set(None);
                list.set(Some(Ends { first: sc, last: sc }));
                self.mark(sc.priority, true);
            }
            Some(ends) => {
                sc.next.set(Some(ends.first));
                list.set(Some(Ends { first: sc, ..ends }));
            }
        }
    }

    /// The first one of the highest priority.
    #[inline(always)]
    pub fn pop(&self) -> Option<Ref<Sc>> {
        let priority = self.highest()?;
        let list = self.list(priority)?;
        let ends = list.get()?;
        match ends.first.next.replace(None) {
            Some(next) => list.set(Some(Ends { first: next, ..ends })),
            None => {
                list.set(None);
                self.mark(priority, false);
            }
        }
        Some(ends.first)
    }
}
