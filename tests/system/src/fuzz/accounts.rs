//! Whether kernel memory is accounted for.
//!
//! A page is in the quota of one domain: what a domain has more, another has less. The supervisor knows what it gave to a life, and the
//! life notes what it passes on to domains that it makes, so the limits have to add up.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use abi::cap::{Selector, own};
use abi::hypercall::{EcKind, Number, Status};
use runtime::pd::{Pd, Quota};
use runtime::selector::FREE;
use runtime::space::{HostSpace, ObjectSpace};

use super::control::Walker;
use super::life::Life;
use super::rng::Rng;
use crate::kernel::raw;
use crate::report::Check;
use crate::{check, check_eq};

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// What a life leaves when it has ended: the pages that are still its own, or were its own and lie in domains below it.
///
/// Objects other than semaphores and portals live on without capabilities, and keep their pages: so this is what can be said of the
/// quota of a domain that has ended. Once they end with their domain, nothing may be left.
///
/// # Errors
/// When pages have appeared or are gone.
pub fn settle(life: &Life, given: u64) -> Result<u64, String> {
    let Quota { free, limit } = life.pd.quota().map_err(show)?;
    check!(free <= limit, "{free} of {limit} pages are free");
    let moved = life.control().moved.load(Ordering::Relaxed);
    let expected = given.wrapping_sub(moved);
    // A thread that took its own memory away in a call, or never ran again after it, could not note what that call did.
    let pending = |walker: &Walker| walker.pending.load(Ordering::Relaxed);
    let unknown = life.unknown.load(Ordering::Relaxed)
        + life.control().walkers.iter().map(pending).sum::<u64>();
    check!(
        limit.abs_diff(expected) <= unknown,
        "the domain has {limit} pages; it was given {given} and passed {moved} on ({unknown} unknown)"
    );
    let left = life.pd.take(free).map_err(show)?;
    check_eq!((left.free, left.limit), (0, limit - free), "what is left of the domain");
    Ok(given - free)
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
