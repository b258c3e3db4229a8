//! Making objects.
//!
//! Each follows the same order: look up what is named, check the arguments, take memory, put the capability
//! into the caller's table; and on a failure gives back what it took.

use abi::cap::{Perms, Selector, SpaceKind};
use abi::hypercall::Status;
use abi::layout::{PAGE_SIZE, USER_TOP};
use hypervisor_logic::sched::Budget;

use super::{Args, Outcome, Values, selector};
use crate::arch::cpu::{self, Cpu};
use crate::arch::{self, Resume, Vcpu};
use crate::mem::{phys, virt};
use crate::object::ec::{Ec, Kind};
use crate::object::pd::Pd;
use crate::object::pt::Pt;
use crate::object::sc::Sc;
use crate::object::sm::Sm;
use crate::object::space::{Space, Table};
use crate::object::{Object, Ref, destroy, lookup};
use crate::sched;

/// Puts a new object's capability into the caller's table, or destroys the object.
fn publish<T: Object>(cpu: &Cpu, caller: &Pd, at: u64, object: Ref<T>) -> Outcome {
    let result = selector(at).and_then(|at| caller.insert(at, object.cap(Perms::ALL)));
    result.map(|()| Values::NONE).inspect_err(|_| destroy::undo(cpu, object.header()))
}

/// Whether the caller's table can take a capability there: asked before something is made that cannot be undone.
fn vacant(caller: &Pd, at: u64) -> Result<Selector, Status> {
    let at = selector(at)?;
    if at == abi::cap::NULL || at >= abi::cap::SELECTORS {
        return Err(Status::BadCap);
    }
    if caller.capability(at).is_empty() { Ok(at) } else { Err(Status::Occupied) }
}

fn payer(caller: &Pd, args: Args) -> Result<Ref<Pd>, Status> {
    lookup::<Pd>(caller, args.selector, Perms::PD_CREATE)
}

/// Hypercall `CreatePd`.
pub fn pd(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    /// Domains above one at most.
    const DEEPEST: u8 = 64;
    let parent = lookup::<Pd>(caller, args.selector, Perms::PD_CREATE.union(Perms::PD_QUOTA))?;
    vacant(caller, args.a1)?;
    if parent.depth >= DEEPEST {
        return Err(Status::BadParam);
    }
    let max_priority = u8::try_from(args.a3).unwrap_or(u8::MAX).min(parent.max_priority);
    let child = Pd::new(parent.depth + 1, 0, max_priority, args.a4 & parent.cpus);
    let child = Ref::create(parent, child).map_err(|(status, _)| status)?;
    let moved = parent.account.transfer(&child.account, args.a2);
    moved.inspect_err(|_| destroy::undo(cpu, child.header()))?;
    publish(cpu, caller, args.a1, child)
}

/// Hypercall `CreateSpace`.
pub fn space(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let pd = payer(caller, args)?;
    let kind = SpaceKind::from_abi(args.a2).ok_or(Status::BadParam)?;
    vacant(caller, args.a1)?;
    let space = Space::create(pd, kind)?;
    publish(cpu, caller, args.a1, space)?;
    space.adopt();
    Ok(Values::NONE)
}

/// Hypercall `CreateEc`.
pub fn ec(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let pd = payer(caller, args)?;
    let kind = match args.a2 as u8 {
        0 => Kind::Thread,
        1 => Kind::Handler,
        2 => Kind::Vcpu(arch::vendor()),
        _ => return Err(Status::BadParam),
    };
    let home = cpu::find(args.a2 >> 8 & 0xffff).filter(|home| pd.may_use(home.number));
    let home = home.ok_or(Status::BadCpu)?;
    if !pd.has_objects() || pd.cr3.get() == 0 {
        return Err(Status::BadParam);
    }
    vacant(caller, args.a1)?;
    let mut ec = Ec::new(pd, kind, home);
    ec.events = (args.a2 >> 32) as Selector;
    if kind.is_vcpu() { vcpu(caller, &mut ec, args) } else { thread(&mut ec, args) }?;
    let ec = Ref::create(pd, ec).map_err(|(status, ec)| {
        release(&ec);
        status
    })?;
    if kind.is_vcpu() {
        arch::vcpu::init(ec);
    }
    publish(cpu, caller, args.a1, ec)
}

/// What a thread or handler has.
fn thread(ec: &mut Ec, args: Args) -> Result<(), Status> {
    let (utcb, sp, ip) = (args.a3, args.a4, args.a5);
    let aligned = utcb.is_multiple_of(PAGE_SIZE);
    if !aligned || [utcb, sp, ip].iter().any(|address| *address >= USER_TOP) {
        return Err(Status::BadParam);
    }
    ec.utcb = virt(map_utcb(ec.pd, utcb)?).cast();
    (ec.utcb_address, ec.entry_sp) = (utcb, sp);
    ec.resume.set(Resume::hypercall());
    let frame = ec.regs();
    (frame.rip, frame.rsp, frame.gpr.rsi) = (ip, sp, utcb);
    Ok(())
}

/// Gives back what an execution context has besides its memory, when it does not run, or not any more.
pub fn release(ec: &Ec) {
    if ec.kind.is_vcpu() {
        ec.vcpu.free(&ec.pd);
    } else if let Some(host) = ec.pd.host.get()
        && let Table::Host(table) = &host.table
    {
        arch::space::unmap_kernel_page(table.root, &ec.pd.account, ec.utcb_address);
        // SAFETY: it is no longer mapped, and nobody uses it.
        unsafe { ec.pd.account.give_page(phys(ec.utcb)) };
    }
}

/// A message page for a thread of `pd`, mapped at `address`: its physical address.
fn map_utcb(pd: Ref<Pd>, address: u64) -> Result<u64, Status> {
    let host = pd.host.get().ok_or(Status::BadParam)?;
    let Table::Host(table) = &host.table else { return Err(Status::BadParam) };
    let page = pd.account.take_page().ok_or(Status::Quota)?;
    arch::space::map_vacant(table.root, &pd.account, address, page).inspect_err(|_| {
        // SAFETY: it was just taken and is not mapped.
        unsafe { pd.account.give_page(page) };
    })?;
    Ok(page)
}

/// What a virtual CPU has.
fn vcpu(caller: &Pd, ec: &mut Ec, args: Args) -> Result<(), Status> {
    let space = |argument: u64| -> Result<Option<Ref<Space>>, Status> {
        match selector(argument)? {
            abi::cap::NULL => Ok(None),
            named => lookup::<Space>(caller, named, Perms::SPACE_ASSIGN).map(Some),
        }
    };
    let guest = space(args.a3)?.ok_or(Status::BadCap)?;
    let (msrs, ports) = (space(args.a4)?, space(args.a5)?);
    let fits = matches!(guest.table, Table::Guest(_))
        && msrs.is_none_or(|space| matches!(space.table, Table::Msr(_)))
        && ports.is_none_or(|space| matches!(space.table, Table::Port(_)));
    if !fits {
        return Err(Status::BadCap);
    }
    // So that it ends before they do.
    let spaces = [Some(guest), msrs, ports];
    if spaces.iter().flatten().any(|space| space.pd != ec.pd || space.is_ending()) {
        return Err(Status::BadParam);
    }
    ec.vcpu = Vcpu::new(&ec.pd, spaces)?;
    Ok(())
}

/// Hypercall `CreateSc`.
pub fn sc(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let pd = payer(caller, args)?;
    let ec = lookup::<Ec>(caller, selector(args.a2)?, Perms::EC_BIND_SC)?;
    let priority = u8::try_from(args.a3).ok().filter(|priority| *priority <= pd.max_priority);
    let priority = priority.ok_or(Status::BadParam)?;
    if args.a4 < sched::least_budget() || (args.a5 != 0 && args.a4 > args.a5) {
        return Err(Status::BadParam);
    }
    if ec.kind == Kind::Handler || ec.sc.get().is_some() {
        return Err(Status::Busy);
    }
    if !pd.may_use(ec.cpu.get().number) {
        return Err(Status::BadCpu);
    }
    let budget = Budget::new(args.a4, args.a5, arch::tsc());
    let sc = Ref::create(pd, Sc::new(ec, priority, budget)).map_err(|(status, _)| status)?;
    ec.sc.set(Some(sc));
    publish(cpu, caller, args.a1, sc)?;
    sched::make_ready(sc);
    Ok(Values::NONE)
}

/// Hypercall `CreatePt`.
pub fn pt(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let pd = payer(caller, args)?;
    let handler = lookup::<Ec>(caller, selector(args.a2)?, Perms::EC_BIND_PT)?;
    if handler.kind != Kind::Handler || args.a3 >= USER_TOP {
        return Err(Status::BadParam);
    }
    let pt = Pt::new(handler, args.a3, args.a4, args.a5);
    let pt = Ref::create(pd, pt).map_err(|(status, _)| status)?;
    handler.portals.push_back(pt);
    publish(cpu, caller, args.a1, pt)
}

/// Hypercall `CreateSm`.
pub fn sm(cpu: &Cpu, caller: &Pd, args: Args) -> Outcome {
    let pd = payer(caller, args)?;
    let sm = Ref::create(pd, Sm::new(args.a2, None)).map_err(|(status, _)| status)?;
    publish(cpu, caller, args.a1, sm)
}
