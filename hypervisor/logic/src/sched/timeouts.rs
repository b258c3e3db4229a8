//! What must happen at an absolute time, in order.
//!
//! A leftist heap (Crane, 1972) through the things themselves: it needs no memory of its own, and arming,
//! disarming and taking out the first one touch a number of nodes that grows with the logarithm of how many
//! there are, in the worst case too. So nobody can make the kernel slow for others by arming many timeouts.
//!
//! ```text
//!              12                 everything below a node is due after it
//!            /    \
//!     20 (older)   20 (newer)     the way down along the right side is the shortest one out of the heap,
//!       /   \                     from every node: its length is the node's rank
//!     41     30
//! ```

use core::cell::Cell;

/// A way to reach something that has a place among the timeouts: it can be copied and compares equal to
/// those that reach the same thing. Whatever it reaches stays where it is while it is armed.
pub trait Node: Copy + PartialEq {
    /// Its place.
    fn links(&self) -> &Links<Self>;
}

/// The place of one timeout in the heap.
pub struct Links<N> {
    /// Absolute time, in the unit of the clock that [`Timeouts::expired`] is given; then how many were armed
    /// before.
    due: Cell<(u64, u64)>,
    /// Nodes on the way down along the right side, with this one. 0: not armed.
    rank: Cell<u8>,
    parent: Cell<Option<N>>,
    /// The child of the higher rank.
    left: Cell<Option<N>>,
    right: Cell<Option<N>>,
}

impl<N> Links<N> {
    /// Not armed.
    pub const fn new() -> Self {
        Self {
            due: Cell::new((0, 0)),
            rank: Cell::new(0),
            parent: Cell::new(None),
            left: Cell::new(None),
            right: Cell::new(None),
        }
    }

    /// When it is due, if it is armed.
    pub fn armed(&self) -> Option<u64> {
        (self.rank.get() != 0).then_some(self.due.get().0)
    }
}

/// Timeouts, the earliest first; of those that are due at the same time, the one that was armed first.
///
/// A node is in one of these at a time, and only that one may arm it anew or disarm it.
pub struct Timeouts<N> {
    first: Cell<Option<N>>,
    /// How many were ever armed.
    armed: Cell<u64>,
}

impl<N> Timeouts<N> {
    /// None.
    pub const fn new() -> Self {
        Self { first: Cell::new(None), armed: Cell::new(0) }
    }
}

impl<N: Node> Timeouts<N> {
    /// When the earliest one is due; [`u64::MAX`] if there is none.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.first.get().map_or(u64::MAX, |first| first.links().due.get().0)
    }

    /// Takes out the earliest one if it is due at `now`.
    pub fn expired(&self, now: u64) -> Option<N> {
        let first = self.first.get().filter(|first| first.links().due.get().0 <= now)?;
        self.disarm(first);
        Some(first)
    }

    /// Puts `node` in for `deadline`, behind those that are due at the same time; if it is in already, it is
    /// taken out first. Returns whether it was or is the first one, so that [`Self::next`] may have changed.
    pub fn arm(&self, node: N, deadline: u64) -> bool {
        let was_first = self.disarm(node);
        node.links().due.set((deadline, self.armed.get()));
        // 2^64 are never armed.
        self.armed.set(self.armed.get().wrapping_add(1));
        node.links().rank.set(1);
        self.first.set(merge(self.first.get(), Some(node)));
        was_first || self.first.get() == Some(node)
    }

    /// Takes `node` out, if it is in. Returns whether it was the first one.
    #[inline(always)]
    pub fn disarm(&self, node: N) -> bool {
        node.links().rank.get() != 0 && self.remove(node)
    }

    fn remove(&self, node: N) -> bool {
        let links = node.links();
        links.rank.set(0);
        let rest = merge(links.left.take(), links.right.take());
        let Some(parent) = links.parent.take() else {
            self.first.set(rest);
            return true;
        };
        set_parent(rest, Some(parent));
        let Links { left, right, .. } = parent.links();
        if left.get() == Some(node) { left } else { right }.set(rest);
        // A rank that changes is one above that of the child that changed: so this ends after as many steps
        // as the highest rank, which is a logarithm.
        let mut place = Some(parent);
        while let Some(changed) = place.filter(settle) {
            place = changed.links().parent.get();
        }
        false
    }
}

fn set_parent<N: Node>(node: Option<N>, parent: Option<N>) {
    if let Some(node) = node {
        node.links().parent.set(parent);
    }
}

/// Makes one heap of two: along their right sides, where both are short.
fn merge<N: Node>(one: Option<N>, other: Option<N>) -> Option<N> {
    let (mut one, mut other, mut path) = (one, other, None);
    while let (Some(a), Some(b)) = (one, other) {
        let (first, second) = if a.links().due < b.links().due { (a, b) } else { (b, a) };
        first.links().parent.set(path);
        path = Some(first);
        (one, other) = (first.links().right.get(), Some(second));
    }
    let mut top = one.or(other);
    while let Some(node) = path {
        path = node.links().parent.get();
        node.links().right.set(top);
        set_parent(top, Some(node));
        settle(&node);
        top = Some(node);
    }
    set_parent(top, None);
    top
}

/// Works out which child of `node` belongs to the left, and its rank. Returns whether that has changed.
fn settle<N: Node>(node: &N) -> bool {
    let Links { left, right, rank, .. } = node.links();
    let of = |child: &Cell<Option<N>>| child.get().map_or(0, |child| child.links().rank.get());
    if of(left) < of(right) {
        left.swap(right);
    }
    // 2^64 nodes have a rank of 64.
    let new = of(right).saturating_add(1);
    rank.replace(new) != new
}

#[cfg(test)]
impl<N: Node> Links<N> {
    pub(crate) fn due(&self) -> (u64, u64) {
        self.due.get()
    }

    pub(crate) fn rank(&self) -> u8 {
        self.rank.get()
    }

    /// Parent, left child, right child.
    pub(crate) fn family(&self) -> [Option<N>; 3] {
        [self.parent.get(), self.left.get(), self.right.get()]
    }
}

#[cfg(test)]
impl<N: Node> Timeouts<N> {
    pub(crate) fn first(&self) -> Option<N> {
        self.first.get()
    }
}
