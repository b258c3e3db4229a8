//! Every misuse of a hypercall has its own answer, and changes nothing.

use alloc::format;
use alloc::string::String;

use abi::cap::{NULL, Perms, SELECTORS, Selector, SpaceKind, own};
use abi::hypercall::Number::{self, *};
use abi::hypercall::{EcKind, Status, pack};
use abi::layout::USER_TOP;
use runtime::pd::Pd;
use runtime::selector::FREE;
use runtime::space::{GuestSpace, ObjectSpace, PortSpace};
use runtime::{handler::Handler, hypercall};

use super::raw::{self, Arguments};
use super::threads::{semaphore, spawn};
use crate::report::{Bench, Check, Test};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    ("error.number", numbers),
    ("error.create", create),
    ("error.create-ec", create_ec),
    ("error.create-sc", create_sc),
    ("error.create-pt", create_pt),
    ("error.grant", grant),
    ("error.control", control),
    ("error.permissions", permissions),
    ("error.registers-are-cleared", registers),
];

/// A call: what it is about, number, flags, selector, arguments, and the answers that are right.
type Case = (&'static str, Number, u8, Selector, Arguments, &'static [Status]);

const BAD_CAP: &[Status] = &[Status::BadCap];
const BAD_PARAM: &[Status] = &[Status::BadParam];
const OCCUPIED: &[Status] = &[Status::Occupied];

fn run(cases: &[Case]) -> Check {
    let before = quota()?;
    for (name, number, flags, selector, arguments, right) in cases {
        // SAFETY: each of the calls is wrong; if the kernel takes one for right, the test says so.
        let (status, _, _) = unsafe { raw::hypercall(*number, *flags, *selector, *arguments) };
        check!(right.contains(&status), "{name}: got {status:?}, expected {right:?}");
    }
    check_eq!(quota()?, before, "free kernel memory");
    Ok(())
}

fn quota() -> Result<u64, String> {
    Pd::OWN.quota().map(|quota| quota.free).map_err(|e| format!("quota: {e:?}"))
}

fn fresh() -> Result<Selector, String> {
    FREE.one().map_err(|e| format!("selector: {e:?}"))
}

/// A copy of a capability with fewer permissions.
fn reduced(from: Selector, perms: Perms) -> Result<Selector, String> {
    let to = fresh()?;
    ObjectSpace::OWN
        .grant(from, ObjectSpace::OWN, to, perms)
        .map_err(|e| format!("copy a capability: {e:?}"))?;
    Ok(to)
}

const fn without(perms: Perms) -> Perms {
    Perms(!perms.0)
}

fn numbers(_: &mut Bench<'_>) -> Check {
    for number in [17_u64, 18, 127, 255] {
        // SAFETY: there is no such hypercall.
        let output = unsafe { raw::with_flags(number | 1 << 32, [0; 5], 0x202) };
        check_eq!(Status::from_abi(output.gpr[0]), Status::BadHypercall, "hypercall {number}");
    }
    run(&[
        ("reply of a thread", Reply, 0, 0, [0; 5], &[Status::BadHypercall]),
        (
            "operation on a semaphore",
            CtrlSm,
            3,
            semaphore()?.selector(),
            [0; 5],
            &[Status::BadHypercall],
        ),
        (
            "operation on a domain",
            CtrlPd,
            3,
            own::PD,
            [0; 5],
            &[Status::BadHypercall, Status::BadParam],
        ),
    ])
}

fn create(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?.selector();
    let (free, taken) = (fresh()?.into(), u64::from(sm));
    let no_create = reduced(own::PD, without(Perms::PD_CREATE))?;
    let no_quota = reduced(own::PD, without(Perms::PD_QUOTA))?;
    let all = quota()?;
    let kind = SpaceKind::Guest as u64;
    run(&[
        ("Pd below nothing", CreatePd, 0, NULL, [free, 1, 0, 0, 0], BAD_CAP),
        ("Pd below a semaphore", CreatePd, 0, sm, [free, 1, 0, 0, 0], BAD_CAP),
        ("Pd without PD_CREATE", CreatePd, 0, no_create, [free, 1, 0, 0, 0], BAD_CAP),
        ("Pd without PD_QUOTA", CreatePd, 0, no_quota, [free, 1, 0, 0, 0], BAD_CAP),
        ("Pd at a taken selector", CreatePd, 0, own::PD, [taken, 1, 0, 0, 0], OCCUPIED),
        ("Pd with too much", CreatePd, 0, own::PD, [free, all + 1, 0, 0, 0], &[Status::Quota]),
        ("Pd with far too much", CreatePd, 0, own::PD, [free, u64::MAX, 0, 0, 0], &[Status::Quota]),
        ("space of no kind", CreateSpace, 0, own::PD, [free, 6, 0, 0, 0], BAD_PARAM),
        ("physical space", CreateSpace, 0, own::PD, [free, 5, 0, 0, 0], BAD_PARAM),
        ("space of a large kind", CreateSpace, 0, own::PD, [free, 1 << 32, 0, 0, 0], BAD_PARAM),
        ("space without PD_CREATE", CreateSpace, 0, no_create, [free, kind, 0, 0, 0], BAD_CAP),
        ("space at a taken selector", CreateSpace, 0, own::PD, [taken, kind, 0, 0, 0], OCCUPIED),
        ("semaphore of a semaphore", CreateSm, 0, sm, [free, 0, 0, 0, 0], BAD_CAP),
        ("semaphore without PD_CREATE", CreateSm, 0, no_create, [free, 0, 0, 0, 0], BAD_CAP),
        ("semaphore at a taken selector", CreateSm, 0, own::PD, [taken, 0, 0, 0, 0], OCCUPIED),
        ("semaphore at NULL", CreateSm, 0, own::PD, [0; 5], &[Status::BadCap, Status::BadParam]),
        ("semaphore beyond all", CreateSm, 0, own::PD, [SELECTORS.into(), 0, 0, 0, 0], BAD_CAP),
        ("semaphore far beyond", CreateSm, 0, own::PD, [1 << 32 | 50, 0, 0, 0, 0], BAD_CAP),
        ("payer beyond all", CreateSm, 0, SELECTORS, [free, 0, 0, 0, 0], BAD_CAP),
        ("payer far beyond all", CreateSm, 0, u32::MAX, [free, 0, 0, 0, 0], BAD_CAP),
    ])
}

fn create_ec(_: &mut Bench<'_>) -> Check {
    const UTCB: u64 = 0x6000_0000_0000;
    let new = fresh()?.into();
    let sm = semaphore()?.selector();
    let guest = GuestSpace::create(Pd::OWN).map_err(|e| format!("{e:?}"))?.selector();
    let ports = PortSpace::create(Pd::OWN).map_err(|e| format!("{e:?}"))?.selector();
    let no_assign = reduced(guest, without(Perms::SPACE_ASSIGN))?;
    let (guest, ports, no_assign) = (u64::from(guest), u64::from(ports), u64::from(no_assign));
    let thread = EcKind::Thread as u64;
    let vcpu = EcKind::Vcpu as u64;
    let mapped = create_ec as *const () as u64 & !0xfff;
    let pd = own::PD;
    run(&[
        ("Ec of no kind", CreateEc, 0, pd, [new, 3, UTCB, 0, 0], BAD_PARAM),
        ("Ec of a semaphore", CreateEc, 0, sm, [new, thread, UTCB, 0, 0], BAD_CAP),
        ("thread at a taken selector", CreateEc, 0, pd, [1, thread, UTCB, 0, 0], OCCUPIED),
        ("thread on another CPU", CreateEc, 0, pd, [new, 99 << 8, UTCB, 0, 0], &[Status::BadCpu]),
        ("UTCB not aligned", CreateEc, 0, pd, [new, thread, UTCB + 8, 0, 0], BAD_PARAM),
        ("UTCB in the kernel", CreateEc, 0, pd, [new, thread, !0xfff, 0, 0], BAD_PARAM),
        ("UTCB at the end", CreateEc, 0, pd, [new, thread, USER_TOP, 0, 0], BAD_PARAM),
        ("UTCB over code", CreateEc, 0, pd, [new, thread, mapped, 0, 0], OCCUPIED),
        ("stack in the kernel", CreateEc, 0, pd, [new, thread, UTCB, 1 << 63, 0], BAD_PARAM),
        ("code in the kernel", CreateEc, 0, pd, [new, thread, UTCB, 0, 1 << 63], BAD_PARAM),
        ("virtual CPU without memory", CreateEc, 0, pd, [new, vcpu, 0, 0, 0], BAD_CAP),
        ("virtual CPU in ports", CreateEc, 0, pd, [new, vcpu, ports, 0, 0], BAD_CAP),
        ("ports for MSRs", CreateEc, 0, pd, [new, vcpu, guest, ports, 0], BAD_CAP),
        ("memory for ports", CreateEc, 0, pd, [new, vcpu, guest, 0, guest], BAD_CAP),
        ("memory without SPACE_ASSIGN", CreateEc, 0, pd, [new, vcpu, no_assign, 0, 0], BAD_CAP),
        ("memory far beyond", CreateEc, 0, pd, [new, vcpu, 1 << 32 | guest, 0, 0], BAD_CAP),
    ])?;
    // None of them left anything at the address of the UTCB: it can still be had.
    let code = runtime::park as *const () as u64;
    let ec = fresh()?;
    // SAFETY: without a scheduling context the thread never runs.
    unsafe { hypercall::create_thread(ec, pd, (0, 0), (UTCB, 0, code)) }
        .map_err(|e| format!("a thread after all: {e:?}"))
}

fn create_sc(bench: &mut Bench<'_>) -> Check {
    let new = fresh()?.into();
    let thread = spawn(1, |_| {})?.ec.selector();
    let handler = Handler::new(()).map_err(|e| format!("{e:?}"))?.ec().selector();
    let ec = fresh()?;
    // SAFETY: none of the attempts to let it run succeeds.
    unsafe { hypercall::create_thread(ec, own::PD, (0, 0), (0x6000_0001_0000, 0, 0)) }
        .map_err(|e| format!("a thread: {e:?}"))?;
    let no_bind = reduced(ec, without(Perms::EC_BIND_SC))?.into();
    let (thread, handler, ec) = (u64::from(thread), u64::from(handler), u64::from(ec));
    let p = bench.priority;
    let busy = &[Status::Busy][..];
    let pd = own::PD;
    run(&[
        ("Sc of nothing", CreateSc, 0, pd, [new, 0, 1, 1_000_000, 0], BAD_CAP),
        ("Sc of a domain", CreateSc, 0, pd, [new, 1, 1, 1_000_000, 0], BAD_CAP),
        ("Sc without EC_BIND_SC", CreateSc, 0, pd, [new, no_bind, 1, 1_000_000, 0], BAD_CAP),
        (
            "Sc for a handler",
            CreateSc,
            0,
            pd,
            [new, handler, 1, 1_000_000, 0],
            &[Status::Busy, Status::BadParam],
        ),
        ("second Sc", CreateSc, 0, pd, [new, thread, 1, 1_000_000, 0], busy),
        ("Sc above the caller", CreateSc, 0, pd, [new, ec, p + 1, 1_000_000, 0], BAD_PARAM),
        ("Sc above all", CreateSc, 0, pd, [new, ec, 128, 1_000_000, 0], BAD_PARAM),
        ("Sc far above all", CreateSc, 0, pd, [new, ec, 256, 1_000_000, 0], BAD_PARAM),
        ("Sc without budget", CreateSc, 0, pd, [new, ec, 1, 0, 0], BAD_PARAM),
        ("Sc with next to no budget", CreateSc, 0, pd, [new, ec, 1, 10, 20], BAD_PARAM),
        ("more budget than period", CreateSc, 0, pd, [new, ec, 1, 1_000_001, 1_000_000], BAD_PARAM),
        ("Sc at a taken selector", CreateSc, 0, pd, [1, ec, 1, 1_000_000, 0], OCCUPIED),
    ])
}

fn create_pt(_: &mut Bench<'_>) -> Check {
    let new = fresh()?.into();
    let thread = spawn(1, |_| {})?.ec.selector().into();
    let handler = Handler::new(()).map_err(|e| format!("{e:?}"))?.ec().selector();
    let no_bind = reduced(handler, without(Perms::EC_BIND_PT))?.into();
    let handler = u64::from(handler);
    let pd = own::PD;
    run(&[
        ("Pt of nothing", CreatePt, 0, pd, [new, 0, 0x1000, 0, 0], BAD_CAP),
        ("Pt of a thread", CreatePt, 0, pd, [new, thread, 0x1000, 0, 0], BAD_PARAM),
        ("Pt without EC_BIND_PT", CreatePt, 0, pd, [new, no_bind, 0x1000, 0, 0], BAD_CAP),
        ("Pt into the kernel", CreatePt, 0, pd, [new, handler, 1 << 63, 0, 0], BAD_PARAM),
        ("Pt at a taken selector", CreatePt, 0, pd, [1, handler, 0x1000, 0, 0], OCCUPIED),
    ])
}

fn grant(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?.selector();
    let guest = GuestSpace::create(Pd::OWN).map_err(|e| format!("{e:?}"))?.selector();
    let ports = PortSpace::create(Pd::OWN).map_err(|e| format!("{e:?}"))?.selector();
    let no_grant = reduced(guest, without(Perms::SPACE_GRANT))?.into();
    let no_take = reduced(own::OBJECTS, without(Perms::SPACE_TAKE))?;
    let no_revoke = reduced(own::OBJECTS, without(Perms::SPACE_REVOKE))?;
    let (free, objects, memory) = (u64::from(fresh()?), u64::from(own::OBJECTS), own::MEMORY);
    let (guest_to, end) = (u64::from(guest), u64::from(SELECTORS));
    run(&[
        ("from nothing", Grant, 0, 0, [objects, 1, free, 1, 255], BAD_CAP),
        ("from a semaphore", Grant, 0, sm, [objects, 1, free, 1, 255], BAD_CAP),
        ("to a semaphore", Grant, 0, own::OBJECTS, [sm.into(), 1, free, 1, 255], BAD_CAP),
        ("without SPACE_TAKE", Grant, 0, no_take, [objects, 1, free, 1, 255], BAD_CAP),
        ("without SPACE_GRANT", Grant, 0, memory, [no_grant, 0x400, 0, 1, 7], BAD_CAP),
        ("capabilities to a guest", Grant, 0, own::OBJECTS, [guest_to, 1, 1, 1, 7], BAD_PARAM),
        ("memory to capabilities", Grant, 0, memory, [objects, 0x400, free, 1, 7], BAD_PARAM),
        ("from a guest", Grant, 0, guest, [guest_to, 0, 0, 1, 7], BAD_PARAM),
        ("ports to a guest", Grant, 0, ports, [guest_to, 0, 0, 1, 0], BAD_PARAM),
        ("to a taken selector", Grant, 0, own::OBJECTS, [objects, 2, 1, 1, 255], OCCUPIED),
        (
            "to NULL",
            Grant,
            0,
            own::OBJECTS,
            [objects, 1, 0, 1, 255],
            &[Status::BadCap, Status::BadParam],
        ),
        ("from beyond all", Grant, 0, own::OBJECTS, [objects, end, free, 1, 255], BAD_PARAM),
        ("to beyond all", Grant, 0, own::OBJECTS, [objects, 1, end, 1, 255], BAD_PARAM),
        ("too many", Grant, 0, own::OBJECTS, [objects, 1, free, u64::MAX, 255], BAD_PARAM),
        ("revoke from nothing", Revoke, 0, 0, [0, 1, 0, 1, 7], BAD_CAP),
        ("revoke without SPACE_REVOKE", Revoke, 0, no_revoke, [0, free, 0, 1, 7], BAD_CAP),
        ("revoke beyond all", Revoke, 0, own::OBJECTS, [0, end, 0, 1, 7], BAD_PARAM),
        ("revoke too many", Revoke, 0, own::OBJECTS, [0, free, 0, u64::MAX, 7], BAD_PARAM),
    ])?;
    // What is not there is skipped, and so is nothing at all.
    // SAFETY: nothing is granted.
    let none = unsafe { raw::hypercall(Grant, 0, own::OBJECTS, [objects, free, free + 1, 1, 255]) };
    check_eq!((none.0, none.1), (Status::Success, 1), "granting an empty selector");
    // SAFETY: nothing is granted.
    let none = unsafe { raw::hypercall(Grant, 0, own::MEMORY, [guest_to, 0x400, 0, 0, 7]) };
    check_eq!((none.0, none.1), (Status::Success, 0), "granting nothing");
    Ok(())
}

fn control(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?.selector();
    let thread = spawn(1, |_| {})?;
    let (ec, sc) = (thread.ec.selector(), thread.sc.selector());
    let child = Pd::OWN.create_pd(1).map_err(|e| format!("{e:?}"))?.selector();
    let quota = &[Status::Quota][..];
    run(&[
        ("recall nothing", CtrlEc, 0, NULL, [0; 5], BAD_CAP),
        ("recall a semaphore", CtrlEc, 0, sm, [0; 5], BAD_CAP),
        ("recall a thread", CtrlEc, 0, ec, [0; 5], BAD_PARAM),
        ("another operation", CtrlEc, 7, ec, [0; 5], &[Status::BadHypercall]),
        ("time of a semaphore", CtrlSc, 0, sm, [0; 5], BAD_CAP),
        ("time of a thread", CtrlSc, 0, ec, [0; 5], BAD_CAP),
        ("change a semaphore", CtrlPt, 0, sm, [0; 5], BAD_CAP),
        ("up a thread", CtrlSm, 0, ec, [0; 5], BAD_CAP),
        ("up nothing", CtrlSm, 0, NULL, [0; 5], BAD_CAP),
        ("up beyond all", CtrlSm, 0, SELECTORS + 5, [0; 5], BAD_CAP),
        ("interrupt of a semaphore", AssignInt, 0, sm, [0; 5], BAD_PARAM),
        ("interrupt of an Sc", AssignInt, 0, sc, [0; 5], BAD_CAP),
        ("quota of a semaphore", CtrlPd, 0, sm, [0; 5], BAD_CAP),
        ("give to oneself", CtrlPd, 1, own::PD, [0, 1, 0, 0, 0], BAD_PARAM),
        ("give too much", CtrlPd, 1, child, [0, u64::MAX, 0, 0, 0], quota),
        ("take too much", CtrlPd, 2, child, [0, 1000, 0, 0, 0], quota),
    ])
}

fn permissions(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?.selector();
    let thread = spawn(1, |_| {})?;
    let handler = Handler::new(()).map_err(|e| format!("{e:?}"))?;
    let pt = handler
        .portal(0, 0, |(), _: &mut abi::utcb::Utcb, _, _| abi::utcb::MsgTag::default())
        .map_err(|e| format!("{e:?}"))?
        .selector();
    let child = Pd::OWN.create_pd(1).map_err(|e| format!("{e:?}"))?.selector();
    run(&[
        ("SM_UP", CtrlSm, 0, reduced(sm, without(Perms::SM_UP))?, [0; 5], BAD_CAP),
        ("SM_DOWN", CtrlSm, 1, reduced(sm, without(Perms::SM_DOWN))?, [0; 5], BAD_CAP),
        ("SM_DOWN for all", CtrlSm, 2, reduced(sm, without(Perms::SM_DOWN))?, [0; 5], BAD_CAP),
        ("SM_BIND", AssignInt, 0, reduced(sm, without(Perms::SM_BIND))?, [0; 5], BAD_CAP),
        (
            "EC_CTRL",
            CtrlEc,
            0,
            reduced(thread.ec.selector(), without(Perms::EC_CTRL))?,
            [0; 5],
            BAD_CAP,
        ),
        (
            "SC_CTRL",
            CtrlSc,
            0,
            reduced(thread.sc.selector(), without(Perms::SC_CTRL))?,
            [0; 5],
            BAD_CAP,
        ),
        ("PT_CALL", Call, 0, reduced(pt, without(Perms::PT_CALL))?, [0; 5], BAD_CAP),
        ("PT_CTRL", CtrlPt, 0, reduced(pt, without(Perms::PT_CTRL))?, [0; 5], BAD_CAP),
        ("PD_QUOTA", CtrlPd, 0, reduced(child, without(Perms::PD_QUOTA))?, [0; 5], BAD_CAP),
        ("call nothing", Call, 0, NULL, [0; 5], BAD_CAP),
        ("call a semaphore", Call, 0, sm, [0; 5], BAD_CAP),
        ("call beyond all", Call, 0, SELECTORS, [0; 5], BAD_CAP),
    ])?;
    // A copy of a copy gets nothing back.
    let down_only = reduced(sm, Perms::SM_DOWN)?;
    let again = reduced(down_only, Perms::ALL)?;
    run(&[("a copy of a copy", CtrlSm, 0, again, [0; 5], BAD_CAP)])
}

fn registers(_: &mut Bench<'_>) -> Check {
    let sm = semaphore()?.selector();
    for (name, rax) in [
        ("up", pack(CtrlSm, 0, sm)),
        ("bad call", pack(Call, 0, NULL)),
        ("no hypercall", 99),
        ("read the quota", pack(CtrlPd, 0, own::PD)),
    ] {
        // SAFETY: none of them changes memory.
        let output = unsafe { raw::with_flags(rax, [7, 7, 7, 7, 7], 0x202) };
        for index in [3, 5, 8, 9, 10, 12, 13, 14, 15] {
            check_eq!(output.gpr[index], 0, "{name}: register {index}");
        }
        check_eq!(output.gpr[11], raw::left_in_r11(), "{name}: register 11");
        check!(output.gpr[1] < USER_TOP && output.gpr[2] < USER_TOP, "{name}: RCX or RDX");
        check_eq!(output.flags & 0x7_fd00, 0, "{name}: flags");
    }
    Ok(())
}
