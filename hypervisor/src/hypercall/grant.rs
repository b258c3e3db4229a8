//! Granting and revoking: how access moves between spaces.
//!
//! Each call does a bounded amount of work and says how far it came; the caller goes on from there. So interrupts wait for
//! at most one step, whatever range was asked for.

use abi::cap::{MemRights, Perms, SELECTORS, Selector};
use abi::hypercall::Status;
use abi::layout::{PAGE_SHIFT, USER_TOP};
use hypervisor_logic::objects::ObjectTable;
use hypervisor_logic::paging;
use hypervisor_logic::paging::{Flush, MapError, Progress, Source};

use super::{Args, Outcome, Values, selector};
use crate::arch::cpu::Cpu;
use crate::arch::{self, bitmaps::GUEST_MSRS};
use crate::mem::tables::{ReadOnly, Tables};
use crate::object::pd::{Pd, insert};
use crate::object::space::{Space, Table};
use crate::object::{destroy, lookup};

/// Pages that tasks may map something at.
const USER_PAGES: u64 = USER_TOP >> PAGE_SHIFT;

/// Capabilities, ports or registers that one call works through.
const STEP: u64 = 256;

/// Hypercall `Grant`.
pub fn grant(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let source = lookup::<Space>(caller, args.selector, Perms::SPACE_TAKE)?;
    let target = lookup::<Space>(caller, selector(args.a1)?, Perms::SPACE_GRANT)?;
    let (from, to, count) = (args.a2, args.a3, args.a4);
    match (&source.table, &target.table) {
        (Table::Object(source), Table::Object(table)) => {
            let perms = Perms(args.a5 as u8);
            let mut table = ObjectTable::from_root(table.root);
            capabilities(source, &mut table, &target.pd, [from, to, count], perms)
        }
        (Table::Port(source), Table::Port(bitmap)) => {
            let done = bits([from, to, count], |from, to| {
                if let (Ok(from), Ok(to)) = (u16::try_from(from), u16::try_from(to))
                    && from == to
                    && source.allows(from)
                {
                    bitmap.allow(to, true);
                }
            })?;
            arch::space::forget_ports(cpu);
            Ok(Values::progress(done, count))
        }
        (Table::Msr(source), Table::Msr(bitmap)) => {
            let done = bits([from, to, count], |from, to| {
                if let Ok(register) = u32::try_from(from)
                    && from == to
                    && GUEST_MSRS.contains(&register)
                    && source.allows(register)
                {
                    bitmap.allow(register, true);
                }
            })?;
            Ok(Values::progress(done, count))
        }
        _ => memory(cpu, &source, &target, [from, to, count], MemRights(args.a5 as u32)),
    }
}

fn bits([from, to, count]: [u64; 3], mut copy: impl FnMut(u64, u64)) -> Result<u64, Status> {
    if from.checked_add(count).is_none() || to.checked_add(count).is_none() {
        return Err(Status::BadParam);
    }
    let step = count.min(STEP);
    for i in 0..step {
        copy(from + i, to + i);
    }
    Ok(step)
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
        let cap = source.get(&ReadOnly, (from + i) as Selector);
        if !cap.is_empty() {
            let cap = cap.with(Perms(cap.perms().0 & perms.0));
            if let Err(status) = insert(table, &payer.account, (to + i) as Selector, cap) {
                return if i == 0 { Err(status) } else { Ok(Values::progress(i, count)) };
            }
        }
    }
    Ok(Values::progress(step, count))
}

fn memory(
    cpu: &Cpu,
    source: &Space,
    target: &Space,
    range: [u64; 3],
    rights: MemRights,
) -> Outcome {
    match &source.table {
        Table::Physical(physical) => memory_from(cpu, *physical, target, range, rights),
        Table::Host(host) => memory_from(cpu, host, target, range, rights),
        _ => Err(Status::BadParam),
    }
}

fn memory_from<S: Source>(
    cpu: &Cpu,
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
            let mut table = arch::space::host(table.root);
            paging::grant(source, &mut Tables(account), &mut table, from, to, count, rights)
        }
        Table::Guest(table) => table.grant(source, account, [from, to, count], rights),
        _ => return Err(Status::BadParam),
    };
    settle(cpu, target, done, count)
}

/// Flushes what has to be, and reports how far an operation came.
#[inline(always)]
fn settle(cpu: &Cpu, space: &Space, done: Progress, count: u64) -> Outcome {
    if done.flush == Flush::Needed {
        match space.table {
            Table::Guest(_) => arch::flush_guest(cpu),
            _ => arch::space::flush_host(),
        }
    }
    match done.error {
        // What was done stays; the caller learns how much when it asks for less.
        Some(MapError::NoMemory) if done.done == 0 => Err(Status::Quota),
        Some(MapError::Unaligned) => Err(Status::BadParam),
        Some(MapError::NoMemory) | None => Ok(Values::progress(done.done, count)),
    }
}

/// Hypercall `Revoke`.
pub fn revoke(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let space = lookup::<Space>(caller, args.selector, Perms::SPACE_REVOKE)?;
    let (first, count) = (args.a2, args.a4);
    let remove = MemRights(args.a5 as u32).intersection(MemRights::RWX);
    let mut tables = Tables(&space.pd.account);
    match &space.table {
        Table::Object(table) => {
            let end = first
                .checked_add(count)
                .filter(|end| *end <= u64::from(SELECTORS))
                .ok_or(Status::BadParam)?;
            let found = table.find_next(&ReadOnly, first as Selector, end as Selector);
            let mut done = u64::from(found.next).saturating_sub(first).min(count);
            if let Some((cap, slot)) = found.cap
                && !destroy::drop_capability(cpu, cap, slot)
            {
                done -= 1;
            }
            Ok(Values::progress(done, count))
        }
        Table::Port(bitmap) => {
            let done = bits([first, first, count], |port, _| {
                if let Ok(port) = u16::try_from(port) {
                    bitmap.allow(port, false);
                }
            })?;
            arch::space::forget_ports(cpu);
            Ok(Values::progress(done, count))
        }
        Table::Msr(bitmap) => {
            let done = bits([first, first, count], |register, _| {
                if let Ok(register) = u32::try_from(register) {
                    bitmap.allow(register, false);
                }
            })?;
            Ok(Values::progress(done, count))
        }
        Table::Host(table) => {
            let done = arch::space::host(table.root).revoke(&mut tables, first, count, remove);
            settle(cpu, &space, done, count)
        }
        Table::Guest(table) => {
            let done = table.revoke(&space.pd.account, first, count, remove);
            settle(cpu, &space, done, count)
        }
        Table::Physical(_) => Err(Status::BadParam),
    }
}
