//! Granting and revoking: how access moves between spaces.
//!
//! Each call does a bounded amount of work and says how far it came; the caller goes on from there. So interrupts wait for
//! at most one step, whatever range was asked for.

use abi::cap::{MemRights, Perms, SELECTORS, Selector};
use abi::hypercall::Status;
use abi::layout::{PAGE_SHIFT, USER_TOP};
use hypervisor_logic::objects::ObjectTable;
use hypervisor_logic::paging;
use hypervisor_logic::paging::{Flush, Progress, Source};

use super::{Args, Outcome, Values, selector};
use crate::arch::cpu::Cpu;
use crate::arch::{self, shootdown};
use crate::mem::pool;
use crate::mem::tables::{Kernel, Tables};
use crate::object::pd::{Pd, insert};
use crate::object::space::{Space, Table};
use crate::object::{destroy, lookup};

/// Pages that tasks may map something at.
const USER_PAGES: u64 = USER_TOP >> PAGE_SHIFT;

/// Capabilities, ports or registers that one call works through.
const STEP: u64 = 64;

/// Hypercall `Grant`.
pub fn grant(caller: &Pd, args: Args) -> Outcome {
    let source = lookup::<Space>(caller, args.selector, Perms::SPACE_TAKE)?;
    let target = lookup::<Space>(caller, selector(args.a1)?, Perms::SPACE_GRANT)?;
    if source.is_ending() || target.is_ending() {
        return Err(Status::BadCap);
    }
    let (from, to, count) = (args.a2, args.a3, args.a4);
    match (&source.table, &target.table) {
        (Table::Object(source), Table::Object(table)) => {
            let perms = Perms(args.a5 as u8);
            let mut table = ObjectTable::from_root(table.root);
            capabilities(source, &mut table, &target.pd, [from, to, count], perms)
        }
        (Table::Port(source), Table::Port(bitmap)) | (Table::Msr(source), Table::Msr(bitmap)) => {
            // A number means the same everywhere.
            permit(&target, from, count, |number| {
                if from == to && source.allows(number) {
                    bitmap.allow(number, true);
                }
            })
        }
        _ => memory(&source, &target, [from, to, count], MemRights(args.a5 as u32)),
    }
}

/// Does something about some of `count` ports or registers of a space.
fn permit(space: &Space, first: u64, count: u64, act: impl FnMut(u64)) -> Outcome {
    first.checked_add(count).ok_or(Status::BadParam)?;
    let step = count.min(STEP);
    shootdown::leave_guest(space);
    (first..first + step).for_each(act);
    arch::space::forget_ports(space);
    Ok(Values::progress(step, count))
}

fn capabilities(
    source: &ObjectTable,
    table: &mut ObjectTable,
    payer: &Pd,
    [from, to, count]: [u64; 3],
    perms: Perms,
) -> Outcome {
    let valid =
        |first: u64| first.checked_add(count).is_some_and(|end| end <= u64::from(SELECTORS));
    if !valid(from) || !valid(to) {
        return Err(Status::BadParam);
    }
    let step = count.min(STEP);
    for i in 0..step {
        let cap = source.get(&Kernel, (from + i) as Selector);
        if !cap.is_empty() {
            let cap = cap.with(Perms(cap.perms().0 & perms.0));
            if let Err(status) = insert(table, &payer.account, (to + i) as Selector, cap) {
                return if i == 0 { Err(status) } else { Ok(Values::progress(i, count)) };
            }
        }
    }
    Ok(Values::progress(step, count))
}

fn memory(source: &Space, target: &Space, range: [u64; 3], rights: MemRights) -> Outcome {
    match &source.table {
        Table::Physical(physical) => memory_from(*physical, target, range, rights),
        Table::Host(host) => memory_from(host, target, range, rights),
        _ => Err(Status::BadParam),
    }
}

fn memory_from<S: Source>(
    source: &S,
    target: &Space,
    [from, to, count]: [u64; 3],
    rights: MemRights,
) -> Outcome {
    let account = &target.pd.account;
    let rights = rights.intersection(MemRights::RWX.union(MemRights::UNCACHED));
    let done = match &target.table {
        Table::Host(_) if to.checked_add(count).is_none_or(|end| end > USER_PAGES) => {
            return Err(Status::BadParam);
        }
        Table::Host(table) => {
            paging::grant(source, &mut Tables(account), table, from, to, count, rights)
        }
        Table::Guest(table) => table.grant(source, account, [from, to, count], rights),
        _ => return Err(Status::BadParam),
    };
    settle(target, done, count)
}

/// Flushes what has to be, and reports how far an operation came.
#[inline(always)]
fn settle(space: &Space, done: Progress, count: u64) -> Outcome {
    if done.flush == Flush::Needed || pool::has_retired() {
        match &space.table {
            Table::Host(table) => shootdown::host(table.root),
            _ => shootdown::guest(space),
        }
    }
    match done.error {
        // What was done stays; the caller learns how much when it asks for less.
        Some(error) if done.done == 0 || error != Status::Quota => Err(error),
        _ => Ok(Values::progress(done.done, count)),
    }
}

/// Hypercall `Revoke`.
pub fn revoke(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let space = lookup::<Space>(caller, args.selector, Perms::SPACE_REVOKE)?;
    let (first, count) = (args.a2, args.a4);
    let remove = MemRights(args.a5 as u32).intersection(MemRights::RWX);
    let account = &space.pd.account;
    let done = match &space.table {
        Table::Object(table) => {
            let end = first
                .checked_add(count)
                .filter(|end| *end <= u64::from(SELECTORS))
                .ok_or(Status::BadParam)?;
            let found = table.find_next(&Kernel, first as Selector, end as Selector);
            let mut done = u64::from(found.next).saturating_sub(first).min(count);
            if let Some((cap, slot)) = found.cap
                && !destroy::drop_capability(cpu, cap, slot)
            {
                done -= 1;
            }
            return Ok(Values::progress(done, count));
        }
        Table::Port(bitmap) | Table::Msr(bitmap) => {
            return permit(&space, first, count, |number| bitmap.allow(number, false));
        }
        // A leaf that is split would get a table behind the place to which the end has come.
        _ if space.is_ending() => return Err(Status::BadCap),
        Table::Host(table) => table.revoke(&mut Tables(account), first, count, remove),
        Table::Guest(table) => table.revoke(account, first, count, remove),
        Table::Physical(_) => return Err(Status::BadParam),
    };
    settle(&space, done, count)
}
