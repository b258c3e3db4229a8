//! Hypercall `Destroy`.

use core::iter::successors;

use abi::cap::{ObjectType, Perms, Selector};
use abi::hypercall::Status;
use hypervisor_logic::objects::Cap;

use super::fail;
use crate::arch::cpu::cpu;
use crate::mem::tables::Kernel;
use crate::object::ec::Ec;
use crate::object::space::{Space, Table};
use crate::object::{Header, Ref, destroy};
use crate::sched;

/// Hypercall `Destroy`.
pub extern "C" fn destroy(ec: &Ec, _: u64, word: u64, _: u64, _: u64, _: u64) -> *const Ec {
    let (cpu, caller) = (cpu(), Ref::of(ec));
    let (object, slot) = match find(caller, (word >> 32) as Selector) {
        Ok(found) => found,
        Err(status) => return fail(caller, status),
    };
    caller.set_result(Status::Partial);
    let gone = destroy::step(cpu, object, slot);
    if cpu.current.get() != caller {
        // It was its own end.
        return sched::preempt(cpu).as_ptr();
    }
    if gone {
        caller.set_result(Status::Success);
    }
    sched::go_on(cpu, caller).as_ptr()
}

/// The object to destroy, and the slot of its capability.
fn find(caller: Ref<Ec>, selector: Selector) -> Result<(Ref<Header>, u64), Status> {
    let table = caller.pd.object_table().ok_or(Status::BadCap)?;
    let found = table.find_next(&Kernel, selector, selector.saturating_add(1));
    let may_end = |cap: Cap| cap.perms().intersection(Perms::DESTROY) != Perms::NONE;
    let found = found.cap.filter(|(cap, _slot)| may_end(*cap));
    let (Cap { object, .. }, slot) = found.ok_or(Status::BadCap)?;
    // SAFETY: a capability that is in a table names a live object, which begins with its header.
    let header = unsafe { Ref::<Header>::from_address(object) };
    match header.ty {
        ObjectType::Pd => {
            let mut above = successors(Some(caller.pd), |pd| pd.parent());
            if above.any(|pd| pd.header() == header) {
                return Err(Status::BadParam);
            }
        }
        ObjectType::Space => {
            // SAFETY: its type says that it is one.
            let space = unsafe { Ref::<Space>::from_address(object) };
            if matches!(space.table, Table::Physical(_)) {
                return Err(Status::BadParam);
            }
            if space.users.get() != 0 {
                return Err(Status::Busy);
            }
        }
        _ => {}
    }
    Ok((header, slot))
}
