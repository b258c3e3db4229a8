//! Portals: entry points of handlers.

use abi::cap::ObjectType;

use super::ec::{self, Ec};
use super::{Header, Object, Ref};
use crate::arch::StateMover;
use crate::list::{self, Linked, Links};
use crate::sync::Guarded;

/// A portal.
#[repr(C)]
pub struct Pt {
    header: Header,
    /// Who serves it.
    pub handler: Guarded<Ref<Ec>>,
    /// Where the handler starts.
    pub ip: u64,
    /// What the handler is told.
    pub id: Guarded<u64>,
    /// The groups of state it wants with an event.
    pub groups: Guarded<u64>,
    /// The code that moves just those groups of a virtual CPU.
    pub mover: Guarded<StateMover>,
    /// Its place among the portals of its handler.
    links: Links<Self>,
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Pt {
    const TYPE: ObjectType = ObjectType::Pt;
}

impl Pt {
    /// A portal to `handler`.
    pub fn new(handler: Ref<Ec>, ip: u64, id: u64, groups: u64) -> Self {
        Self {
            header: Header::new(ObjectType::Pt),
            handler: Guarded::new(handler),
            ip,
            id: Guarded::new(id),
            groups: Guarded::new(groups),
            mover: Guarded::new(crate::arch::mover(groups)),
            links: Links::new(),
        }
    }

    /// Changes what the handler is told and given.
    pub fn configure(&self, id: u64, groups: u64) {
        self.id.set(id);
        self.groups.set(groups);
        self.mover.set(crate::arch::mover(groups));
    }

    /// Takes it away from its handler: from now on nobody serves it.
    pub fn orphan(this: Ref<Self>) {
        list::leave(this);
        this.handler.set(ec::nobody());
    }
}

impl Linked for Pt {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}
