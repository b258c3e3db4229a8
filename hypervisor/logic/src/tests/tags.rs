//! Tags against a TLB that remembers whose entries it holds.

use crate::tags::{Assigned, Tags};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;

#[derive(Clone, Debug)]
enum Op {
    /// An owner enters its guest.
    Enter(usize),
    /// An owner loses what is cached for it.
    Forget(usize),
    /// All do.
    Renew,
}

fn op(owners: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..owners).prop_map(Op::Enter),
        2 => (0..owners).prop_map(Op::Forget),
        1 => Just(Op::Renew),
    ]
}

proptest! {
    #[test]
    fn nobody_meets_entries_that_are_not_his(
        count in 0..6_u32,
        ops in prop::collection::vec(op(8), 1..200),
    ) {
        let mut tags = Tags::new(count);
        let mut owners = [Assigned::NONE; 8];
        // How often each owner has forgotten: older entries are as bad as another's.
        let mut life = [0; 8];
        // There was something before, as firmware may leave it.
        let mut tlb: BTreeMap<u32, (usize, u32)> = (0..8).map(|tag| (tag, (9, 0))).collect();
        for op in ops {
            match op {
                Op::Enter(owner) => {
                    if !tags.is_current(owners[owner]) {
                        let (assigned, flush) = tags.assign();
                        owners[owner] = assigned;
                        if flush {
                            tlb.clear();
                        }
                    }
                    prop_assert!(tags.is_current(owners[owner]));
                    let tag = owners[owner].tag;
                    prop_assert!((1..count.max(2)).contains(&tag));
                    let me = (owner, life[owner]);
                    prop_assert_eq!(*tlb.entry(tag).or_insert(me), me, "tag {}", tag);
                }
                Op::Forget(owner) => {
                    owners[owner] = Assigned::NONE;
                    life[owner] += 1;
                }
                Op::Renew => {
                    tags.renew();
                    life.iter_mut().for_each(|life| *life += 1);
                }
            }
        }
    }
}

#[test]
fn a_generation_has_all_the_tags_and_one_flush() {
    let mut tags = Tags::new(4);
    assert!(!tags.is_current(Assigned::NONE));
    let given: vec::Vec<_> = (0..7).map(|_| tags.assign()).collect();
    let numbers: vec::Vec<_> = given.iter().map(|(assigned, _)| assigned.tag).collect();
    let flushes: vec::Vec<_> = given.iter().map(|(_, flush)| *flush).collect();
    assert_eq!(numbers, [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(flushes, [true, false, false, true, false, false, true]);
    assert!(given[..6].iter().all(|(assigned, _)| !tags.is_current(*assigned)));
    assert!(tags.is_current(given[6].0));
    tags.renew();
    assert!(!tags.is_current(given[6].0) && !tags.is_current(Assigned::NONE));
    assert!(tags.assign().1);
}

#[test]
fn a_tag_that_all_share_is_flushed_at_each_change() {
    let mut tags = Tags::new(2);
    for _ in 0..5 {
        let (assigned, flush) = tags.assign();
        assert_eq!((assigned.tag, flush), (1, true));
    }
}
