use crate::sched::{Links, Node, Timeouts};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

/// Something with a timeout.
struct Slot<'a> {
    links: Links<Handle<'a>>,
    number: usize,
    /// How often anybody looked at it or changed it.
    touched: &'a Cell<u64>,
}

#[derive(Clone, Copy)]
struct Handle<'a>(&'a Slot<'a>);

impl PartialEq for Handle<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Node for Handle<'_> {
    fn links(&self) -> &Links<Self> {
        self.0.touched.set(self.0.touched.get() + 1);
        &self.0.links
    }
}

fn slots(count: usize, touched: &Cell<u64>) -> Vec<Slot<'_>> {
    (0..count).map(|number| Slot { links: Links::new(), number, touched }).collect()
}

/// Everything that holds in a tree. Its nodes in order, by deadline and number.
fn check(tree: &Timeouts<Handle>) -> Vec<(u64, usize)> {
    type At<'a> = Option<Handle<'a>>;
    fn walk<'a>(node: At<'a>, parent: At<'a>, order: &mut Vec<(u64, usize)>) -> u8 {
        let Some(node) = node else { return 0 };
        let links = &node.0.links;
        let [up, left, right] = links.family();
        assert!(up == parent, "a child does not know its parent");
        let below_left = walk(left, Some(node), order);
        order.push((links.deadline(), node.0.number));
        let below_right = walk(right, Some(node), order);
        assert!(below_left.abs_diff(below_right) <= 1, "unbalanced");
        assert_eq!(links.height(), below_left.max(below_right) + 1);
        links.height()
    }
    let mut order = Vec::new();
    let height = walk(tree.root(), None, &mut order);
    assert!(order.is_sorted_by_key(|entry| entry.0));
    assert_eq!(tree.first().map(|first| first.0.number), order.first().map(|(_, number)| *number));
    assert_eq!(tree.next(), order.first().map_or(u64::MAX, |(deadline, _)| *deadline));
    assert!(order.len() >= fewest(height), "{} nodes, {height} high", order.len());
    order
}

/// The fewest nodes of a balanced tree: those of a Fibonacci tree.
fn fewest(height: u8) -> usize {
    (0..height).fold((0, 1), |(this, next), _| (next, this + next + 1)).0
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Arm(usize, u64),
    Disarm(usize),
    Expire(u64),
}

const SLOTS: usize = 48;

fn op() -> impl Strategy<Value = Op> {
    // Few different times, so that many are equal, and times at the ends of the range.
    let time =
        prop_oneof![8 => 0..24_u64, 4 => 0..10_000_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    prop_oneof![
        6 => (0..SLOTS, time).prop_map(|(slot, deadline)| Op::Arm(slot, deadline)),
        3 => (0..SLOTS).prop_map(Op::Disarm),
        1 => prop_oneof![9 => 0..24_u64, 1 => 0..10_000_u64].prop_map(Op::Expire),
    ]
}

proptest! {
    /// 256 runs of 500 operations.
    #[test]
    fn follows_an_ordered_map(ops in prop::collection::vec(op(), 500)) {
        let touched = Cell::new(0);
        let slots = slots(SLOTS, &touched);
        let tree = Timeouts::new();
        // By deadline and the number of the operation that armed it.
        let mut model: BTreeMap<(u64, usize), usize> = BTreeMap::new();
        let mut keys = [None; SLOTS];
        for (now, op) in ops.into_iter().enumerate() {
            let first = model.first_key_value().map(|(_, slot)| *slot);
            match op {
                Op::Arm(slot, deadline) => {
                    keys[slot].replace((deadline, now)).map(|old| model.remove(&old));
                    model.insert((deadline, now), slot);
                    let is_first = model.first_key_value().map(|(_, slot)| *slot) == Some(slot);
                    let changed = tree.arm(Handle(&slots[slot]), deadline);
                    prop_assert_eq!(changed, is_first || first == Some(slot));
                }
                Op::Disarm(slot) => {
                    keys[slot].take().map(|old| model.remove(&old));
                    prop_assert_eq!(tree.disarm(Handle(&slots[slot])), first == Some(slot));
                }
                Op::Expire(time) => {
                    let due = model.first_entry().filter(|entry| entry.key().0 <= time);
                    let due = due.map(|entry| entry.remove());
                    due.map(|slot| keys[slot].take());
                    prop_assert_eq!(tree.expired(time).map(|handle| handle.0.number), due);
                }
            }
            let order = model.iter().map(|((deadline, _), slot)| (*deadline, *slot));
            prop_assert_eq!(check(&tree), order.collect::<Vec<_>>());
            for (slot, key) in slots.iter().zip(keys) {
                prop_assert_eq!(slot.links.is_armed(), key.is_some());
                prop_assert!(key.is_some() || slot.links.family() == [None; 3]);
            }
        }
    }
}

#[test]
fn no_order_of_arming_makes_it_high() {
    const COUNT: usize = 20_000;
    let orders: [fn(u64) -> u64; 5] = [
        |n| n,
        |n| u64::MAX - n,
        |_| 7,
        // From both ends inwards, and scattered.
        |n| if n % 2 == 0 { n } else { u64::MAX - n },
        |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    ];
    for order in orders {
        let touched = Cell::new(0);
        let slots = slots(COUNT, &touched);
        let tree = Timeouts::new();
        for (slot, n) in slots.iter().zip(0..) {
            tree.arm(Handle(slot), order(n));
        }
        assert_eq!(check(&tree).len(), COUNT);
        // 1.44 log2(20000 + 2)
        assert!(tree.root().is_some_and(|root| root.0.links.height() <= 20));
    }
}

/// Arms a Fibonacci tree, the highest that there is for its number of nodes: a node's left side is one
/// higher than its right one. From the top down, so that nothing rotates.
fn arm_fibonacci<'a>(tree: &Timeouts<Handle<'a>>, slots: &'a [Slot<'a>], height: u8) {
    let mut slots = slots.iter();
    let mut waiting = VecDeque::from([(height, 0)]);
    while let Some((height, before)) = waiting.pop_front() {
        let (left, right) = (height.saturating_sub(1), height.saturating_sub(2));
        let deadline = before + fewest(left);
        tree.arm(Handle(slots.next().unwrap()), deadline as u64);
        waiting.extend(
            [(left, before), (right, deadline + 1)].iter().filter(|(height, _)| *height > 0),
        );
    }
    assert!(slots.next().is_none());
}

/// How often nodes are looked at or changed, at most, to disarm one of the highest tree or to arm it anew.
fn most_work(height: u8) -> u64 {
    let touched = Cell::new(0);
    let slots = slots(fewest(height), &touched);
    let mut most = 0;
    let mut measure = |op: &dyn Fn() -> bool| {
        touched.set(0);
        op();
        most = most.max(touched.get());
    };
    for victim in slots.iter().map(Handle) {
        for deadline in [0, victim.0.number as u64, slots.len() as u64] {
            let tree = Timeouts::new();
            arm_fibonacci(&tree, &slots, height);
            assert_eq!(tree.root().map(|root| root.0.links.height()), Some(height));
            measure(&|| tree.disarm(victim));
            check(&tree);
            measure(&|| tree.arm(victim, deadline));
            assert_eq!(check(&tree).len(), slots.len());
            while tree.expired(u64::MAX).is_some() {}
        }
    }
    most
}

#[test]
fn the_worst_case_grows_with_the_height() {
    for height in 1..=10 {
        let work = most_work(height);
        assert!(work <= 16 * u64::from(height), "{work} at {height}");
    }
}
