use crate::sched::{Links, Node, Timeouts};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
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

/// Everything that holds in a heap. Its nodes in order, by deadline and number.
fn check(heap: &Timeouts<Handle>) -> Vec<(u64, usize)> {
    let mut nodes = Vec::new();
    let mut waiting = Vec::from_iter(heap.first());
    if let Some(first) = heap.first() {
        assert!(first.0.links.family()[0].is_none(), "the first one is below another");
    }
    while let Some(node) = waiting.pop() {
        let links = &node.0.links;
        let [_, left, right] = links.family();
        for child in [left, right].into_iter().flatten() {
            assert!(child.0.links.family()[0] == Some(node), "a child does not know its parent");
            assert!(links.due() < child.0.links.due(), "a child is due before its parent");
            waiting.push(child);
        }
        let [left, right] = [left, right].map(|at| at.map_or(0, |child| child.0.links.rank()));
        assert!(left >= right, "the short side is on the left");
        assert_eq!(links.rank(), right + 1);
        nodes.push((links.due(), node.0.number));
    }
    nodes.sort_unstable();
    assert_eq!(heap.first().map(|first| first.0.number), nodes.first().map(|(_, number)| *number));
    assert_eq!(heap.next(), nodes.first().map_or(u64::MAX, |((deadline, _), _)| *deadline));
    let rank = heap.first().map_or(0, |first| first.0.links.rank());
    assert!(nodes.len() + 1 >= 1 << rank, "{} nodes, rank {rank}", nodes.len());
    nodes.into_iter().map(|((deadline, _), number)| (deadline, number)).collect()
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
        let heap = Timeouts::new();
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
                    let changed = heap.arm(Handle(&slots[slot]), deadline);
                    prop_assert_eq!(changed, is_first || first == Some(slot));
                }
                Op::Disarm(slot) => {
                    keys[slot].take().map(|old| model.remove(&old));
                    prop_assert_eq!(heap.disarm(Handle(&slots[slot])), first == Some(slot));
                }
                Op::Expire(time) => {
                    let due = model.first_entry().filter(|entry| entry.key().0 <= time);
                    let due = due.map(|entry| entry.remove());
                    due.map(|slot| keys[slot].take());
                    prop_assert_eq!(heap.expired(time).map(|handle| handle.0.number), due);
                }
            }
            let order = model.iter().map(|((deadline, _), slot)| (*deadline, *slot));
            prop_assert_eq!(check(&heap), order.collect::<Vec<_>>());
            for (slot, key) in slots.iter().zip(keys) {
                prop_assert_eq!(slot.links.rank() != 0, key.is_some());
                prop_assert!(key.is_some() || slot.links.family() == [None; 3]);
            }
        }
    }
}

/// log2, rounded up, of how many there are.
fn logarithm(count: usize) -> u64 {
    u64::from(count.next_power_of_two().ilog2())
}

/// How often nodes are looked at or changed, at most, when the heap is merged with another or a node leaves it.
fn bound(count: usize) -> u64 {
    32 * (logarithm(count) + 2)
}

/// Deadlines that make heaps of different forms: a single path, none, scattered.
const ORDERS: [fn(u64) -> u64; 5] = [
    |n| n,
    |n| u64::MAX - n,
    |_| 7,
    // From both ends inwards, and scattered.
    |n| if n % 2 == 0 { n } else { u64::MAX - n },
    |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
];

#[test]
fn no_order_of_arming_makes_it_slow() {
    const COUNT: usize = 20_000;
    for order in ORDERS {
        let touched = Cell::new(0);
        let slots = slots(COUNT, &touched);
        let heap = Timeouts::new();
        let measure = |op: &dyn Fn() -> bool| {
            touched.set(0);
            op();
            assert!(touched.get() <= bound(COUNT), "{} steps", touched.get());
        };
        for (slot, n) in slots.iter().zip(0..) {
            measure(&|| heap.arm(Handle(slot), order(n)));
        }
        assert_eq!(check(&heap).len(), COUNT);
        // Out of the middle, to both ends, and out for good.
        for slot in slots.iter().step_by(7) {
            measure(&|| heap.arm(Handle(slot), 0));
            measure(&|| heap.arm(Handle(slot), u64::MAX));
            measure(&|| heap.disarm(Handle(slot)));
        }
        assert_eq!(check(&heap).len(), COUNT - COUNT.div_ceil(7));
        while heap.first().is_some() {
            measure(&|| heap.expired(u64::MAX).is_some());
        }
    }
}

#[test]
fn the_worst_case_grows_with_the_logarithm() {
    for count in (1..=48).chain([1 << 10, 1 << 14]) {
        for order in ORDERS {
            let touched = Cell::new(0);
            let slots = slots(count, &touched);
            // Every node, out of the same heap; of many some.
            for victim in slots.iter().step_by(count.div_ceil(48)) {
                let heap = Timeouts::new();
                for (slot, n) in slots.iter().zip(0..) {
                    heap.arm(Handle(slot), order(n));
                }
                touched.set(0);
                heap.disarm(Handle(victim));
                assert!(touched.get() <= bound(count), "{} steps, {count} nodes", touched.get());
                assert_eq!(check(&heap).len(), count - 1);
                while heap.expired(u64::MAX).is_some() {}
            }
        }
    }
}
