//! Portals: entry points of handlers.

use abi::cap::ObjectType;

use super::ec::Ec;
use super::pd::Pd;
use super::{Header, Object, Ref};
use crate::arch::StateMover;
use crate::sync::Local;

/// A portal.
#[repr(C)]
pub struct Pt {
    header: Header,
    /// Who serves it.
    pub handler: Ref<Ec>,
    /// Where the handler starts.
    pub ip: u64,
    /// What the handler is told.
    pub id: Local<u64>,
    /// The groups of state it wants with an event.
    pub groups: Local<u64>,
    /// The code that moves just those groups of a virtual CPU.
    pub mover: Local<StateMover>,
    pd: Ref<Pd>,
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Pt {
    const TYPE: ObjectType = ObjectType::Pt;
}

impl Pt {
    /// A portal to `handler`, paid for by `pd`.
    pub fn new(pd: Ref<Pd>, handler: Ref<Ec>, ip: u64, id: u64, groups: u64) -> Self {
        Self {
            header: Header::new(ObjectType::Pt),
            handler,
            ip,
            id: Local::new(id),
            groups: Local::new(groups),
            mover: Local::new(crate::arch::mover(groups)),
            pd,
        }
    }

    /// Changes what the handler is told and given.
    pub fn configure(&self, id: u64, groups: u64) {
        self.id.set(id);
        self.groups.set(groups);
        self.mover.set(crate::arch::mover(groups));
    }

    /// The last capability is gone.
    ///
    /// # Safety
    /// Nothing refers to the portal but callers that wait to retry, which look it up again.
    pub unsafe fn end(this: Ref<Self>) {
        let pd = this.pd;
        // SAFETY: by the caller's word.
        unsafe { this.destroy(&pd) };
    }
}
