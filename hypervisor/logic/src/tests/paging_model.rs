//! Page tables and grants against a model that knows nothing of tables: a list of what was done,
//! replayed for one page.

use super::pool::Pool;
use crate::paging::{Ept, Flush, Format, Host, Npt, PINNED, PageTable, grant};
use crate::physical::PhysicalSpace;
use abi::cap::MemRights;
use abi::hypercall::Status;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

/// What a page translates to.
type State = Option<(u64, MemRights)>;

#[derive(Clone, Debug)]
enum Change {
    /// Pages from `first` on lie one after the other from `pa` on.
    Fill {
        first: u64,
        count: u64,
        pa: u64,
        rights: u32,
    },
    Remove {
        first: u64,
        count: u64,
        remove: u32,
    },
    /// Copied from a table with that history, or from physical memory.
    Copy {
        src: Option<Vec<Change>>,
        from: u64,
        first: u64,
        count: u64,
        rights: u32,
    },
}

const ACCESS: u32 = MemRights::RWX.0;
const UNCACHED: u32 = MemRights::UNCACHED.0;

/// Memory below this frame is RAM, the rest is device memory.
const RAM_END: u64 = 1 << 22;

fn readable(pa: u64, rights: u32) -> State {
    (rights & 1 != 0).then_some((pa, MemRights(rights)))
}

fn pinned(state: State) -> bool {
    state.is_some_and(|(_, rights)| rights.contains(PINNED))
}

fn physical(frame: u64) -> State {
    let rights = if frame < RAM_END { ACCESS } else { MemRights::RW.0 | UNCACHED };
    Some((frame << 12, MemRights(rights)))
}

fn replay(history: &[Change], page: u64) -> State {
    let mut state = None;
    for change in history {
        let (first, count) = match change {
            Change::Fill { first, count, .. }
            | Change::Remove { first, count, .. }
            | Change::Copy { first, count, .. } => (*first, *count),
        };
        if !(first..first + count).contains(&page) {
            continue;
        }
        let offset = page - first;
        state = match change {
            Change::Fill { pa, rights, .. } => readable(pa + (offset << 12), *rights),
            Change::Remove { remove, .. } => match state {
                Some((_, old)) if old.contains(PINNED) && remove & PINNED.0 == 0 => state,
                Some((pa, old)) => readable(pa, old.0 & !(remove & ACCESS)),
                None => None,
            },
            Change::Copy { src, from, rights, .. } => {
                let had = match src {
                    Some(history) => replay(history, from + offset),
                    None => physical(from + offset),
                };
                match had {
                    Some((pa, had)) if !had.contains(PINNED) && !pinned(state) => {
                        let choice = if src.is_none() { rights & UNCACHED } else { 0 };
                        let new = had.0 & rights & ACCESS | had.0 & UNCACHED | choice;
                        readable(pa, new).or(state)
                    }
                    _ => state,
                }
            }
        };
    }
    state
}

#[derive(Clone, Debug)]
enum Op {
    MapSource { page: u64, frame: u64, shift: u32, rights: u32 },
    Map { page: u64, frame: u64, shift: u32, rights: u32 },
    Revoke { page: u64, count: u64, remove: u32 },
    Grant { page: u64, count: u64, from: u64, rights: u32 },
    GrantPhysical { page: u64, count: u64, from: u64, rights: u32 },
}

/// Places where tables begin and end.
fn place() -> impl Strategy<Value = u64> {
    let base = prop_oneof![
        3 => Just(0_u64),
        3 => Just(512),
        1 => Just(1024),
        2 => Just(512 - 4),
        2 => Just((1 << 18) - 512),
        2 => Just(1 << 18),
        1 => Just((1 << 27) - (1 << 18)),
    ];
    (base, prop_oneof![3 => Just(0_u64), 1 => 0..8_u64]).prop_map(|(base, offset)| base + offset)
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 1..16_u64,
        2 => Just(512_u64),
        1 => 500..1100_u64,
        1 => Just(1 << 18),
        1 => Just((1 << 18) + 513),
    ]
}

fn shift() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(12_u32), 2 => Just(21), 1 => Just(30)]
}

fn rights() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..8_u32,
        2 => Just(7_u32),
        1 => (0..8_u32).prop_map(|rights| rights | UNCACHED),
        1 => Just(3 | PINNED.0),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let frame = prop_oneof![place(), Just(RAM_END), Just(RAM_END - 512)].boxed();
    let map = (place(), frame.clone(), shift(), rights()).boxed();
    prop_oneof![
        2 => map.clone().prop_map(|(page, frame, shift, rights)| {
            Op::MapSource { page, frame, shift, rights }
        }),
        2 => map.prop_map(|(page, frame, shift, rights)| Op::Map { page, frame, shift, rights }),
        2 => (place(), count(), rights())
            .prop_map(|(page, count, remove)| Op::Revoke { page, count, remove }),
        3 => (place(), count(), place(), rights())
            .prop_map(|(page, count, from, rights)| Op::Grant { page, count, from, rights }),
        2 => (place(), count(), frame, rights())
            .prop_map(|(page, count, from, rights)| Op::GrantPhysical { page, count, from, rights }),
    ]
}

struct Space<F: Format> {
    table: PageTable<F>,
    history: Vec<Change>,
}

impl<F: Format> Space<F> {
    fn map(&mut self, pool: &mut Pool, page: u64, frame: u64, shift: u32, rights: u32) -> Flush {
        let rights = if F::PINS && shift == 12 { rights } else { rights & !PINNED.0 };
        let low = (1_u64 << (shift - 12)) - 1;
        let (first, pa) = (page & !low, (frame & !low) << 12);
        match self.table.map(pool, first << 12, pa, shift, MemRights(rights)) {
            Ok(flush) => {
                self.history.push(Change::Fill { first, count: low + 1, pa, rights });
                flush
            }
            Err(error) => {
                assert_eq!(error, Status::Quota);
                Flush::None
            }
        }
    }

    fn check(&self, pool: &Pool, pages: &BTreeSet<u64>) {
        for page in pages {
            let found = self.table.lookup(pool, page << 12).map(|leaf| {
                let offset = (page << 12) & ((1 << leaf.shift) - 1);
                (leaf.pa + offset, leaf.rights)
            });
            assert_eq!(found, replay(&self.history, *page), "page {page:#x}");
        }
    }
}

/// Pages at which something can be wrong.
fn edges(ops: &[Op]) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    for op in ops {
        let (first, count) = match op {
            Op::MapSource { page, shift, .. } | Op::Map { page, shift, .. } => {
                let span = 1 << (shift - 12);
                (page & !(span - 1), span)
            }
            Op::Revoke { page, count, .. } => (*page, *count),
            Op::Grant { page, count, from, .. } => {
                pages.extend([from + count - 1, *from]);
                (*page, *count)
            }
            Op::GrantPhysical { page, count, .. } => (*page, *count),
        };
        let end = first + count;
        for at in [first, end, first + count / 2, first & !511, end & !511] {
            pages.extend([at.saturating_sub(1), at, at + 1]);
        }
    }
    pages
}

fn run<F: Format>(shift_to: u32, shift_from: u32, ops: &[Op], limit: usize) {
    let mut pool = Pool::new(limit);
    let mut space = PhysicalSpace::new(46);
    space.add_ram(0, RAM_END << 12).unwrap();
    let table = PageTable::<Host>::new(shift_from, &mut pool).unwrap();
    let mut src = Space { table, history: Vec::new() };
    let table = PageTable::<F>::new(shift_to, &mut pool).unwrap();
    let mut dst = Space { table, history: Vec::new() };
    let pages = edges(ops);
    for op in ops {
        let before: Vec<State> = pages.iter().map(|page| replay(&dst.history, *page)).collect();
        let mut flush = Flush::None;
        match *op {
            Op::MapSource { page, frame, shift, rights } => {
                let _ = src.map(&mut pool, page, frame, shift.min(shift_from), rights);
            }
            Op::Map { page, frame, shift, rights } => {
                let shift = shift.min(shift_to);
                flush = dst.map(&mut pool, page, frame, shift, rights);
            }
            Op::Revoke { page: first, count, remove } => {
                let mut done = 0;
                while done < count {
                    let step =
                        dst.table.revoke(&mut pool, first + done, count - done, MemRights(remove));
                    flush = flush.max(step.flush);
                    done += step.done;
                    if step.error.is_some() {
                        break;
                    }
                    assert_ne!(step.done, 0);
                }
                assert!(done <= count);
                dst.history.push(Change::Remove { first, count: done, remove });
            }
            Op::Grant { page: first, count, from, rights }
            | Op::GrantPhysical { page: first, count, from, rights } => {
                let physical = matches!(op, Op::GrantPhysical { .. });
                let mut done = 0;
                while done < count {
                    let (to, at, left) = (first + done, from + done, count - done);
                    let (pool, dst, rights) = (&mut pool, &mut dst.table, MemRights(rights));
                    let step = if physical {
                        grant(&space, pool, dst, at, to, left, rights)
                    } else {
                        grant(&src.table, pool, dst, at, to, left, rights)
                    };
                    flush = flush.max(step.flush);
                    done += step.done;
                    if let Some(error) = step.error {
                        assert_eq!(error, Status::Quota);
                        break;
                    }
                    assert_ne!(step.done, 0);
                }
                assert!(done <= count);
                let src = (!physical).then(|| src.history.clone());
                dst.history.push(Change::Copy { src, from, first, count: done, rights });
            }
        }
        for (page, before) in pages.iter().zip(before) {
            let changed = before.is_some() && before != replay(&dst.history, *page);
            assert!(!changed || flush == Flush::Needed, "page {page:#x} after {op:?}");
        }
        dst.check(&pool, &pages);
    }
    src.check(&pool, &pages);
    src.table.destroy(&mut pool);
    dst.table.destroy(&mut pool);
    assert_eq!(pool.used(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn host_follows_the_model(
        ops in prop::collection::vec(op(), 1..12),
        limit in prop_oneof![Just(10_000_usize), 2..24_usize],
        from in shift(),
        to in shift(),
    ) {
        run::<Host>(to, from, &ops, limit);
    }

    #[test]
    fn ept_follows_the_model(
        ops in prop::collection::vec(op(), 1..12),
        limit in prop_oneof![Just(10_000_usize), 2..24_usize],
        from in shift(),
        to in shift(),
    ) {
        run::<Ept>(to, from, &ops, limit);
    }
    #[test]
    fn npt_follows_the_model(
        ops in prop::collection::vec(op(), 1..12),
        limit in prop_oneof![Just(10_000_usize), 2..24_usize],
        from in shift(),
        to in shift(),
    ) {
        run::<Npt>(to, from, &ops, limit);
    }
}
