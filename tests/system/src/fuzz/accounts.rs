//! Whether kernel memory is accounted for.
//!
//! A page is in the quota of one domain: what a domain has more, another has less. When a life is destroyed, with all domains below
//! it, every page is back where it came from.

use abi::cap::{Selector, own};
use abi::hypercall::{EcKind, Number, Status};
use alloc::format;
use alloc::string::String;
use runtime::pd::{Pd, Quota};
use runtime::selector::FREE;
use runtime::space::{HostSpace, ObjectSpace};

use super::life::Life;
use super::rng::Rng;
use crate::kernel::raw;
use crate::report::Check;
use crate::{check, check_eq};

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// Ends a life, and what it was made with. Whatever it has done, the supervisor then has what it had `before`, but for pages of its
/// own tables, of which it needs more with time.
///
/// # Errors
/// When pages have appeared or are gone.
pub fn settle(life: &Life, before: Quota) -> Check {
    const TABLES: u64 = 3;
    let Quota { free, limit } = life.pd.quota().map_err(show)?;
    check!(free <= limit, "{free} of {limit} pages are free");
    life.end().map_err(show)?;
    let after = Pd::OWN.quota().map_err(show)?;
    check_eq!(after.limit, before.limit, "the supervisor's pages");
    let gone = before.free.wrapping_sub(after.free);
    check!(gone <= TABLES, "{gone} pages are gone");
    Ok(())
}

/// That semaphores and portals give their pages back: made and taken away at random, copied, in a domain that makes nothing else.
///
/// # Errors
/// When pages are gone.
pub fn come_back(rng: &mut Rng, rounds: u64) -> Check {
    const SLOTS: u32 = 600;
    let pd = Pd::OWN.create_pd(64).map_err(show)?;
    let payer = pd.selector();
    ObjectSpace::create(pd).map_err(show)?;
    HostSpace::create(pd).map_err(show)?;
    let (handler, first) = (FREE.one().map_err(show)?, FREE.range(SLOTS).map_err(show)?);
    let make = |number, new: Selector, [a, b]: [u64; 2]| {
        // SAFETY: makes objects that nobody uses.
        unsafe { raw::hypercall(number, 0, payer, [new.into(), a, b, 0, 0]) }.0
    };
    check_eq!(
        make(Number::CreateEc, handler, [EcKind::Handler as u64, 0x1000]),
        Status::Success,
        "a handler"
    );
    let own = ObjectSpace::at(own::OBJECTS);
    let before = pd.quota().map_err(show)?;
    let mut full = 0_u64;
    for _ in 0..rounds {
        let at = first + rng.below(SLOTS.into()) as Selector;
        match rng.below(4) {
            0 => {
                full += u64::from(make(Number::CreateSm, at, [0; 2]) == Status::Success);
            }
            1 => {
                full += u64::from(
                    make(Number::CreatePt, at, [handler.into(), 0x1000]) == Status::Success,
                );
            }
            2 => {
                let to = first + rng.below(SLOTS.into()) as Selector;
                // Nothing there, or something there already.
                let _ = own.grant(at, own, to, abi::cap::Perms::ALL);
            }
            _ => own.revoke(at, 1 + rng.below(3) as u32).map_err(show)?,
        }
    }
    let busy = pd.quota().map_err(show)?;
    check!(full > rounds / 8 && busy.free < before.free, "only {full} objects were made");
    own.revoke(first, SLOTS + 3).map_err(show)?;
    let after = pd.quota().map_err(show)?;
    check_eq!((after.free, after.limit), (before.free, before.limit), "pages of the domain");
    Ok(())
}
