//! What a timeout in the tree knows of its neighbours.

use core::cell::Cell;

/// A way to reach something that has a place among the timeouts: it can be copied and compares equal to
/// those that reach the same thing. Whatever it reaches stays where it is while it is armed.
pub trait Node: Copy + PartialEq {
    /// Its place.
    fn links(&self) -> &Links<Self>;
}

/// The place of one timeout in the tree.
pub struct Links<N> {
    /// Absolute time, in the unit of the clock that [`super::Timeouts::expired`] is given.
    pub(super) deadline: Cell<u64>,
    /// Nodes on the longest way down from here, with this one. 0: not armed.
    pub(super) height: Cell<u8>,
    pub(super) parent: Cell<Option<N>>,
    pub(super) left: Cell<Option<N>>,
    pub(super) right: Cell<Option<N>>,
}

/// Where a child hangs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Before its parent.
    Left,
    /// Behind its parent.
    Right,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

impl<N> Links<N> {
    /// Not armed.
    pub const fn new() -> Self {
        Self {
            deadline: Cell::new(0),
            height: Cell::new(0),
            parent: Cell::new(None),
            left: Cell::new(None),
            right: Cell::new(None),
        }
    }

    /// Its deadline, if it is in a tree.
    pub fn armed(&self) -> Option<u64> {
        self.is_armed().then_some(self.deadline.get())
    }

    /// Whether it is in a tree.
    #[inline]
    pub(crate) fn is_armed(&self) -> bool {
        self.height.get() != 0
    }

    #[inline]
    pub(super) fn child(&self, side: Side) -> &Cell<Option<N>> {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }
}

impl<N> Default for Links<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The first one in the tree under `top`.
pub(super) fn leftmost<N: Node>(top: N) -> N {
    let mut first = top;
    while let Some(left) = first.links().left.get() {
        first = left;
    }
    first
}

/// Makes `child` the one on `side` of `parent`.
pub(super) fn attach<N: Node>(parent: N, side: Side, child: Option<N>) {
    parent.links().child(side).set(child);
    if let Some(child) = child {
        child.links().parent.set(Some(parent));
    }
}

/// How high the tree on `side` of `parent` is.
pub(super) fn height_of<N: Node>(parent: N, side: Side) -> u8 {
    parent.links().child(side).get().map_or(0, |child| child.links().height.get())
}

/// Works the height of `node` out from those of its children.
pub(super) fn update_height<N: Node>(node: N) {
    let higher = height_of(node, Side::Left).max(height_of(node, Side::Right));
    // 2^64 nodes would be 92 high.
    node.links().height.set(higher.saturating_add(1));
}

/// What only the tests look at.
#[cfg(test)]
impl<N: Node> Links<N> {
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.get()
    }

    pub(crate) fn height(&self) -> u8 {
        self.height.get()
    }

    /// Parent, left child, right child.
    pub(crate) fn family(&self) -> [Option<N>; 3] {
        [self.parent.get(), self.left.get(), self.right.get()]
    }
}
