//! Lists that are linked through what is in them: nothing is allocated, and whatever ends can leave the list that it is in.

use crate::object::Ref;
use crate::sync::Guarded;

/// A list of objects that stay in their place while they are in it.
pub struct List<T> {
    first: Guarded<Option<Ref<T>>>,
    last: Guarded<Option<Ref<T>>>,
}

/// The place of an object in a list.
pub struct Links<T> {
    list: Guarded<Option<Ref<List<T>>>>,
    next: Guarded<Option<Ref<T>>>,
    previous: Guarded<Option<Ref<T>>>,
}

/// What can be in one list at a time.
pub trait Linked: Sized {
    /// Its links.
    fn links(&self) -> &Links<Self>;
}

impl<T> Links<T> {
    /// In no list.
    pub const fn new() -> Self {
        Self { list: Guarded::new(None), next: Guarded::new(None), previous: Guarded::new(None) }
    }
}

impl<T: Linked> List<T> {
    /// An empty list. It must not move once something is in it.
    pub const fn new() -> Self {
        Self { first: Guarded::new(None), last: Guarded::new(None) }
    }

    /// The first one.
    #[inline(always)]
    pub fn first(&self) -> Option<Ref<T>> {
        self.first.get()
    }

    /// Puts `item`, which is in no list, behind all others.
    #[inline(always)]
    pub fn push_back(&self, item: Ref<T>) {
        let links = item.links();
        links.list.set(Some(Ref::of(self)));
        match self.last.replace(Some(item)) {
            Some(last) => {
                links.previous.set(Some(last));
                last.links().next.set(Some(item));
            }
            None => self.first.set(Some(item)),
        }
    }

    /// Puts `item`, which is in no list, before all others.
    #[inline(always)]
    pub fn push_front(&self, item: Ref<T>) {
        let links = item.links();
        links.list.set(Some(Ref::of(self)));
        match self.first.replace(Some(item)) {
            Some(first) => {
                links.next.set(Some(first));
                first.links().previous.set(Some(item));
            }
            None => self.last.set(Some(item)),
        }
    }

    /// Takes out the first one.
    #[inline(always)]
    pub fn pop(&self) -> Option<Ref<T>> {
        let first = self.first.get()?;
        let links = first.links();
        links.list.set(None);
        let next = links.next.replace(None);
        self.first.set(next);
        match next {
            Some(next) => next.links().previous.set(None),
            None => self.last.set(None),
        }
        Some(first)
    }
}

/// Takes an object out of the list that it is in, if it is in one.
pub fn leave<T: Linked>(item: Ref<T>) {
    let links = item.links();
    let Some(list) = links.list.replace(None) else { return };
    let (next, previous) = (links.next.replace(None), links.previous.replace(None));
    match next {
        Some(next) => next.links().previous.set(previous),
        None => list.last.set(previous),
    }
    match previous {
        Some(previous) => previous.links().next.set(next),
        None => list.first.set(next),
    }
}
