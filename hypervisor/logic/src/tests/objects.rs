use super::pool::Pool;
use crate::objects::{Cap, InsertError, ObjectTable, matches};
use abi::cap::{ObjectType, Perms, SELECTORS};
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
        assert_eq!(table.insert(&mut pool, sel, cap), Err(InsertError::BadSelector));
        assert_eq!(table.get(&pool, sel), Cap::EMPTY);
        assert_eq!(table.remove(&mut pool, sel), None);
    }
    assert_eq!(table.insert(&mut pool, 1, Cap::EMPTY), Err(InsertError::BadSelector));
    assert_eq!(pool.used(), 1);
    assert_eq!(table.insert(&mut pool, SELECTORS - 1, cap), Ok(()));
    assert_eq!(table.get(&pool, SELECTORS - 1), cap);
}

#[test]
fn taking_can_start_anywhere() {
    let mut pool = Pool::new(10);
    let mut table = ObjectTable::new(&mut pool).unwrap();
    let cap = Cap::new(8, ObjectType::Sm, Perms::ALL);
    table.insert(&mut pool, 515, cap).unwrap();
    assert_eq!(table.take_next(&mut pool, 300, 515).cap, None);
    let taken = table.take_next(&mut pool, 300, 516);
    assert_eq!((taken.cap, taken.next), (Some((515, cap)), 516));
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

proptest! {
    #[test]
    fn follows_a_map(ops in prop::collection::vec(op(), 0..80), limit in 0..SELECTORS + 5) {
        let mut pool = Pool::new(1);
        let mut table = ObjectTable::new(&mut pool).unwrap();
        prop_assert!(ObjectTable::new(&mut pool).is_none());
        let mut model = BTreeMap::new();
        for op in ops {
            match op {
                Op::Limit(limit) => pool.set_limit(limit),
                Op::Remove(sel) => {
                    prop_assert_eq!(table.remove(&mut pool, sel), model.remove(&sel));
                }
                Op::Insert(sel, object, perms) => {
                    let cap = Cap::new(object, TYPES[object as usize % 6], Perms(perms));
                    let result = table.insert(&mut pool, sel, cap);
                    let taken = model.contains_key(&sel);
                    if sel == 0 || sel >= SELECTORS {
                        prop_assert_eq!(result, Err(InsertError::BadSelector));
                    } else if taken {
                        prop_assert_eq!(result, Err(InsertError::Occupied));
                    } else if result != Err(InsertError::NoMemory) {
                        prop_assert_eq!(result, Ok(()));
                        model.insert(sel, cap);
                    }
                }
            }
            for (sel, cap) in &model {
                prop_assert_eq!(table.get(&pool, *sel), *cap);
            }
        }
        let (mut taken, mut from) = (Vec::new(), 0);
        while from < limit.min(SELECTORS) {
            let step = table.take_next(&mut pool, from, limit);
            prop_assert!(step.next > from);
            taken.extend(step.cap);
            from = step.next;
        }
        let expected: Vec<_> = model.range(..limit).map(|(sel, cap)| (*sel, *cap)).collect();
        prop_assert_eq!(taken, expected);
        for (sel, cap) in model.range(limit..) {
            prop_assert_eq!(table.get(&pool, *sel), *cap);
        }
        table.destroy(&mut pool);
        prop_assert_eq!(pool.used(), 0);
    }
}
