//! What CPUs hand to each other, on one thread, against simple models.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use hypervisor_logic::smp::big_lock::BigLock;
use hypervisor_logic::smp::cpu_set::{CPUS, CpuSet};
use hypervisor_logic::smp::mailbox::{Link, Mailbox};
use hypervisor_logic::smp::online::Online;
use hypervisor_logic::smp::request::Requests;
use hypervisor_logic::smp::semaphore::Semaphore;
use hypervisor_logic::smp::ticket_lock::TicketLock;
use proptest::prelude::*;

fn set(members: &BTreeSet<u8>) -> CpuSet {
    members.iter().fold(CpuSet::EMPTY, |set, cpu| set.with(*cpu))
}

proptest! {
    #[test]
    fn cpu_sets_are_sets(
        a in proptest::collection::btree_set(0..CPUS, 0..64),
        b in proptest::collection::btree_set(0..CPUS, 0..64),
        cpu in 0..CPUS,
    ) {
        let (in_a, in_b) = (set(&a), set(&b));
        prop_assert!(in_a.eq(a.iter().copied()));
        prop_assert_eq!(in_a.len() as usize, a.len());
        prop_assert_eq!(in_a.is_empty(), a.is_empty());
        prop_assert_eq!(in_a.first(), a.first().copied());
        prop_assert_eq!(in_a.contains(cpu), a.contains(&cpu));
        prop_assert!(in_a.union(in_b).eq(a.union(&b).copied()));
        prop_assert!(in_a.intersection(in_b).eq(a.intersection(&b).copied()));
        prop_assert!(in_a.without(cpu).eq(a.iter().copied().filter(|other| *other != cpu)));
        prop_assert_eq!(CpuSet::from_bits(in_a.bits()), in_a);
    }
}

#[test]
fn a_number_beyond_the_last_cpu_is_in_no_set() {
    let all = CpuSet::from_bits(u64::MAX);
    assert_eq!(all.len(), u32::from(CPUS));
    for cpu in [CPUS, CPUS + 1, u8::MAX] {
        assert!(!all.contains(cpu));
        assert_eq!(CpuSet::one(cpu), CpuSet::EMPTY);
        assert_eq!(all.without(cpu), all);
    }
}

#[test]
fn whoever_joins_is_online() {
    static ONLINE: Online = Online::new();
    assert!(ONLINE.get().is_empty());
    ONLINE.join(0);
    ONLINE.join(63);
    assert_eq!(ONLINE.get(), CpuSet::one(0).with(63));
}

#[test]
fn tickets_wrap_around() {
    static LOCK: TicketLock = TicketLock::new();
    for _ in 0..3 * (1 << 16) {
        let _ticket = LOCK.acquire(|| panic!("nobody else has it"));
    }
}

#[test]
fn a_request_is_complete_when_its_last_target_is_done() {
    static LOCK: BigLock = BigLock::new();
    static REQUESTS: Requests = Requests::new();
    let held = LOCK.acquire(|| {});
    assert!(REQUESTS.is_complete());
    for round in 0..3 {
        let what = [round, u64::MAX, round + 1];
        REQUESTS.post(&held, CpuSet::one(1).with(63), what);
        assert_eq!(REQUESTS.take(0), None);
        assert_eq!(REQUESTS.take(64), None);
        assert_eq!(REQUESTS.take(63), Some(what));
        REQUESTS.done(63);
        assert!(!REQUESTS.is_complete());
        assert!(!REQUESTS.is_asked(63) && REQUESTS.is_asked(1));
        assert_eq!(REQUESTS.take(1), Some(what));
        assert_eq!(REQUESTS.take(1), None);
        assert!(!REQUESTS.is_complete());
        REQUESTS.done(1);
        assert!(REQUESTS.is_complete());
    }
}

#[derive(Clone, Debug)]
enum Post {
    Push(usize),
    Drain(usize),
}

const NODES: usize = 8;

fn post() -> impl Strategy<Value = Post> {
    prop_oneof![(0..NODES).prop_map(Post::Push), (0..=NODES).prop_map(Post::Drain)]
}

proptest! {
    #[test]
    fn a_mailbox_is_a_queue_without_repetition(posts in proptest::collection::vec(post(), 0..200)) {
        let mailbox = Mailbox::new();
        let links: [Link; NODES] = core::array::from_fn(|_| Link::new());
        let link_of = |node: u64| &links[node as usize / 8 - 1];
        // Those that a drain has taken and not returned, and those pushed since.
        let (mut taken, mut pushed) = (VecDeque::new(), VecDeque::new());
        for post in posts {
            match post {
                Post::Push(index) => {
                    let node = (index as u64 + 1) * 8;
                    let known = taken.contains(&node) || pushed.contains(&node);
                    prop_assert_eq!(links[index].is_posted(), known);
                    let interrupt = mailbox.push(node, &links[index]);
                    prop_assert_eq!(interrupt, !known && pushed.is_empty());
                    if !known {
                        pushed.push_back(node);
                    }
                }
                Post::Drain(count) => {
                    let mut expected = Vec::new();
                    for _ in 0..count {
                        if taken.is_empty() {
                            taken.append(&mut pushed);
                        }
                        expected.extend(taken.pop_front());
                    }
                    prop_assert_eq!(mailbox.drain(link_of).take(count).collect::<Vec<_>>(), expected);
                }
            }
            prop_assert_eq!(mailbox.is_empty(), taken.is_empty() && pushed.is_empty());
        }
    }
}

#[test]
fn a_drain_ends_though_each_node_is_pushed_again() {
    let mailbox = Mailbox::new();
    let links = [Link::new(), Link::new()];
    let link_of = |node: u64| &links[node as usize - 1];
    assert!(mailbox.push(1, &links[0]));
    assert!(!mailbox.push(2, &links[1]));
    let drained: Vec<_> = mailbox
        .drain(link_of)
        .inspect(|node| assert_eq!(mailbox.push(*node, link_of(*node)), *node == 1))
        .collect();
    assert_eq!(drained, [1, 2]);
    assert_eq!(mailbox.drain(link_of).collect::<Vec<_>>(), [1, 2]);
}

#[derive(Clone, Debug)]
enum Act {
    Up,
    Down { all: bool },
    Timeout(usize),
    Abort,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Up),
        4 => any::<bool>().prop_map(|all| Act::Down { all }),
        1 => (0..4_usize).prop_map(Act::Timeout),
        1 => Just(Act::Abort),
    ]
}

proptest! {
    #[test]
    fn a_semaphore_counts_or_has_a_queue(
        initial in prop_oneof![0..3_u64, Semaphore::MAX - 2..=Semaphore::MAX, Just(u64::MAX)],
        acts in proptest::collection::vec(act(), 0..200),
    ) {
        let semaphore = Semaphore::new(initial);
        let queue = RefCell::new(VecDeque::new());
        let is_empty = || queue.borrow().is_empty();
        let pop = || queue.borrow_mut().pop_front();
        let mut count = initial.min(Semaphore::MAX);
        let mut waiting = VecDeque::new();
        for (waiter, act) in acts.into_iter().enumerate() {
            match act {
                Act::Up => {
                    let alone = waiting.is_empty();
                    prop_assert_eq!(semaphore.try_up(), alone);
                    if alone {
                        count = (count + 1).min(Semaphore::MAX);
                    } else {
                        prop_assert_eq!(semaphore.lock(is_empty).up(pop), waiting.pop_front());
                    }
                }
                Act::Down { all } => {
                    let down = semaphore.try_down(all);
                    prop_assert_eq!(down, count > 0);
                    if down {
                        count = if all { 0 } else { count - 1 };
                    } else {
                        let mut locked = semaphore.lock(is_empty);
                        prop_assert!(!locked.down(all));
                        queue.borrow_mut().push_back(waiter);
                        waiting.push_back(waiter);
                    }
                }
                Act::Timeout(index) => {
                    let _locked = semaphore.lock(is_empty);
                    queue.borrow_mut().remove(index);
                    waiting.remove(index);
                }
                Act::Abort => {
                    let _locked = semaphore.lock(is_empty);
                    queue.borrow_mut().clear();
                    waiting.clear();
                }
            }
        }
        // Through the lock it counts as it does without.
        while waiting.pop_front().is_some() {
            prop_assert!(semaphore.lock(is_empty).up(pop).is_some());
        }
        prop_assert_eq!(semaphore.lock(is_empty).up(pop), None);
        count = (count + 1).min(Semaphore::MAX);
        for _ in 0..2 {
            prop_assert_eq!(semaphore.lock(is_empty).down(false), count > 0);
            count = count.saturating_sub(1);
        }
        prop_assert_eq!(semaphore.lock(is_empty).down(true), count > 0);
        prop_assert!(!semaphore.try_down(false));
    }
}
