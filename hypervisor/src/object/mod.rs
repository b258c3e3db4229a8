//! The kernel objects.
//!
//! Objects live in memory that a protection domain pays for, and never move. They end when somebody destroys them ([`destroy`]),
//! and with the domain that pays for them; semaphores and portals also with their last capability. Whatever ends leaves
//! the lists that it is in first, and takes along what would lead to it:
//!
//! ```text
//! Pd ──► what it pays for, newest first: so contexts end before the spaces they run in
//! object ──► slots of the capabilities to it
//! Ec ──► its Sc, the portals it serves, the contexts that wait for its answer or for their turn
//! Sm ──► the contexts that wait for it
//! ```

pub mod destroy;
pub mod ec;
pub mod pd;
pub mod pt;
pub mod sc;
pub mod sm;
pub mod space;

use core::ops::Deref;
use core::ptr::NonNull;

use abi::cap::{ObjectType, Perms, Selector};
use abi::hypercall::Status;
use hypervisor_logic::objects::{Cap, matches};

use crate::list::{Linked, Links};
use crate::sync::Guarded;
use pd::Pd;

/// What every object starts with.
#[repr(C)]
pub struct Header {
    /// Slot of the newest capability to it; 0: there is none.
    slots: Guarded<u64>,
    /// What it is.
    pub ty: ObjectType,
    /// Who pays for it: nobody for the first domain and for what belongs to a CPU.
    pub payer: Guarded<Option<Ref<Pd>>>,
    /// Its place among what its payer pays for.
    links: Links<Self>,
}

impl Linked for Header {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

impl Header {
    /// The header of a new object that nothing refers to yet.
    pub const fn new(ty: ObjectType) -> Self {
        Self { slots: Guarded::new(0), ty, payer: Guarded::new(None), links: Links::new() }
    }
}

/// A type of kernel object.
///
/// # Safety
/// The type is `#[repr(C)]` and starts with a [`Header`] whose type is `TYPE`.
pub unsafe trait Object: Sized {
    /// Its type in capabilities.
    const TYPE: ObjectType;
}

/// A pointer to a live object.
pub struct Ref<T>(NonNull<T>);

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// SAFETY: objects are only changed through `Guarded`s, under the lock of the kernel.
unsafe impl<T> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Ref<T> {}

impl<T> Deref for Ref<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: a `Ref` is only made for an object that is live, and an object lives as long as anything refers to it.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Ref<T> {
    /// The object's address, as capabilities hold it.
    pub fn address(self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// As a raw pointer, for the assembly side.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// The object behind an address.
    ///
    /// # Safety
    /// The address is that of a live `T`.
    #[inline(always)]
    pub const unsafe fn from_address(address: u64) -> Self {
        // SAFETY: the address of an object is never null.
        Self(unsafe { NonNull::new_unchecked(address as *mut T) })
    }

    /// A reference as a pointer.
    #[inline(always)]
    pub const fn of(object: &T) -> Self {
        Self(NonNull::from_ref(object))
    }
}

impl<T: Object> Ref<T> {
    /// Puts a new object into memory that `pd` pays for. Hands the object back when there is too little.
    pub fn create(pd: Ref<Pd>, object: T) -> Result<Self, (Status, T)> {
        let Some(memory) = pd.account.alloc(size_of::<T>()) else {
            return Err((Status::Quota, object));
        };
        let memory = memory.cast::<T>();
        // SAFETY: the slot is fresh, large enough, and aligned to 64 bytes, which no object exceeds.
        unsafe { memory.write(object) };
        const { assert!(align_of::<T>() <= 64) };
        let header = Self(memory).header();
        header.payer.set(Some(pd));
        pd.objects.push_front(header);
        Ok(Self(memory))
    }

    /// What it starts with.
    pub const fn header(self) -> Ref<Header> {
        Ref(self.0.cast())
    }

    /// A capability to the object.
    pub fn cap(self, perms: Perms) -> Cap {
        Cap::new(self.address(), T::TYPE, perms)
    }
}

/// The object behind a selector of `pd`, if it is a `T` and the capability has the permissions.
#[inline(always)]
pub fn lookup<T: Object>(pd: &Pd, selector: Selector, need: Perms) -> Result<Ref<T>, Status> {
    let cap = pd.capability(selector);
    if matches(cap.meta, T::TYPE, need) {
        // SAFETY: the capability's type says that it names a `T`, and it is in a table, so the object is live. An empty
        // slot has no type and does not match.
        Ok(unsafe { Ref::from_address(cap.object) })
    } else {
        Err(Status::BadCap)
    }
}
