//! The ready queue: a bitmap of priorities over lists of equals.

use abi::hypercall::PRIORITIES;
use hypervisor_logic::sched::PriorityBitmap;

use crate::list::List;
use crate::object::Ref;
use crate::object::sc::Sc;
use crate::sync::Guarded;

/// Scheduling contexts that could run.
pub struct ReadyQueue {
    /// Priorities whose list may have something in it.
    bitmap: Guarded<PriorityBitmap>,
    lists: [List<Sc>; PRIORITIES],
}

impl ReadyQueue {
    /// Empty.
    pub const fn new() -> Self {
        let lists = [const { List::new() }; PRIORITIES];
        Self { bitmap: Guarded::new(PriorityBitmap::new()), lists }
    }

    /// The list for a context, which is about to be put into it.
    #[inline(always)]
    fn list(&self, sc: Ref<Sc>) -> Option<&List<Sc>> {
        let mut bitmap = self.bitmap.get();
        bitmap.set(sc.priority);
        self.bitmap.set(bitmap);
        self.lists.get(usize::from(sc.priority))
    }

    /// Behind its equals.
    #[inline(always)]
    pub fn push_back(&self, sc: Ref<Sc>) {
        if let Some(list) = self.list(sc) {
            list.push_back(sc);
        }
    }

    /// Before its equals: it was preempted and has time left.
    #[inline(always)]
    pub fn push_front(&self, sc: Ref<Sc>) {
        if let Some(list) = self.list(sc) {
            list.push_front(sc);
        }
    }

    /// The first one of the highest priority.
    #[inline(always)]
    pub fn pop(&self) -> Option<Ref<Sc>> {
        let mut bitmap = self.bitmap.get();
        loop {
            let priority = bitmap.highest()?;
            let list = self.lists.get(usize::from(priority))?;
            let first = list.pop();
            if list.first().is_none() {
                bitmap.clear(priority);
                self.bitmap.set(bitmap);
            }
            if first.is_some() {
                return first;
            }
        }
    }
}
