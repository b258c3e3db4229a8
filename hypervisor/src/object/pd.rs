//! Protection domains: who pays, and what its threads can name and reach.

use core::ptr::NonNull;

use abi::cap::{ObjectType, Selector};
use abi::hypercall::Status;
use hypervisor_logic::objects::{Cap, ObjectTable};
use hypervisor_logic::quota::Quota;

use super::space::Space;
use super::{Header, Object, Ref};
use crate::list::List;
use crate::mem::pool;
use crate::mem::slab::Slabs;
use crate::mem::tables::{Kernel, Tables};
use crate::sync::Guarded;

/// A protection domain.
#[repr(C)]
pub struct Pd {
    header: Header,
    /// The kernel memory it has.
    pub account: Account,
    /// Page-table root of its host space, 0 before that is made.
    pub cr3: Guarded<u64>,
    /// Root page of its object table, 0 before that is made.
    pub table: Guarded<u64>,
    /// Its host space.
    pub host: Guarded<Option<Ref<Space>>>,
    /// Its port space.
    pub ports: Guarded<Option<Ref<Space>>>,
    /// What it pays for, the newest first.
    pub objects: List<Header>,
    /// Domains above it.
    pub depth: u8,
    /// Highest priority of the scheduling contexts it pays for.
    pub max_priority: u8,
    /// CPUs that its contexts, and the time it pays for, can be on: bit n is CPU n.
    pub cpus: u64,
}

// SAFETY: `repr(C)`, and the header comes first.
unsafe impl Object for Pd {
    const TYPE: ObjectType = ObjectType::Pd;
}

impl Pd {
    /// A domain below `depth` others, with `pages` of kernel memory and no spaces, that gives priorities up to `max_priority` on
    /// `cpus`.
    pub fn new(depth: u8, pages: u64, max_priority: u8, cpus: u64) -> Self {
        Self {
            header: Header::new(ObjectType::Pd),
            account: Account {
                quota: Guarded::new(Quota::new(pages)),
                slabs: Guarded::new(Slabs::new()),
            },
            cr3: Guarded::new(0),
            table: Guarded::new(0),
            host: Guarded::new(None),
            ports: Guarded::new(None),
            objects: List::new(),
            depth,
            max_priority,
            cpus,
        }
    }

    /// Whether its contexts, and the time it pays for, can be on a CPU.
    pub fn may_use(&self, cpu: u32) -> bool {
        self.cpus.checked_shr(cpu).is_some_and(|from| from & 1 != 0)
    }

    /// The domain that it was made below.
    pub fn parent(&self) -> Option<Ref<Self>> {
        self.header.payer.get()
    }

    /// Whether the domain has an object space.
    pub fn has_objects(&self) -> bool {
        self.table.get() != 0
    }

    /// The domain's object space.
    pub fn object_table(&self) -> Option<ObjectTable> {
        self.has_objects().then(|| ObjectTable::from_root(self.table.get()))
    }

    /// The capability at a selector; one that matches nothing if there is none.
    #[inline(always)]
    pub fn capability(&self, selector: Selector) -> Cap {
        // Every domain has an object space before its first thread exists.
        ObjectTable::from_root(self.table.get()).get(&Kernel, selector)
    }

    /// Puts a capability into the domain's object space.
    pub fn insert(&self, selector: Selector, cap: Cap) -> Result<(), Status> {
        let mut table = self.object_table().ok_or(Status::BadCap)?;
        insert(&mut table, &self.account, selector, cap)
    }
}

/// Puts a capability into a table whose leaves `account` pays for, and into the list of its object's.
pub fn insert(
    table: &mut ObjectTable,
    account: &Account,
    selector: Selector,
    cap: Cap,
) -> Result<(), Status> {
    if selector == abi::cap::NULL {
        return Err(Status::BadCap);
    }
    // SAFETY: a capability that is in a table or about to be put into one names a live object.
    let header = unsafe { Ref::<Header>::from_address(cap.object) };
    let inserted = table.insert(&mut Tables(account), selector, cap, header.slots.get());
    header.slots.set(inserted?);
    Ok(())
}

/// The kernel memory of a domain: a quota of pages, and slabs cut from them.
pub struct Account {
    quota: Guarded<Quota>,
    slabs: Guarded<Slabs>,
}

impl Account {
    #[allow(clippy::mut_from_ref)]
    fn quota(&self) -> &mut Quota {
        // SAFETY: whoever is here holds the lock, and the reference does not outlive the one-line uses below.
        unsafe { &mut *self.quota.as_ptr() }
    }

    /// A zeroed page: its physical address.
    pub fn take_page(&self) -> Option<u64> {
        self.take_block(0)
    }

    /// Returns a page.
    ///
    /// # Safety
    /// The page came from [`Account::take_page`] of the same account and nothing refers to it any more.
    pub unsafe fn give_page(&self, page: u64) {
        // SAFETY: passed on to the caller.
        unsafe { self.give_block(page, 0) };
    }

    /// Returns a page of tables as soon as no processor can walk through it.
    ///
    /// # Safety
    /// As for [`pool::retire`]; the page came from this account.
    pub unsafe fn retire_page(&self, page: u64) {
        // SAFETY: passed on to the caller.
        unsafe { pool::retire(page) };
        self.quota().give(1);
    }

    /// `1 << order` zeroed pages in one piece, aligned to its size: their physical address. `order` is at most 2.
    pub fn take_block(&self, order: u32) -> Option<u64> {
        let pages = 1_u64.checked_shl(order)?;
        self.quota().take(pages).ok()?;
        let block = pool::alloc_block(order);
        if block.is_none() {
            self.quota().give(pages);
        }
        block
    }

    /// Returns a block.
    ///
    /// # Safety
    /// The block came from [`Account::take_block`] of the same account with the same `order` and nothing refers to it any
    /// more.
    pub unsafe fn give_block(&self, block: u64, order: u32) {
        // SAFETY: passed on to the caller.
        unsafe { pool::free_block(block, order) };
        self.quota().give(1 << order);
    }

    /// A zeroed slot of at least `size` bytes.
    pub fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.quota().take(0).ok()?;
        // SAFETY: the lock is held, and `Slabs` only calls back for pages.
        unsafe { (*self.slabs.as_ptr()).alloc(self, size) }
    }

    /// Returns a slot.
    ///
    /// # Safety
    /// The slot came from [`Account::alloc`] of the same account and nothing refers to it any more.
    pub unsafe fn free(&self, slot: NonNull<u8>) {
        // SAFETY: as in `alloc`; the rest is passed on to the caller.
        unsafe { (*self.slabs.as_ptr()).free(self, slot) };
    }

    /// Lets nobody take anything any more.
    pub fn close(&self) {
        self.quota().close();
    }

    /// Free pages and limit.
    pub fn level(&self) -> (u64, u64) {
        (self.quota().free(), self.quota().limit())
    }

    /// Moves free pages to another account.
    pub fn transfer(&self, to: &Self, pages: u64) -> Result<(), Status> {
        if core::ptr::eq(self, to) {
            return Ok(());
        }
        Quota::transfer(self.quota(), to.quota(), pages)
    }
}
