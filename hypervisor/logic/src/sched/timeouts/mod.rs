//! What must happen at an absolute time, in order.
//!
//! A balanced binary search tree (Adelson-Velsky and Landis, 1962) through the things themselves: it needs
//! no memory of its own, and arming, disarming and taking out the first one touch a number of nodes that
//! grows with the logarithm of how many there are, in the worst case too. So nobody can make the kernel
//! slow for others by arming many timeouts.
//!
//! ```text
//!              deadline 30
//!             /           \
//!        20 (older)        41       left: earlier; right: later, or as early and armed later
//!       /    \
//!      12     20 (newer)            in every node the two sides differ in height by at most one
//!      ^ the first one, cached
//! ```

mod links;

use core::cell::Cell;

pub use links::{Links, Node};
use links::{Side, attach, height_of, leftmost, update_height};

/// Timeouts, the earliest first; of those that are due at the same time, the one that was armed first.
///
/// A node is in one of these at a time, and only that one may arm it anew or disarm it.
pub struct Timeouts<N> {
    root: Cell<Option<N>>,
    first: Cell<Option<N>>,
}

impl<N> Default for Timeouts<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N> Timeouts<N> {
    /// None.
    pub const fn new() -> Self {
        Self { root: Cell::new(None), first: Cell::new(None) }
    }
}

impl<N: Node> Timeouts<N> {
    /// When the earliest one is due; [`u64::MAX`] if there is none.
    #[inline]
    pub fn next(&self) -> u64 {
        self.first.get().map_or(u64::MAX, |first| first.links().deadline.get())
    }

    /// Takes out the earliest one if it is due at `now`.
    #[inline]
    pub fn expired(&self, now: u64) -> Option<N> {
        let first = self.first.get()?;
        if first.links().deadline.get() > now {
            return None;
        }
        self.disarm(first);
        Some(first)
    }

    /// Puts `node` in for `deadline`, behind those that are due at the same time; if it is in already, it is
    /// taken out first. Returns whether it was or is the first one, so that [`Self::next`] may have changed.
    pub fn arm(&self, node: N, deadline: u64) -> bool {
        let was_first = self.disarm(node);
        let (mut parent, mut side, mut leftmost) = (None, Side::Left, true);
        let mut place = self.root.get();
        while let Some(at) = place {
            let links = at.links();
            side = if deadline < links.deadline.get() { Side::Left } else { Side::Right };
            leftmost = leftmost && side == Side::Left;
            parent = place;
            place = links.child(side).get();
        }
        let links = node.links();
        links.deadline.set(deadline);
        links.height.set(1);
        links.parent.set(parent);
        match parent {
            Some(parent) => parent.links().child(side).set(Some(node)),
            None => self.root.set(Some(node)),
        }
        if leftmost {
            self.first.set(Some(node));
        }
        self.rebalance(parent);
        was_first || leftmost
    }

    /// Takes `node` out, if it is in. Returns whether it was the first one.
    #[inline]
    pub fn disarm(&self, node: N) -> bool {
        node.links().is_armed() && self.remove(node)
    }

    fn remove(&self, node: N) -> bool {
        let links = node.links();
        let was_first = self.first.get() == Some(node);
        if was_first {
            // Nothing is to its left, so at most one is to its right.
            self.first.set(links.right.get().or(links.parent.get()));
        }
        let parent = links.parent.get();
        let lowest = match (links.left.get(), links.right.get()) {
            (Some(left), Some(right)) => {
                let heir = leftmost(right);
                let lowest = lift(heir, right);
                attach(heir, Side::Left, Some(left));
                heir.links().height.set(links.height.get());
                self.exchange(parent, node, Some(heir));
                Some(lowest)
            }
            (left, right) => {
                self.exchange(parent, node, left.or(right));
                parent
            }
        };
        links.height.set(0);
        links.parent.set(None);
        links.left.set(None);
        links.right.set(None);
        self.rebalance(lowest);
        was_first
    }

    /// Puts `new` where `old` is, under `parent` or at the root.
    fn exchange(&self, parent: Option<N>, old: N, new: Option<N>) {
        match parent {
            Some(parent) => {
                let is_left = parent.links().left.get() == Some(old);
                attach(parent, if is_left { Side::Left } else { Side::Right }, new);
            }
            None => {
                self.root.set(new);
                if let Some(new) = new {
                    new.links().parent.set(None);
                }
            }
        }
    }

    /// Restores the heights and the balance from `lowest` upwards, as far as they have changed.
    fn rebalance(&self, lowest: Option<N>) {
        let mut place = lowest;
        while let Some(node) = place {
            let before = node.links().height.get();
            let top = self.balance(node);
            if top.links().height.get() == before {
                break;
            }
            place = top.links().parent.get();
        }
    }

    /// Balances one node whose sides are balanced and differ in height by at most two. Returns what is in
    /// its place now.
    fn balance(&self, node: N) -> N {
        let left = height_of(node, Side::Left);
        let right = height_of(node, Side::Right);
        let high = if left > right.saturating_add(1) {
            Side::Left
        } else if right > left.saturating_add(1) {
            Side::Right
        } else {
            update_height(node);
            return node;
        };
        let low = high.other();
        if let Some(child) = node.links().child(high).get()
            && height_of(child, low) > height_of(child, high)
        {
            self.rotate(child, high);
        }
        self.rotate(node, low)
    }

    /// Moves `node` down to `side`; its child on the other side takes its place and is returned.
    fn rotate(&self, node: N, side: Side) -> N {
        let links = node.links();
        let Some(up) = links.child(side.other()).get() else { return node };
        let parent = links.parent.get();
        attach(node, side.other(), up.links().child(side).get());
        self.exchange(parent, node, Some(up));
        attach(up, side, Some(node));
        update_height(node);
        update_height(up);
        up
    }
}

/// Makes `heir`, the first one in the tree under `top`, the parent of the rest of that tree. Returns the
/// lowest node under which something has changed.
fn lift<N: Node>(heir: N, top: N) -> N {
    let links = heir.links();
    match links.parent.get() {
        Some(parent) if heir != top => {
            attach(parent, Side::Left, links.right.get());
            attach(heir, Side::Right, Some(top));
            parent
        }
        _ => heir,
    }
}

/// What only the tests look at.
#[cfg(test)]
impl<N: Node> Timeouts<N> {
    pub(crate) fn root(&self) -> Option<N> {
        self.root.get()
    }

    pub(crate) fn first(&self) -> Option<N> {
        self.first.get()
    }
}
