use super::pool::Pool;
use crate::objects::{Cap, ObjectTable, clear, matches, next};
use abi::cap::{ObjectType, Perms, SELECTORS};
use abi::hypercall::Status;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

const TYPES: [ObjectType; 6] = [
    ObjectType::Pd,
    ObjectType::Ec,
    ObjectType::Sc,
    ObjectType::Pt,
    ObjectType::Sm,
    ObjectType::Space,
];

#[test]
fn matches_wants_the_type_and_every_permission() {
    for ty in TYPES {
        for perms in 0..=255 {
            let cap = Cap::new(8, ty, Perms(perms));
            for other in TYPES {
                for need in [0, 1, 2, 4, 5, 0x80, 0xff] {
                    let expected = ty == other && perms & need == need;
                    assert_eq!(matches(cap.meta, other, Perms(need)), expected);
                }
            }
            assert_eq!(cap.with(Perms(0x0f)).perms(), Perms(perms & 0x0f));
            assert!(matches(cap.with(Perms(0)).meta, ty, Perms::NONE));
        }
        assert!(!matches(Cap::EMPTY.meta, ty, Perms::NONE));
    }
}

#[test]
fn selectors_outside_the_table_hold_nothing() {
    let mut pool = Pool::new(10);
    let mut table = ObjectTable::new(&mut pool).unwrap();
    let cap = Cap::new(8, ObjectType::Sm, Perms::ALL);
    for sel in [0, SELECTORS, SELECTORS + 1, u32::MAX] {
        assert_eq!(table.insert(&mut pool, sel, cap, 0), Err(Status::BadCap));
        assert_eq!(table.get(&pool, sel), Cap::EMPTY);
    }
    assert_eq!(table.insert(&mut pool, 1, Cap::EMPTY, 0), Err(Status::BadCap));
    assert_eq!(pool.used(), 1);
    assert!(table.insert(&mut pool, SELECTORS - 1, cap, 0).is_ok());
    assert_eq!(table.get(&pool, SELECTORS - 1), cap);
}

#[test]
fn finding_can_start_anywhere() {
    let mut pool = Pool::new(10);
    let mut table = ObjectTable::new(&mut pool).unwrap();
    let cap = Cap::new(8, ObjectType::Sm, Perms::ALL);
    let slot = table.insert(&mut pool, 515, cap, 0).unwrap();
    assert_eq!(table.find_next(&pool, 300, 515).cap, None);
    let found = table.find_next(&pool, 300, 516);
    assert_eq!((found.cap, found.next), (Some((cap, slot)), 516));
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32, u64, u8),
    Remove(u32),
    Limit(usize),
}

fn selector() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..600_u32, 1 => SELECTORS - 300..SELECTORS + 2, 1 => any::<u32>()]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (selector(), 1..u64::MAX, any::<u8>()).prop_map(|(s, o, p)| Op::Insert(s, o, p)),
        3 => selector().prop_map(Op::Remove),
        1 => (0..6_usize).prop_map(Op::Limit),
    ]
}

/// What a table holds: by selector, and the slots of each object, newest first.
#[derive(Default)]
struct Model {
    caps: BTreeMap<u32, (Cap, u64)>,
    heads: BTreeMap<u64, u64>,
}

impl Model {
    /// The list of an object, as the slots say it.
    fn list(&self, pool: &Pool, object: u64) -> Vec<u64> {
        let mut slots = Vec::new();
        let mut slot = self.heads.get(&object).copied().unwrap_or(0);
        while slot != 0 {
            slots.push(slot);
            slot = next(pool, slot);
        }
        slots
    }

    fn clear(&mut self, pool: &mut Pool, cap: Cap, slot: u64) {
        let head = self.heads[&cap.object];
        self.heads.insert(cap.object, clear(pool, head, slot));
    }
}

proptest! {
    #[test]
    fn follows_a_map(ops in prop::collection::vec(op(), 0..80), limit in 0..SELECTORS + 5) {
        let mut pool = Pool::new(1);
        let mut table = ObjectTable::new(&mut pool).unwrap();
        prop_assert!(ObjectTable::new(&mut pool).is_none());
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Limit(limit) => pool.set_limit(limit),
                Op::Remove(sel) => {
                    let found = table.find_next(&pool, sel, sel.saturating_add(1)).cap;
                    prop_assert_eq!(found, model.caps.remove(&sel));
                    if let Some((cap, slot)) = found {
                        model.clear(&mut pool, cap, slot);
                    }
                }
                Op::Insert(sel, object, perms) => {
                    // Few objects, so that their lists are long.
                    let object = object % 5 + 1;
                    let cap = Cap::new(object, TYPES[object as usize % 6], Perms(perms));
                    let head = model.heads.get(&object).copied().unwrap_or(0);
                    let result = table.insert(&mut pool, sel, cap, head);
                    let taken = model.caps.contains_key(&sel);
                    if sel == 0 || sel >= SELECTORS {
                        prop_assert_eq!(result, Err(Status::BadCap));
                    } else if taken {
                        prop_assert_eq!(result, Err(Status::Occupied));
                    } else if let Ok(slot) = result {
                        model.caps.insert(sel, (cap, slot));
                        model.heads.insert(object, slot);
                    } else {
                        prop_assert_eq!(result, Err(Status::Quota));
                    }
                }
            }
            for (sel, (cap, _)) in &model.caps {
                prop_assert_eq!(table.get(&pool, *sel), *cap);
            }
            for object in 1..=5 {
                let mut slots = model.list(&pool, object);
                slots.sort_unstable();
                let all = model.caps.values().filter(|(cap, _)| cap.object == object);
                let mut expected: Vec<_> = all.map(|(_, slot)| *slot).collect();
                expected.sort_unstable();
                prop_assert_eq!(slots, expected);
            }
        }
        let (mut taken, mut from) = (Vec::new(), 0);
        while from < limit.min(SELECTORS) {
            let step = table.find_next(&pool, from, limit);
            prop_assert!(step.next > from);
            if let Some((cap, slot)) = step.cap {
                model.clear(&mut pool, cap, slot);
                taken.push((step.next - 1, (cap, slot)));
            }
            from = step.next;
        }
        let expected: Vec<_> = model.caps.range(..limit).map(|(sel, cap)| (*sel, *cap)).collect();
        prop_assert_eq!(taken, expected);
        for (sel, (cap, _)) in model.caps.range(limit..) {
            prop_assert_eq!(table.get(&pool, *sel), *cap);
        }
        table.destroy(&mut pool);
        prop_assert_eq!(pool.used(), 0);
    }
}
