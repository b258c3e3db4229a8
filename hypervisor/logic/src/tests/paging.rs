use super::pool::Pool;
use crate::frames::Frames;
use crate::paging::{Ept, Flush, Format, Host, Npt, PINNED, PageTable, Progress};
use abi::cap::MemRights;
use abi::hypercall::Status;

/// Everything was done.
const fn all_of(done: u64, flush: Flush) -> Progress {
    Progress { done, flush, error: None }
}

#[test]
fn host_entries_are_those_of_the_manual() {
    assert_eq!(Host::leaf(0x1234_5000, 12, MemRights::R), 1 << 63 | 0x1234_5065);
    assert_eq!(Host::leaf(0x1234_5000, 12, MemRights::RW), 1 << 63 | 0x1234_5067);
    assert_eq!(Host::leaf(0x1234_5000, 12, MemRights::RX), 0x1234_5065);
    assert_eq!(Host::leaf(0x4020_0000, 21, MemRights::RWX), 0x4020_00e7);
    let uncached = MemRights::RW.union(MemRights::UNCACHED);
    assert_eq!(Host::leaf(0xfee0_0000, 12, uncached), 1 << 63 | 0xfee0_007f);
    assert_eq!(Host::leaf(0x1000, 12, MemRights::W), 0);
    assert_eq!(Host::table(0x8000), 0x8027);
}

#[test]
fn ept_entries_are_those_of_the_manual() {
    assert_eq!(Ept::leaf(0x1234_5000, 12, MemRights::RWX), 0x1234_5337);
    assert_eq!(Ept::leaf(0x4000_0000, 30, MemRights::RX), 0x4000_03b5);
    let uncached = MemRights::RW.union(MemRights::UNCACHED);
    assert_eq!(Ept::leaf(0xfee0_0000, 12, uncached), 0xfee0_0343);
    assert_eq!(Ept::leaf(0x1000, 12, MemRights::X), 0);
    assert_eq!(Ept::leaf(0x1000, 12, MemRights::W), 0);
    assert_eq!(Ept::table(0x8000), 0x8107);
}

#[test]
fn npt_entries_are_those_of_the_manual() {
    // APM 2 5.3.3: NX 63, leaf 7, D 6, A 5, PCD 4, PWT 3, U/S 2, R/W 1, P 0.
    assert_eq!(Npt::leaf(0x1234_5000, 12, MemRights::RWX), 0x1234_5067);
    assert_eq!(Npt::leaf(0x1234_5000, 12, MemRights::R), 1 << 63 | 0x1234_5065);
    assert_eq!(Npt::leaf(0x20_0000, 21, MemRights::RX), 0x20_00e5);
    assert_eq!(Npt::leaf(0x4000_0000, 30, MemRights::RW), 1 << 63 | 0x4000_00e7);
    let uncached = MemRights::RW.union(MemRights::UNCACHED);
    assert_eq!(Npt::leaf(0xfee0_0000, 12, uncached), 1 << 63 | 0xfee0_007f);
    assert_eq!(Npt::leaf(0x1000, 12, MemRights::W), 0);
    assert_eq!(Npt::leaf(0x1000, 12, MemRights::X), 0);
    assert_eq!(Npt::leaf(0x1000, 12, MemRights::R.union(PINNED)), 1 << 63 | 0x1065);
    assert_eq!(Npt::table(0x8000), 0x8027);
    // Guest-physical addresses are not sign-extended.
    assert!(Npt::reaches((1 << 48) - 1) && !Npt::reaches(1 << 48) && !Npt::reaches(u64::MAX));
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let mut pool = Pool::new(10);
    let table = PageTable::<Host>::new(21, &mut pool).unwrap();
    for (va, pa, shift) in [
        (0x1001, 0, 12),
        (0x1000, 0x800, 12),
        (0x1000, 0, 21),
        (0, 0x1000, 21),
        (0, 0, 30),
        (0, 0, 13),
        (0, 0, 64),
        (0, 1 << 52, 12),
        (1 << 47, 0, 12),
    ] {
        let result = table.map(&mut pool, va, pa, shift, MemRights::R);
        assert_eq!(result, Err(Status::BadParam), "{va:#x} {pa:#x} {shift}");
    }
    let large = table.map(&mut pool, 0, 0, 21, MemRights::R.union(PINNED));
    assert_eq!(large, Err(Status::BadParam));
    assert_eq!(pool.used(), 1);
}

#[test]
fn the_upper_half_of_a_host_table_stays() {
    let mut pool = Pool::new(20);
    let table = PageTable::<Host>::new(30, &mut pool).unwrap();
    let kernel = 0xffff_8000_0000_0000;
    table.map(&mut pool, kernel, 0x20_0000, 21, MemRights::RW).unwrap();
    table.map(&mut pool, 0x7fff_fff0_0000, 0x5000, 12, MemRights::RX).unwrap();
    let entry = pool.read(table.root, 256);
    let mut next = 0;
    while !table.reclaim(&mut pool, &mut next, 3) {}
    assert_eq!(pool.read(table.root, 256), entry);
    assert_eq!(table.lookup(&pool, 0x7fff_fff0_0000), None);
    assert_eq!(table.lookup(&pool, kernel).map(|leaf| leaf.pa), Some(0x20_0000));
    // The root, and the two tables above the kernel's leaf.
    assert_eq!(pool.used(), 3);
}

#[test]
fn reclaim_works_in_steps_of_the_size_asked() {
    let mut pool = Pool::new(2000);
    let table = PageTable::<Ept>::new(30, &mut pool).unwrap();
    for i in 0..1000 {
        table.map(&mut pool, i << 21, i << 12, 12, MemRights::R).unwrap();
    }
    let full = pool.used();
    let mut next = 0;
    assert!(!table.reclaim(&mut pool, &mut next, 100));
    assert_eq!(pool.used(), full - 100);
    while !table.reclaim(&mut pool, &mut next, 100) {}
    assert_eq!(pool.used(), 1);
}

#[test]
fn a_leaf_that_cannot_be_split_is_left_alone() {
    let mut pool = Pool::new(3);
    let table = PageTable::<Ept>::new(30, &mut pool).unwrap();
    table.map(&mut pool, 0x20_0000, 0x40_0000, 21, MemRights::RWX).unwrap();
    let before = table.lookup(&pool, 0x20_0000);
    let failed = table.revoke(&mut pool, 0x201, 1, MemRights::W);
    assert_eq!((failed.done, failed.error), (0, Some(Status::Quota)));
    assert_eq!(table.lookup(&pool, 0x20_0000), before);
    // What it does not have needs no split, and all of it can always be taken back.
    assert_eq!(table.revoke(&mut pool, 0x201, 1, MemRights(1 << 8)), all_of(1, Flush::None));
    assert_eq!(table.revoke(&mut pool, 0x200, 512, MemRights::RWX), all_of(512, Flush::Needed));
    assert_eq!(table.lookup(&pool, 0x20_0000), None);
}

#[test]
fn revoke_of_a_huge_range_is_cheap_and_bounded() {
    let mut pool = Pool::new(2000);
    let table = PageTable::<Ept>::new(30, &mut pool).unwrap();
    // Walks to what is not there cost more than neighbours in a table, so a whole empty space takes a few steps.
    let (mut done, mut steps) = (0, 0);
    while done < 1 << 36 {
        done += table.revoke(&mut pool, done, (1 << 36) - done, MemRights::RWX).done;
        steps += 1;
    }
    assert!((2..=16).contains(&steps), "{steps} steps");
    for i in 0..5000 {
        table.map(&mut pool, i << 12, i << 12, 12, MemRights::R).unwrap();
    }
    let step = table.revoke(&mut pool, 0, 1 << 36, MemRights::RWX);
    assert!(step.done > 0 && step.done < 5000, "{step:?}");
    assert_eq!(step.flush, Flush::Needed);
    assert!(table.lookup(&pool, 4999 << 12).is_some());
}

#[test]
fn pinned_leaves_go_only_when_named() {
    let mut pool = Pool::new(10);
    let table = PageTable::<Host>::new(30, &mut pool).unwrap();
    table.map(&mut pool, 0x5000, 0x9000, 12, MemRights::RW.union(PINNED)).unwrap();
    assert_eq!(table.revoke(&mut pool, 0, 512, MemRights::RWX), all_of(512, Flush::None));
    assert!(table.lookup(&pool, 0x5000).is_some_and(|leaf| leaf.rights.contains(PINNED)));
    let all = MemRights::RWX.union(PINNED);
    assert_eq!(table.revoke(&mut pool, 0, 512, all), all_of(512, Flush::Needed));
    assert_eq!(table.lookup(&pool, 0x5000), None);
}

#[test]
fn mapping_the_same_again_needs_no_flush() {
    let mut pool = Pool::new(10);
    let table = PageTable::<Host>::new(30, &mut pool).unwrap();
    let mut map = |rights| table.map(&mut pool, 0x5000, 0x9000, 12, rights).unwrap();
    assert_eq!(map(MemRights::R), Flush::None);
    assert_eq!(map(MemRights::R), Flush::None);
    assert_eq!(map(MemRights::RW), Flush::Needed);
}
