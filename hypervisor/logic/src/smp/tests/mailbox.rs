//! Mailboxes lose nothing, deliver nothing twice, and keep the order.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::vec::Vec;

use super::{Interrupt, model};
use crate::smp::mailbox::{Link, Mailbox};

struct Shared<const NODES: usize> {
    mailbox: Mailbox,
    interrupt: Interrupt,
    links: [Link; NODES],
    /// What somebody wants of a node.
    reasons: [AtomicU64; NODES],
}

impl<const NODES: usize> Shared<NODES> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mailbox: Mailbox::new(),
            interrupt: Interrupt::new(),
            links: core::array::from_fn(|_| Link::new()),
            reasons: core::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    fn link(&self, node: u64) -> &Link {
        &self.links[node as usize - 1]
    }

    fn reason(&self, node: u64) -> &AtomicU64 {
        &self.reasons[node as usize - 1]
    }

    /// Wants something of `node`, one bit for each thing.
    fn push(&self, node: u64, reason: u64) {
        self.reason(node).fetch_or(reason, Ordering::Relaxed);
        if self.mailbox.push(node, self.link(node)) {
            self.interrupt.send();
        }
    }

    /// Serves interrupts until `done`.
    fn serve(&self, mut look: impl FnMut(u64), done: impl Fn() -> bool) {
        while !done() {
            self.interrupt.wait();
            for node in self.mailbox.drain(|node| self.link(node)) {
                look(node);
            }
        }
    }

    /// Nobody pushes any more: what is left was looked at before.
    fn finish(&self) {
        for node in self.mailbox.drain(|node| self.link(node)) {
            assert_eq!(self.take_reason(node), 0);
        }
        assert!(self.mailbox.is_empty());
        assert!(self.links.iter().all(|link| !link.is_posted()));
    }

    /// What has been wanted of all nodes since the last look, as far as this CPU can see.
    fn take_reason(&self, node: u64) -> u64 {
        // A plain load may be stale, which a read-modify-write never is.
        let reason = self.reason(node).load(Ordering::Relaxed);
        self.reason(node).fetch_and(!reason, Ordering::Relaxed);
        reason
    }
}

#[test]
fn nodes_of_two_cpus_arrive_once_and_in_order() {
    model(2, || {
        let shared = Shared::<3>::new();
        let pushers: Vec<_> = [&[1, 2][..], &[3][..]]
            .map(|nodes| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || nodes.iter().for_each(|node| shared.push(*node, 1)))
            })
            .into();
        let seen = core::cell::RefCell::new(Vec::new());
        let look = |node| {
            assert_eq!(shared.take_reason(node), 1, "the reason came later than its node");
            seen.borrow_mut().push(node);
        };
        shared.serve(look, || seen.borrow().len() == 3);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        let mut seen = seen.into_inner();
        let order = seen.iter().copied().filter(|node| *node != 3).collect::<Vec<_>>();
        assert_eq!(order, [1, 2]);
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        assert!(shared.mailbox.is_empty());
        shared.finish();
    });
}

#[test]
fn every_reason_for_one_node_is_seen() {
    model(3, || {
        let shared = Shared::<1>::new();
        let pushers = [0b01, 0b10].map(|reason| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.push(1, reason))
        });
        let seen = core::cell::Cell::new(0);
        let look = |node| seen.set(seen.get() | shared.take_reason(node));
        shared.serve(look, || seen.get() == 0b11);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        shared.finish();
    });
}

#[test]
fn a_node_can_be_pushed_again_at_once() {
    model(3, || {
        let shared = Shared::<2>::new();
        let pusher = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.push(1, 0b01);
                shared.push(2, 0b01);
                shared.push(1, 0b10);
            }
        });
        let seen = [core::cell::Cell::new(0), core::cell::Cell::new(0)];
        let look = |node: u64| {
            let seen = &seen[node as usize - 1];
            seen.set(seen.get() | shared.take_reason(node));
        };
        shared.serve(look, || seen[0].get() == 0b11 && seen[1].get() == 0b01);
        pusher.join().unwrap();
        shared.finish();
    });
}
