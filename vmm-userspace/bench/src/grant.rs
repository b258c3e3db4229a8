//! Giving memory to a guest, page by page.

use abi::cap::MemRights;
use abi::layout::PAGE_SIZE;
use runtime::Status;
use runtime::memory::{GuestMemory, Region};
use runtime::pd::Pd;
use runtime::space::GuestSpace;

use crate::Named;
use crate::meter::{ITERATIONS, Meter, WARM_UP};

/// Pages behind the first one in a grant of several.
const FURTHER: u64 = 256;
/// Grants of several pages: as many further pages as other paths have rounds.
const LONG_GRANTS: u64 = ITERATIONS.div_ceil(FURTHER);

/// Measures a grant of one page, and what each further page adds. Every page goes where nothing is mapped yet, and
/// never where a large page could be used.
///
/// # Errors
/// What the kernel says.
pub fn measure(meter: &Meter, memory: GuestMemory) -> Result<[Named; 2], Status> {
    let page = region(memory, 0, 1)?;
    let guest = GuestSpace::create(Pd::OWN)?;
    let mut gpa = 0;
    let first = meter.run(|| {
        gpa += PAGE_SIZE;
        guest.grant(page, gpa, MemRights::RWX)
    })?;

    let pages = region(memory, 1, 1 + FURTHER)?;
    let guest = GuestSpace::create(Pd::OWN)?;
    let mut gpa = 0;
    let mut grant = || {
        let result = guest.grant(pages, gpa, MemRights::RWX);
        gpa += pages.len();
        result
    };
    for _ in 0..WARM_UP.div_ceil(FURTHER) {
        grant()?;
    }
    let start = meter.mark();
    for _ in 0..LONG_GRANTS {
        grant()?;
    }
    let all = meter.since(&start, LONG_GRANTS);
    Ok([("grant", first), ("grant_next", all.rest(first, FURTHER))])
}

/// `count` pages of guest memory from page `first` on.
fn region(memory: GuestMemory, first: u64, count: u64) -> Result<Region, Status> {
    memory.region(first * PAGE_SIZE, count * PAGE_SIZE).map_err(|_| Status::BadParam)
}
