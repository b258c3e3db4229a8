//! Memory for objects smaller than a page: slabs that belong to one protection domain.
//!
//! A slab page starts with a header and is cut into slots of one size class:
//!
//! ```text
//! page   | Header | slot | slot | ... |
//!          next ──► next partly free page of the class
//! ```
//!
//! Since the pages belong to the domain that pays, one domain can neither use up nor fragment
//! what another has paid for.

use core::ptr::NonNull;

use super::{PAGE, phys, virt};
use crate::object::pd::Account;

/// Slot sizes in bytes.
const CLASSES: [usize; 6] = [64, 128, 256, 512, 1024, 1984];

/// Heads of the lists of partly free pages, by class; 0 = none.
#[derive(Clone, Copy)]
pub struct Slabs {
    partial: [u64; CLASSES.len()],
}

#[repr(C, align(64))]
struct Header {
    next: u64,
    previous: u64,
    free: *mut u8,
    used: u32,
    class: u32,
}

impl Slabs {
    /// No slabs yet.
    pub const fn new() -> Self {
        Self { partial: [0; CLASSES.len()] }
    }

    /// A zeroed slot of at least `size` bytes, aligned to 64 bytes. `None` when the account is exhausted or no
    /// class is large enough.
    pub fn alloc(&mut self, account: &Account, size: usize) -> Option<NonNull<u8>> {
        let class = CLASSES.iter().position(|slot| *slot >= size)?;
        let slot_size = *CLASSES.get(class)?;
        let head = self.partial.get_mut(class)?;
        if *head == 0 {
            *head = Self::new_page(account.take_page()?, class, slot_size);
        }
        let page = *head;
        // SAFETY: pages on the list are slab pages of this domain with a valid header and at least one free slot.
        unsafe {
            let header = &mut *virt(page).cast::<Header>();
            let slot = header.free;
            header.free = slot.cast::<*mut u8>().read();
            header.used += 1;
            if header.free.is_null() {
                *head = header.next;
                if header.next != 0 {
                    (*virt(header.next).cast::<Header>()).previous = 0;
                }
                header.next = 0;
            }
            slot.write_bytes(0, slot_size);
            NonNull::new(slot)
        }
    }

    fn new_page(page: u64, class: usize, slot_size: usize) -> u64 {
        let base = virt(page);
        let mut free = core::ptr::null_mut::<u8>();
        let slots = (PAGE - size_of::<Header>()) / slot_size;
        for slot in (0..slots).rev() {
            // SAFETY: the slot lies inside the page, which is fresh and ours.
            unsafe {
                let at = base.add(size_of::<Header>() + slot * slot_size);
                at.cast::<*mut u8>().write(free);
                free = at;
            }
        }
        // SAFETY: as above.
        unsafe {
            base.cast::<Header>().write(Header {
                next: 0,
                previous: 0,
                free,
                used: 0,
                class: class as u32,
            });
        }
        page
    }

    /// Gives a slot back; an empty page returns to the account.
    ///
    /// # Safety
    /// `slot` came from [`Slabs::alloc`] of this domain and nothing refers to it any more.
    pub unsafe fn free(&mut self, account: &Account, slot: NonNull<u8>) {
        let page = phys(slot.as_ptr()) & !(PAGE as u64 - 1);
        // SAFETY: every slot lies in a page with a header, and the caller vouches for the slot.
        unsafe {
            let header = &mut *virt(page).cast::<Header>();
            let Some(head) = self.partial.get_mut(header.class as usize) else { return };
            let was_full = header.free.is_null();
            slot.cast::<*mut u8>().write(header.free);
            header.free = slot.as_ptr();
            header.used -= 1;
            if was_full {
                header.next = *head;
                header.previous = 0;
                if *head != 0 {
                    (*virt(*head).cast::<Header>()).previous = page;
                }
                *head = page;
            }
            if header.used == 0 {
                if header.previous == 0 {
                    *head = header.next;
                } else {
                    (*virt(header.previous).cast::<Header>()).next = header.next;
                }
                if header.next != 0 {
                    (*virt(header.next).cast::<Header>()).previous = header.previous;
                }
                account.give_page(page);
            }
        }
    }
}
