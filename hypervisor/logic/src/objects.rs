//! Capability tables.
//!
//! ```text
//! root page: 512 words, each 0 or the address of a leaf page
//! leaf page: 128 slots of four words: object, meta, next slot, previous slot
//! ```
//!
//! The slots that hold capabilities to the same object are a list, wherever they are, which begins in the object: so
//! an object that ends takes its capabilities with it. Who gave them to whom is not known.

use crate::frames::{Frames, WORDS};
use abi::cap::{NULL, ObjectType, Perms, SELECTORS, Selector};
use abi::hypercall::Status;

/// Capabilities in a leaf page.
const PER_LEAF: u32 = (WORDS / SLOT) as u32;
/// Words of a slot.
const SLOT: usize = 4;
/// Words in it.
const META: usize = 1;
const NEXT: usize = 2;
const PREVIOUS: usize = 3;

const _: () = assert!(SELECTORS as usize == WORDS * PER_LEAF as usize);

/// A reference to a kernel object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// The object's kernel address; 0 in a capability that is none.
    pub object: u64,
    /// Bits 0-7 are the [`Perms`], bits 8-15 the [`ObjectType`].
    pub meta: u64,
}

impl Cap {
    /// No capability.
    pub const EMPTY: Self = Self { object: 0, meta: 0 };

    /// A capability for the object at kernel address `object`, which is not 0.
    pub const fn new(object: u64, ty: ObjectType, perms: Perms) -> Self {
        Self { object, meta: (ty as u64) << 8 | perms.0 as u64 }
    }

    /// Whether it is one at all.
    pub const fn is_empty(self) -> bool {
        self.object == 0
    }

    /// What its holder may do.
    pub const fn perms(self) -> Perms {
        Perms(self.meta as u8)
    }

    /// The same with no more than `perms`.
    pub const fn with(self, perms: Perms) -> Self {
        Self { object: self.object, meta: self.meta & (!0xff | perms.0 as u64) }
    }
}

/// Whether a capability with that `meta` is of type `ty` and has all of `need`. An empty one never
/// is.
#[inline(always)]
pub const fn matches(meta: u64, ty: ObjectType, need: Perms) -> bool {
    let need = need.0 as u64;
    meta & (0xff00 | need) == (ty as u64) << 8 | need
}

/// A step of going through a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first capability, if one was found in this step, and its slot.
    pub cap: Option<(Cap, u64)>,
    /// Where to go on; at or above the limit when there is nothing left.
    pub next: Selector,
}

/// A capability table, known by its root page.
#[derive(Debug)]
pub struct ObjectTable {
    /// Physical address of the root page.
    pub root: u64,
}

#[inline(always)]
const fn root_index(sel: Selector) -> usize {
    (sel / PER_LEAF) as usize
}

#[inline(always)]
const fn leaf_index(sel: Selector) -> usize {
    (sel % PER_LEAF) as usize * SLOT
}

/// The physical address of a slot; 0 for none.
type Slot = u64;

fn read(frames: &impl Frames, slot: Slot, word: usize) -> u64 {
    frames.read(slot & !0xfff, (slot as usize & 0xfff) / 8 + word)
}

fn write(frames: &mut impl Frames, slot: Slot, word: usize, value: u64) {
    frames.write(slot & !0xfff, (slot as usize & 0xfff) / 8 + word, value);
}

/// The slot behind one in the list of its object's; 0: it is the last.
pub fn next(frames: &impl Frames, slot: u64) -> u64 {
    read(frames, slot, NEXT)
}

/// Empties a slot of the list that begins with `head`. Returns where the list begins now.
pub fn clear(frames: &mut impl Frames, head: u64, slot: u64) -> u64 {
    let (next, previous) = (read(frames, slot, NEXT), read(frames, slot, PREVIOUS));
    // A reader on another processor that still sees the object sees no rights.
    write(frames, slot, META, 0);
    write(frames, slot, 0, 0);
    if next != 0 {
        write(frames, next, PREVIOUS, previous);
    }
    if previous == 0 {
        return next;
    }
    write(frames, previous, NEXT, next);
    head
}

impl ObjectTable {
    /// An empty table; `None` if there is no page for its root.
    pub fn new(frames: &mut impl Frames) -> Option<Self> {
        frames.alloc().map(|root| Self { root })
    }

    /// The table with that root page.
    #[inline(always)]
    pub const fn from_root(root: u64) -> Self {
        Self { root }
    }

    /// The capability at `sel`; [`Cap::EMPTY`] if there is none or there is no such selector.
    #[inline(always)]
    pub fn get(&self, frames: &impl Frames, sel: Selector) -> Cap {
        if sel >= SELECTORS {
            return Cap::EMPTY;
        }
        let leaf = frames.read(self.root, root_index(sel));
        if leaf == 0 {
            return Cap::EMPTY;
        }
        let index = leaf_index(sel);
        Cap { object: frames.read(leaf, index), meta: frames.read(leaf, index + 1) }
    }

    /// Puts a capability at an empty selector, in front of the list of its object's, which begins with `head`. Returns where that
    /// begins now.
    ///
    /// # Errors
    /// [`Status::BadCap`]: the selector is [`NULL`] or too large, or the capability is empty.
    /// [`Status::Occupied`]: there is a capability already. [`Status::Quota`]: no page is left for a
    /// leaf. The table's capabilities are as before.
    pub fn insert(
        &mut self,
        frames: &mut impl Frames,
        sel: Selector,
        cap: Cap,
        head: u64,
    ) -> Result<u64, Status> {
        if sel == NULL || sel >= SELECTORS || cap.is_empty() {
            return Err(Status::BadCap);
        }
        let mut leaf = frames.read(self.root, root_index(sel));
        if leaf == 0 {
            leaf = frames.alloc().ok_or(Status::Quota)?;
            frames.write(self.root, root_index(sel), leaf);
        }
        let slot = leaf + 8 * leaf_index(sel) as u64;
        if read(frames, slot, 0) != 0 {
            return Err(Status::Occupied);
        }
        write(frames, slot, NEXT, head);
        write(frames, slot, PREVIOUS, 0);
        if head != 0 {
            write(frames, head, PREVIOUS, slot);
        }
        // A reader on another processor that sees the object sees its rights as well.
        write(frames, slot, META, cap.meta);
        write(frames, slot, 0, cap.object);
        Ok(slot)
    }

    /// Finds the first capability from `from` on and below `limit`, in at most about 512 steps.
    pub fn find_next(&self, frames: &impl Frames, from: Selector, limit: Selector) -> Found {
        let limit = limit.min(SELECTORS);
        let mut at = from;
        for _ in 0..WORDS {
            if at >= limit {
                break;
            }
            let leaf = frames.read(self.root, root_index(at));
            if leaf == 0 {
                at = (at / PER_LEAF).wrapping_add(1).wrapping_mul(PER_LEAF);
                continue;
            }
            let next = at.wrapping_add(1);
            let (cap, slot) = (self.get(frames, at), leaf + 8 * leaf_index(at) as u64);
            if !cap.is_empty() {
                return Found { cap: Some((cap, slot)), next };
            }
            at = next;
        }
        Found { cap: None, next: at }
    }

    /// Frees all pages. The table must be empty: see [`Self::find_next`] and [`clear`].
    pub fn destroy(self, frames: &mut impl Frames) {
        for index in 0..WORDS {
            let leaf = frames.read(self.root, index);
            if leaf != 0 {
                frames.free(leaf);
            }
        }
        frames.free(self.root);
    }
}
