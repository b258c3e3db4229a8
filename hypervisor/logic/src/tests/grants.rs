use super::pool::Pool;
use crate::frames::Frames;
use crate::paging::{Ept, Host, PINNED, PageTable, grant};
use crate::physical::PhysicalSpace;
use abi::cap::MemRights;
use abi::hypercall::Status;
use core::cell::Cell;

fn memory() -> PhysicalSpace {
    let mut space = PhysicalSpace::new(39);
    space.add_ram(0, 16 << 30).unwrap();
    space
}

#[test]
fn contiguous_small_pages_become_a_large_one() {
    let mut pool = Pool::new(100);
    let src = PageTable::<Host>::new(30, &mut pool).unwrap();
    let dst = PageTable::<Ept>::new(30, &mut pool).unwrap();
    for i in 0..512 {
        src.map(&mut pool, (512 + i) << 12, (1024 + i) << 12, 12, MemRights::RW).unwrap();
    }
    let done = grant(&src, &mut pool, &dst, 512, 2048, 512, MemRights::RWX);
    assert_eq!((done.done, done.error), (512, None));
    let leaf = dst.lookup(&pool, 2048 << 12).unwrap();
    assert_eq!((leaf.shift, leaf.pa, leaf.rights), (21, 1024 << 12, MemRights::RW));
}

#[test]
fn a_gigabyte_at_once() {
    let mut pool = Pool::new(10);
    let dst = PageTable::<Ept>::new(30, &mut pool).unwrap();
    let done = grant(&memory(), &mut pool, &dst, 1 << 18, 0, 1 << 18, MemRights::RWX);
    assert_eq!((done.done, done.error), (1 << 18, None));
    let leaf = dst.lookup(&pool, 0x1234_5000).unwrap();
    assert_eq!((leaf.shift, leaf.pa), (30, 1 << 30));
}

#[test]
fn only_the_physical_space_chooses_caching() {
    let mut pool = Pool::new(100);
    let host = PageTable::<Host>::new(30, &mut pool).unwrap();
    let dst = PageTable::<Ept>::new(30, &mut pool).unwrap();
    let uncached = MemRights::RW.union(MemRights::UNCACHED);
    let _ = grant(&memory(), &mut pool, &host, 0, 0, 1, uncached);
    let _ = grant(&memory(), &mut pool, &host, 1, 1, 1, MemRights::RW);
    let _ = grant(&host, &mut pool, &dst, 0, 0, 1, MemRights::RW);
    let _ = grant(&host, &mut pool, &dst, 1, 1, 1, uncached);
    assert_eq!(dst.lookup(&pool, 0).unwrap().rights, uncached);
    assert_eq!(dst.lookup(&pool, 0x1000).unwrap().rights, MemRights::RW);
}

#[test]
fn pinned_pages_survive_and_do_not_leave() {
    let mut pool = Pool::new(100);
    let host = PageTable::<Host>::new(30, &mut pool).unwrap();
    let dst = PageTable::<Ept>::new(30, &mut pool).unwrap();
    host.map(&mut pool, 7 << 12, 0x9000, 12, MemRights::RW.union(PINNED)).unwrap();
    let all = MemRights(u32::MAX);
    assert_eq!(grant(&memory(), &mut pool, &host, 512, 0, 512, all).done, 512);
    assert_eq!(host.lookup(&pool, 7 << 12).unwrap().pa, 0x9000);
    assert_eq!(host.lookup(&pool, 8 << 12).unwrap().pa, (512 + 8) << 12);
    assert!(!host.lookup(&pool, 8 << 12).unwrap().rights.contains(PINNED));
    assert_eq!(grant(&host, &mut pool, &dst, 0, 0, 512, all).done, 512);
    assert_eq!(dst.lookup(&pool, 7 << 12), None);
    assert!(dst.lookup(&pool, 8 << 12).is_some());
}

#[test]
fn a_gigabyte_spares_a_pinned_page() {
    let mut pool = Pool::new(1000);
    let host = PageTable::<Host>::new(30, &mut pool).unwrap();
    host.map(&mut pool, 7 << 12, 0x9000, 12, MemRights::RW.union(PINNED)).unwrap();
    let mut done = 0;
    while done < 1 << 18 {
        let (from, left) = ((1 << 18) + done, (1 << 18) - done);
        let step = grant(&memory(), &mut pool, &host, from, done, left, MemRights::RW);
        assert_eq!(step.error, None);
        done += step.done;
    }
    assert_eq!(host.lookup(&pool, 7 << 12).unwrap().pa, 0x9000);
    assert_eq!(host.lookup(&pool, 8 << 12).unwrap().pa, (1 << 30) + (8 << 12));
    assert_eq!(host.lookup(&pool, 600 << 12).unwrap().shift, 21);
}

#[test]
fn the_work_of_one_call_is_bounded() {
    let mut pool = Pool::new(1000);
    let small = PageTable::<Ept>::new(12, &mut pool).unwrap();
    let step = grant(&memory(), &mut pool, &small, 0, 0, 1 << 20, MemRights::RW);
    assert!((512..=2048).contains(&step.done), "{step:?}");
    let large = PageTable::<Ept>::new(21, &mut pool).unwrap();
    let step = grant(&memory(), &mut pool, &large, 0, 0, 1 << 20, MemRights::RW);
    assert!((512 * 2..=512 * 8).contains(&step.done), "{step:?}");
    let huge = PageTable::<Ept>::new(30, &mut pool).unwrap();
    let step = grant(&memory(), &mut pool, &huge, 0, 0, 1 << 20, MemRights::RW);
    assert!((1 << 18..=4 << 18).contains(&step.done), "{step:?}");
}

#[test]
fn ranges_beyond_the_space_are_refused() {
    let mut pool = Pool::new(10);
    let host = PageTable::<Host>::new(30, &mut pool).unwrap();
    let dst = PageTable::<Ept>::new(30, &mut pool).unwrap();
    let bad = Some(Status::BadParam);
    let mut host_at = |at, n| grant(&memory(), &mut pool, &host, 0, at, n, MemRights::R).error;
    assert_eq!(host_at((1 << 35) - 1, 2), bad);
    assert_eq!(host_at(u64::MAX, 2), bad);
    let mut at = |from, n| grant(&memory(), &mut pool, &dst, from, 1 << 35, n, MemRights::R);
    assert_eq!(at(0, (1 << 35) + 1).error, bad);
    assert_eq!(at(u64::MAX, 2).error, bad);
    assert_eq!(at(1 << 40, 5).done, 5);
    assert_eq!(pool.used(), 2);
}

/// Counts accesses, the measure of a grant's cost.
struct Counting {
    pool: Pool,
    reads: Cell<u64>,
    writes: u64,
}

impl Frames for Counting {
    fn alloc(&mut self) -> Option<u64> {
        self.pool.alloc()
    }
    fn free(&mut self, page: u64) {
        self.pool.free(page);
    }
    fn read(&self, page: u64, index: usize) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.pool.read(page, index)
    }
    fn write(&mut self, page: u64, index: usize, value: u64) {
        self.writes += 1;
        self.pool.write(page, index, value);
    }
}

#[test]
fn further_pages_cost_a_few_accesses_each() {
    let mut frames = Counting { pool: Pool::new(100), reads: Cell::new(0), writes: 0 };
    let src = PageTable::<Host>::new(30, &mut frames).unwrap();
    let dst = PageTable::<Ept>::new(12, &mut frames).unwrap();
    // Frames in an order that makes no two pages contiguous.
    for i in 0..1024 {
        src.map(&mut frames, i << 12, (i ^ 1) << 12, 12, MemRights::RW).unwrap();
    }
    dst.map(&mut frames, 0, 0, 12, MemRights::R).unwrap();
    dst.map(&mut frames, 512 << 12, 0, 12, MemRights::R).unwrap();
    let start = (frames.reads.get(), frames.writes);
    let mut done = 0;
    while done < 1024 {
        let step = grant(&src, &mut frames, &dst, done, done, 1024 - done, MemRights::RW);
        assert_eq!(step.error, None);
        done += step.done;
    }
    // For each page: the source's entry and the one behind it, the old entry, the new one.
    let (reads, writes) = (frames.reads.get() - start.0, frames.writes - start.1);
    assert_eq!(writes, 1024);
    // And each call, of which there are eight, finds its tables.
    assert!(reads <= 3 * 1024 + 8 * 8, "{reads} reads");
}
