//! Scheduling contexts: CPU time.

use abi::cap::ObjectType;
use hypervisor_logic::sched::Budget;

use super::ec::Ec;
use super::{Header, Object, Ref};
use crate::list::{Linked, Links};
use crate::sched::timeout::Timeout;
use crate::sync::Guarded;

/// A scheduling context.
#[repr(C)]
pub struct Sc {
    header: Header,
    /// Whom it belongs to. Who runs on it is found by following that one's calls.
    pub ec: Ref<Ec>,
    /// Higher runs first.
    pub priority: u8,
    /// What is left of its time.
    budget: Guarded<Budget>,
    /// Ticks it has consumed since it was made.
    pub consumed: Guarded<u64>,
    /// Its place in the ready queue, or among those parked on a blocked thread.
    links: Links<Self>,
    /// When a used-up budget is filled again.
    pub refill: Timeout,
}

impl Linked for Sc {
    #[inline(always)]
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Sc {
    const TYPE: ObjectType = ObjectType::Sc;
}

impl Sc {
    /// A context for `ec`.
    pub const fn new(ec: Ref<Ec>, priority: u8, budget: Budget) -> Self {
        Self {
            header: Header::new(ObjectType::Sc),
            ec,
            priority,
            budget: Guarded::new(budget),
            consumed: Guarded::new(0),
            links: Links::new(),
            refill: Timeout::new(),
        }
    }

    /// What is left of its time. Whoever changes it must be the kernel path that runs on its CPU.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn budget(&self) -> &mut Budget {
        // SAFETY: the lock is held by this CPU, whose kernel is not re-entered, and the reference is used up in one statement.
        unsafe { &mut *self.budget.as_ptr() }
    }
}
