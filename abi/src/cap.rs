//! Capabilities: what a selector can name and what its holder may do.

/// An index into an object space.
pub type Selector = u32;

/// Number of selectors in an object space; larger ones are never valid.
pub const SELECTORS: u32 = 1 << 16;

/// The selector that never holds a capability: "none" where an argument is optional.
pub const NULL: Selector = 0;

/// The selectors that every task finds filled when its first thread starts. Whoever creates a
/// protection domain with [`crate::hypercall::Number::CreatePd`] and its spaces puts them there;
/// for the root task the kernel does.
pub mod own {
    use super::Selector;
    /// The task's protection domain.
    pub const PD: Selector = 1;
    /// The task's object space.
    pub const OBJECTS: Selector = 2;
    /// The task's host memory space.
    pub const MEMORY: Selector = 3;
    /// The first selector that is free in every task.
    pub const FREE: Selector = 16;
}

/// Further selectors that only the root task is born with.
pub mod root {
    use super::Selector;
    /// The memory space of all physical addresses that the kernel does not keep: page `n` of it is
    /// frame `n`. A source of grants only.
    pub const PHYSICAL: Selector = 4;
    /// A port space that holds every port.
    pub const PORTS: Selector = 5;
    /// A model-specific-register space that holds every register a guest may ever be given.
    pub const MSRS: Selector = 6;
    /// The root task's first thread.
    pub const EC: Selector = 7;
    /// That thread's scheduling context.
    pub const SC: Selector = 8;
    /// Interrupt semaphores: global system interrupt `n` is at `INTERRUPTS + n`.
    pub const INTERRUPTS: Selector = 0x100;
    /// Selectors from here on are free in the root task.
    pub const FREE: Selector = 0x400;
}

/// What kind of object a capability refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectType {
    /// Protection domain.
    Pd = 1,
    /// Execution context: a thread or a virtual CPU.
    Ec = 2,
    /// Scheduling context.
    Sc = 3,
    /// Portal.
    Pt = 4,
    /// Semaphore.
    Sm = 5,
    /// A space of any [`SpaceKind`].
    Space = 6,
}

/// The kinds of spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpaceKind {
    /// Capabilities, by selector.
    Object = 0,
    /// Ring-3 memory, by virtual page.
    Host = 1,
    /// Guest-physical memory, by page.
    Guest = 2,
    /// I/O ports, by port.
    Port = 3,
    /// Model-specific registers, by register index.
    Msr = 4,
    /// All physical memory, by frame. There is one, made by the kernel, and it is only a source.
    Physical = 5,
}

impl SpaceKind {
    /// The kind that [`crate::hypercall::Number::CreateSpace`] makes for `value`, if there is one.
    #[must_use]
    pub const fn from_abi(value: u64) -> Option<Self> {
        Some(match value {
            0 => Self::Object,
            1 => Self::Host,
            2 => Self::Guest,
            3 => Self::Port,
            4 => Self::Msr,
            _ => return None,
        })
    }
}

/// What the holder of a capability may do with the object: eight bits, whose meaning depends on
/// the object's type. A capability can be copied with fewer of them, never with more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Perms(pub u8);

impl Perms {
    /// Everything.
    pub const ALL: Self = Self(0xff);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Any object: destroy it.
    pub const DESTROY: Self = Self(1 << 7);

    /// Pd: create objects that this domain pays for.
    pub const PD_CREATE: Self = Self(1 << 0);
    /// Pd: move kernel memory between this domain's quota and a child's.
    pub const PD_QUOTA: Self = Self(1 << 1);

    /// Ec: recall it, look at it, stop it, read and write its state.
    pub const EC_CTRL: Self = Self(1 << 0);
    /// Ec: bind a scheduling context to it.
    pub const EC_BIND_SC: Self = Self(1 << 1);
    /// Ec: bind portals to it.
    pub const EC_BIND_PT: Self = Self(1 << 2);

    /// Sc: read the time it has consumed.
    pub const SC_CTRL: Self = Self(1 << 0);

    /// Pt: call it.
    pub const PT_CALL: Self = Self(1 << 0);
    /// Pt: let it receive exceptions and VM exits.
    pub const PT_EVENT: Self = Self(1 << 1);
    /// Pt: change its identifier and its groups.
    pub const PT_CTRL: Self = Self(1 << 2);

    /// Sm: up.
    pub const SM_UP: Self = Self(1 << 0);
    /// Sm: down.
    pub const SM_DOWN: Self = Self(1 << 1);
    /// Sm: bind the interrupt behind it.
    pub const SM_BIND: Self = Self(1 << 2);

    /// Space: be the source of a grant.
    pub const SPACE_TAKE: Self = Self(1 << 0);
    /// Space: be the destination of a grant.
    pub const SPACE_GRANT: Self = Self(1 << 1);
    /// Space: revoke from it.
    pub const SPACE_REVOKE: Self = Self(1 << 2);
    /// Space: attach it to a virtual CPU.
    pub const SPACE_ASSIGN: Self = Self(1 << 3);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Access rights and memory attributes of a grant between memory spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct MemRights(pub u32);

impl MemRights {
    /// Read.
    pub const R: Self = Self(1 << 0);
    /// Write.
    pub const W: Self = Self(1 << 1);
    /// Execute.
    pub const X: Self = Self(1 << 2);
    /// Read and write.
    pub const RW: Self = Self(0b011);
    /// Read and execute.
    pub const RX: Self = Self(0b101);
    /// Read, write and execute.
    pub const RWX: Self = Self(0b111);
    /// Uncached, for device registers. Only a grant from the physical space may choose it; every
    /// other grant passes on the source's attribute.
    pub const UNCACHED: Self = Self(1 << 8);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no access at all is allowed.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 & 0b111 == 0
    }
}
