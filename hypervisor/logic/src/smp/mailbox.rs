//! Contexts that other CPUs want a CPU to look at.
//!
//! Whoever wakes, stops or recalls a context of another CPU stores its reason where the owner finds
//! it, pushes the context into the owner's mailbox, and sends an interrupt if the mailbox was empty.
//! The owner takes out all that is there and looks at each.
//!
//! ```text
//!   head ──▶ C ──▶ B ──▶ A         pushed in the order A, B, C
//!   taken ─▶ A ──▶ B ──▶ C         the same, reversed by the owner
//! ```
//!
//! | step | any CPU | owner | ordering |
//! |---|---|---|---|
//! | 1 | stores its reason | - | - |
//! | 2 | [`Mailbox::push`] swaps `posted` to true; it was false | - | acquire: sees that the owner is done with `next`; release: step 1 |
//! | 3 | stores `next`, exchanges `head` | - | release: `next` comes before |
//! | 4 | sends an interrupt if `head` was 0 | - | see [`super`] |
//! | 5 | - | [`Mailbox::drain`] swaps `head` to 0 | acquire: sees every `next` |
//! | 6 | - | loads `next`, then swaps `posted` to false | release: `next` comes before; acquire: see below |
//! | 7 | - | looks at the context | sees step 1 |
//!
//! # Why no wake-up is lost
//!
//! | what happens between | why the owner looks after it |
//! |---|---|
//! | a push finds `head` not 0, sends no interrupt | whoever found it 0 sends one, and step 5 comes after that; all are taken at once |
//! | a push comes after step 5 | it finds `head` 0 and sends an interrupt |
//! | the owner drains before the interrupt comes | it comes, and finds the mailbox empty |
//! | a push finds `posted` true, does nothing more | its swap comes before the one of step 6, which acquires what it released: step 7 sees its reason |
//! | a push finds `posted` false | step 6 is over, so the context is pushed again |
//!
//! For the last two, step 6 has to be a swap: a store and the loads of step 7 may change places,
//! and then a reason stored in between would be seen by nobody.
//!
//! A context that moves to another CPU while it is posted comes out at the old one, which pushes it
//! on. One that is destroyed must not be posted: once nobody can find it to push it, its owner drains
//! its mailbox, and so does every CPU before it reports a quiescent point.

use super::atomic::{AtomicBool, AtomicU64, Ordering, const_fn};

/// The part of a context by which it hangs in a mailbox.
#[derive(Debug, Default)]
pub struct Link {
    /// The next in the list, or 0. Belongs to whoever has set `posted`, and from `head` on to the
    /// owner of the mailbox.
    next: AtomicU64,
    /// Whether it is in a mailbox, or about to be.
    posted: AtomicBool,
}

impl Link {
    const_fn! {
        /// In no mailbox.
        #[must_use]
        pub fn new() -> Self {
            Self { next: AtomicU64::new(0), posted: AtomicBool::new(false) }
        }
    }

    /// Whether it is in a mailbox, or about to be.
    #[must_use]
    pub fn is_posted(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }
}

/// The mailbox of one CPU, its owner. Contexts are named by their addresses, which are not 0.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// The last that was pushed, or 0.
    head: AtomicU64,
    /// The first of those that the owner has taken out of `head` and not yet looked at, or 0. Only
    /// the owner uses it.
    taken: AtomicU64,
}

impl Mailbox {
    const_fn! {
        /// Empty.
        #[must_use]
        pub fn new() -> Self {
            Self { head: AtomicU64::new(0), taken: AtomicU64::new(0) }
        }
    }

    /// Makes the owner look at `node`, whose link is `link`, after this. Returns whether the caller
    /// has to send it an interrupt.
    ///
    /// A try fails only if another CPU pushed or the owner drained within these few instructions;
    /// each of them has to leave and enter the kernel before it does so again.
    #[must_use]
    pub fn push(&self, node: u64, link: &Link) -> bool {
        // An exchange that fails would store nothing, so the owner could not synchronize with it.
        if link.posted.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.next.store(head, Ordering::Relaxed);
            let (success, failure) = (Ordering::Release, Ordering::Relaxed);
            match self.head.compare_exchange_weak(head, node, success, failure) {
                Ok(_) => return head == 0,
                Err(now) => head = now,
            }
        }
    }

    /// For the owner: all that was pushed by now, in that order. `link_of` finds the link of a node.
    ///
    /// Each may be pushed again as soon as it is returned. What is left when the iterator is dropped
    /// comes first the next time; no further interrupt announces it, so the owner has to come back
    /// while [`Self::is_empty`] says no.
    pub fn drain<'a, F: Fn(u64) -> &'a Link>(&self, link_of: F) -> Drain<'_, F> {
        Drain { mailbox: self, link_of, emptied: false }
    }

    /// For the owner: whether there is nothing to look at.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == 0 && self.taken.load(Ordering::Relaxed) == 0
    }
}

/// What [`Mailbox::drain`] returns.
#[derive(Debug)]
pub struct Drain<'m, F> {
    mailbox: &'m Mailbox,
    link_of: F,
    /// Whether `head` was taken. That happens once, so pushes cannot keep the owner for ever.
    emptied: bool,
}

impl<'a, F: Fn(u64) -> &'a Link> Drain<'_, F> {
    /// Takes all out of `head` and returns the first that was pushed, linked to those after it.
    fn empty_head(&mut self) -> u64 {
        self.emptied = true;
        let mut node = self.mailbox.head.swap(0, Ordering::Acquire);
        let mut after = 0;
        while node != 0 {
            let link = (self.link_of)(node);
            let before = link.next.load(Ordering::Relaxed);
            link.next.store(after, Ordering::Relaxed);
            after = node;
            node = before;
        }
        after
    }
}

impl<'a, F: Fn(u64) -> &'a Link> Iterator for Drain<'_, F> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut node = self.mailbox.taken.load(Ordering::Relaxed);
        if node == 0 && !self.emptied {
            node = self.empty_head();
        }
        if node == 0 {
            return None;
        }
        let link = (self.link_of)(node);
        self.mailbox.taken.store(link.next.load(Ordering::Relaxed), Ordering::Relaxed);
        link.posted.swap(false, Ordering::AcqRel);
        Some(node)
    }
}
