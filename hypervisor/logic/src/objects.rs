//! Capability tables.
//!
//! ```text
//! root page: 512 words, each 0 or the address of a leaf page
//! leaf page: 256 capabilities of two words: object, meta
//! ```

use crate::frames::{Frames, WORDS};
use abi::cap::{NULL, ObjectType, Perms, SELECTORS, Selector};

/// Capabilities in a leaf page.
const PER_LEAF: u32 = (WORDS / 2) as u32;

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
    #[inline]
    pub const fn new(object: u64, ty: ObjectType, perms: Perms) -> Self {
        Self { object, meta: (ty as u64) << 8 | perms.0 as u64 }
    }

    /// Whether it is one at all.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.object == 0
    }

    /// What its holder may do.
    #[inline]
    pub const fn perms(self) -> Perms {
        Perms(self.meta as u8)
    }

    /// The same with no more than `perms`.
    #[inline]
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

/// Why a capability was not put into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The selector is [`NULL`] or too large, or the capability is empty.
    BadSelector,
    /// There is a capability already.
    Occupied,
    /// No page is left for a leaf.
    NoMemory,
}

/// A step of emptying a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The capability that was removed, if one was found in this step.
    pub cap: Option<(Selector, Cap)>,
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
    (sel % PER_LEAF) as usize * 2
}

impl ObjectTable {
    /// An empty table; `None` if there is no page for its root.
    pub fn new(frames: &mut impl Frames) -> Option<Self> {
        frames.alloc().map(Self::from_root)
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

    /// Puts a capability at an empty selector.
    ///
    /// # Errors
    /// See [`InsertError`]; the table's capabilities are as before.
    pub fn insert(
        &mut self,
        frames: &mut impl Frames,
        sel: Selector,
        cap: Cap,
    ) -> Result<(), InsertError> {
        if sel == NULL || sel >= SELECTORS || cap.is_empty() {
            return Err(InsertError::BadSelector);
        }
        let mut leaf = frames.read(self.root, root_index(sel));
        if leaf == 0 {
            leaf = frames.alloc().ok_or(InsertError::NoMemory)?;
            frames.write(self.root, root_index(sel), leaf);
        }
        let index = leaf_index(sel);
        if frames.read(leaf, index) != 0 {
            return Err(InsertError::Occupied);
        }
        // A reader on another processor that sees the object sees its rights as well.
        frames.write(leaf, index + 1, cap.meta);
        frames.write(leaf, index, cap.object);
        Ok(())
    }

    /// Empties a selector and returns what was there.
    pub fn remove(&mut self, frames: &mut impl Frames, sel: Selector) -> Option<Cap> {
        let cap = self.get(frames, sel);
        if cap.is_empty() {
            return None;
        }
        let leaf = frames.read(self.root, root_index(sel));
        frames.write(leaf, leaf_index(sel), 0);
        frames.write(leaf, leaf_index(sel) + 1, 0);
        Some(cap)
    }

    /// Removes the first capability from `from` on and below `limit`, in at most about 512 steps.
    pub fn take_next(
        &mut self,
        frames: &mut impl Frames,
        from: Selector,
        limit: Selector,
    ) -> Taken {
        let limit = limit.min(SELECTORS);
        let mut at = from;
        for _ in 0..WORDS {
            if at >= limit {
                break;
            }
            if frames.read(self.root, root_index(at)) == 0 {
                at = (at / PER_LEAF).wrapping_add(1).wrapping_mul(PER_LEAF);
                continue;
            }
            let next = at.wrapping_add(1);
            if let Some(cap) = self.remove(frames, at) {
                return Taken { cap: Some((at, cap)), next };
            }
            at = next;
        }
        Taken { cap: None, next: at }
    }

    /// Frees all pages. Capabilities that are still in the table vanish: take them out first with
    /// [`Self::take_next`] if their objects count references.
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
