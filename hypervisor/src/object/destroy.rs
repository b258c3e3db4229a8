//! The end of objects, in bounded steps.
//!
//! Each step leaves everything sound: what is half gone can be used, refuses, or is found by nobody. Who destroys takes further
//! steps until nothing is left, and can stop in between.

use core::ptr;

use abi::cap::{ObjectType, SELECTORS};
use abi::hypercall::Status;
use hypervisor_logic::frames::Frames;
use hypervisor_logic::objects::{self, Cap};
use hypervisor_logic::paging::PageTable;

use super::ec::Ec;
use super::pd::Pd;
use super::pt::Pt;
use super::sc::Sc;
use super::sm::Sm;
use super::space::{Space, Table};
use super::{Header, Ref};
use crate::arch::cpu::Cpu;
use crate::arch::space::GuestTable;
use crate::arch::{self, interrupts, shootdown};
use crate::hypercall::release;
use crate::mem::pool;
use crate::mem::tables::{Kernel, Tables};
use crate::sched::errand::{self, Errand};
use crate::{ipc, list, sched};

/// How many links of one kind a step cuts.
const LINKS: usize = 32;
/// How many entries of a page table a step looks at.
const ENTRIES: u32 = 128;

/// A step towards the end of `target`, whose capability in the slot `keep` stays until the end. Returns whether it is gone.
pub fn step(cpu: &Cpu, target: Ref<Header>, keep: u64) -> bool {
    let mut object = target;
    // What depends on an object ends before it.
    while let Some(dependent) = dependent(object) {
        object = dependent;
    }
    let keep = if object == target { keep } else { 0 };
    let gone = forget(object, keep) && quiet(cpu, object);
    if gone {
        free(object);
    }
    gone && object == target
}

/// The end of an object that has just been made, and of which nobody knows.
pub fn undo(cpu: &Cpu, object: Ref<Header>) {
    while !step(cpu, object, 0) {}
}

/// Takes a capability out of its slot. The last one of a semaphore or portal ends that. Returns whether the capability is gone: if
/// not, more steps are needed.
pub fn drop_capability(cpu: &Cpu, cap: Cap, slot: u64) -> bool {
    // SAFETY: a capability that is in a table names a live object.
    let header = unsafe { Ref::<Header>::from_address(cap.object) };
    let last = header.slots.get() == slot && objects::next(&Kernel, slot) == 0;
    if last && matches!(header.ty, ObjectType::Sm | ObjectType::Pt) {
        return step(cpu, header, slot);
    }
    header.slots.set(objects::clear(&mut Kernel, header.slots.get(), slot));
    true
}

/// What has to end before an object can.
fn dependent(object: Ref<Header>) -> Option<Ref<Header>> {
    if object.ty != ObjectType::Pd {
        return None;
    }
    let pd = as_ref::<Pd>(object);
    pd.account.close();
    pd.objects.first()
}

fn as_ref<T>(object: Ref<Header>) -> Ref<T> {
    // SAFETY: callers have looked at the type in the header, which every object starts with.
    unsafe { Ref::from_address(object.address()) }
}

/// Empties slots of capabilities to an object, but for one. Returns whether all are empty.
fn forget(object: Ref<Header>, keep: u64) -> bool {
    for _ in 0..LINKS {
        let head = object.slots.get();
        let slot = if head == keep && head != 0 { objects::next(&Kernel, head) } else { head };
        if slot == 0 {
            return true;
        }
        object.slots.set(objects::clear(&mut Kernel, head, slot));
    }
    false
}

/// Takes an object out of everything that is going on. Returns whether that is done.
fn quiet(cpu: &Cpu, object: Ref<Header>) -> bool {
    match object.ty {
        ObjectType::Pd => pd(as_ref(object)),
        ObjectType::Ec => return ec(cpu, as_ref(object)),
        ObjectType::Sc => sc(as_ref(object)),
        ObjectType::Pt => Pt::orphan(as_ref(object)),
        ObjectType::Sm => return sm(as_ref(object)),
        ObjectType::Space => return space(cpu, as_ref(object)),
    }
    true
}

/// What it has left goes back to where it came from.
fn pd(pd: Ref<Pd>) {
    if let Some(parent) = pd.parent() {
        // The parent had those pages once: it can count them.
        let _ = pd.account.transfer(&parent.account, pd.account.level().0);
    }
}

/// A context: its caller gets an error, its callee finishes what it does for nobody, and whoever waits looks again.
fn ec(cpu: &Cpu, ec: Ref<Ec>) -> bool {
    // Time that waits for it, or for whom it waits, has to decide anew.
    if ec.cpu.get().is_here() || ec.caller.get().is_some() || ec.callee.get().is_some() {
        sched::request(&ec.cpu.get());
    }
    sched::unpark_end(ec);
    for _ in 0..LINKS {
        let (waiter, portal) = (ec.waiters.pop(), ec.portals.first());
        if let Some(waiter) = waiter {
            waiter.callee.set(None);
        }
        if let Some(portal) = portal {
            Pt::orphan(portal);
        }
        if waiter.is_none() && portal.is_none() {
            if !ec.cpu.get().is_here() {
                // Nobody calls it any more. If it does not run, it never will.
                if errand::is_held(ec) {
                    errand::leave(Errand::End(ec));
                    return false;
                }
                errand::stop_for_good(ec);
            }
            // Its time goes with it, and not before: it may be the one that destroys itself.
            let ended = ec.sc.get().is_none_or(|sc| step(cpu, sc.header(), 0));
            if ended {
                cut(cpu, ec);
            }
            return ended;
        }
    }
    false
}

fn cut(cpu: &Cpu, ec: Ref<Ec>) {
    list::leave(ec);
    errand::forget(ec);
    ec.cpu.get().timeouts.disarm(&ec.timeout);
    if let Some(caller) = ec.caller.replace(None) {
        ipc::abort(caller);
    }
    if let Some(callee) = ec.callee.get()
        && callee.caller.get() == Some(ec)
    {
        callee.caller.set(None);
    }
    if ec.kind.is_vcpu() {
        arch::vcpu::unload(cpu, &ec);
    }
    release(&ec);
    if cpu.current.get() == ec {
        cpu.idle();
    }
}

/// Time: off the CPU, and out of the list in which it waits.
fn sc(sc: Ref<Sc>) {
    let cpu = sc.ec.cpu.get();
    if cpu.current_sc.get() == Some(sc) {
        cpu.current_sc.set(None);
        sched::request(&cpu);
    }
    cpu.timeouts.disarm(&sc.refill);
    list::leave(sc);
    sc.ec.sc.set(None);
}

/// A semaphore: whoever waits is told.
fn sm(sm: Ref<Sm>) -> bool {
    if let Some(interrupt) = sm.interrupt {
        interrupts::release(interrupt);
    }
    for _ in 0..LINKS {
        match sm.queue.pop() {
            Some(first) => sched::wake(first, Status::Aborted),
            None => return true,
        }
    }
    false
}

/// A space: what is in its tables goes first, then the tables.
fn space(cpu: &Cpu, space: Ref<Space>) -> bool {
    let mut cursor = space.cursor.get();
    let account = &space.pd.account;
    let done = match &space.table {
        Table::Object(table) => {
            let found = table.find_next(&Kernel, cursor as u32, SELECTORS);
            if found.cap.is_none_or(|(cap, slot)| drop_capability(cpu, cap, slot)) {
                cursor = found.next.into();
            }
            cursor >= SELECTORS.into()
        }
        Table::Host(table) => {
            shootdown::leave(table.root);
            arch::space::host(table.root).reclaim(&mut Tables(account), &mut cursor, ENTRIES)
        }
        Table::Guest(table) => table.reclaim(account, &mut cursor, ENTRIES),
        Table::Port(_) => {
            arch::space::forget_ports(&space);
            true
        }
        Table::Msr(_) | Table::Physical(_) => true,
    };
    space.cursor.set(cursor);
    if matches!(space.table, Table::Guest(_)) && (done || pool::has_retired()) {
        shootdown::guest(&space);
    }
    // No processor walks the tables of the others.
    pool::reclaim();
    if done {
        // Its domain may have been given it when there were threads already, which end after it.
        space.pd.ports.set(space.pd.ports.get().filter(|ports| *ports != space));
        space.pd.host.set(space.pd.host.get().filter(|host| *host != space));
        match &space.table {
            // What was below the root is gone.
            Table::Host(PageTable { root, .. }) | Table::Guest(GuestTable { root, .. }) => {
                Tables(account).free(*root);
            }
            // SAFETY: nothing uses the tables any more, and the space ends now.
            _ => unsafe { ptr::read(&raw const space.table).free(&space.pd) },
        }
        pool::reclaim();
    }
    done
}

/// Gives the memory of an object back that nothing refers to any more.
fn free(object: Ref<Header>) {
    while !forget(object, 0) {}
    let Some(payer) = object.payer.get() else { return };
    list::leave(object);
    // SAFETY: it was put into a slot of the payer's, and it has left every list.
    unsafe { payer.account.free(object.0.cast()) };
}
