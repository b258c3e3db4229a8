//! The kernel objects.
//!
//! Objects live in memory that a protection domain pays for, and never move. Capabilities count; a [`Ref`] does not. Semaphores
//! and portals end with their last capability; domains, spaces, execution and scheduling contexts live on, so the links
//! between objects, which all lead to such, hold.

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

use crate::sync::Local;
use pd::Pd;

/// What every object starts with.
#[repr(C)]
pub struct Header {
    refs: Local<u32>,
    ty: ObjectType,
}

impl Header {
    /// The header of a new object that nothing refers to yet.
    pub const fn new(ty: ObjectType) -> Self {
        Self { refs: Local::new(0), ty }
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

// SAFETY: objects are only changed through `Local`s, on the CPU they are bound to.
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
    pub fn create(pd: &Pd, object: T) -> Result<Self, (Status, T)> {
        let Some(memory) = pd.account.alloc(size_of::<T>()) else {
            return Err((Status::Quota, object));
        };
        let memory = memory.cast::<T>();
        // SAFETY: the slot is fresh, large enough, and aligned to 64 bytes, which no object exceeds.
        unsafe { memory.write(object) };
        const { assert!(align_of::<T>() <= 64) };
        Ok(Self(memory))
    }

    /// Gives the memory of an object back that could not be finished or that nothing refers to any more.
    ///
    /// # Safety
    /// Nothing refers to the object, and `pd` paid for it.
    pub unsafe fn destroy(self, pd: &Pd) {
        // SAFETY: the caller vouches that the object is unreachable, and `create` put it into a slot of `pd`.
        unsafe {
            core::ptr::drop_in_place(self.0.as_ptr());
            pd.account.free(self.0.cast());
        }
    }

    /// A capability to the object.
    pub fn cap(self, perms: Perms) -> Cap {
        Cap { object: self.address(), meta: (T::TYPE as u64) << 8 | u64::from(perms.0) }
    }
}

/// Counts one more reference to the object behind a capability.
pub fn retain(cap: Cap) {
    // SAFETY: a capability that is in a table or about to be put into one names a live object.
    let header = unsafe { Ref::<Header>::from_address(cap.object) };
    header.refs.set(header.refs.get().saturating_add(1));
}

/// Counts one reference less. The last one of a semaphore or portal frees it.
pub fn release(cap: Cap) {
    // SAFETY: the capability was in a table until now, so its object is live.
    let header = unsafe { Ref::<Header>::from_address(cap.object) };
    let left = header.refs.get().saturating_sub(1);
    header.refs.set(left);
    if left == 0 {
        // SAFETY: the type in the header is that of the object, and nothing refers to it any more.
        unsafe {
            match header.ty {
                ObjectType::Sm => sm::Sm::end(Ref::from_address(cap.object)),
                ObjectType::Pt => pt::Pt::end(Ref::from_address(cap.object)),
                // Threads, their time and their spaces live on without capabilities: they can still run.
                ObjectType::Pd | ObjectType::Ec | ObjectType::Sc | ObjectType::Space => {}
            }
        }
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
