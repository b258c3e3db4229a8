//! Memory that a domain is given and that is taken away from it again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::cap::{MemRights, Perms, own};
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::Status;
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall::{self, Span};
use runtime::lock::Lock;
use runtime::memory::GuestMemory;
use runtime::pd::Pd;
use runtime::protocol::startup::Share;
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{HostSpace, ObjectSpace};
use runtime::task::defaults;

use super::threads::{SLICE, STACK, semaphore};
use super::victim::{Victim, note};
use crate::check_eq;
use crate::report::{Bench, Check, Test};

pub const TESTS: &[Test] = &[
    ("grant.rights", rights),
    ("grant.revoke", revoke),
    ("grant.large", large),
    ("grant.replace", replace),
    ("grant.pinned", pinned),
    ("grant.own-memory", own_memory),
];

fn show(status: Status) -> String {
    format!("{status:?}")
}

/// What a probe does with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Access {
    Read = 0,
    Write = 1,
    Fetch = 2,
}

/// The code of a probe: on its stack are an address and what to do with it. It ends with UD2, or with the fault.
#[unsafe(naked)]
#[unsafe(link_section = ".text.probe")]
unsafe extern "C" fn probe_code() {
    naked_asm!(
        ".balign 4096",
        "pop rax",
        "pop rcx",
        "cmp rcx, 1",
        "je 2f",
        "ja 3f",
        "mov rdx, [rax]",
        "ud2",
        "2:",
        "mov [rax], rax",
        "ud2",
        "3:",
        // The page it jumps to begins with UD2.
        "jmp rax",
        ".balign 4096",
    )
}

const CODE: u64 = 0x40_0000;
const STACK_PAGE: u64 = 0x50_0000;
const UTCB: u64 = 0x60_0000;
/// Offset in the test's memory of the page that is the probe's stack.
const STACK_AT: u64 = 0;

struct Shared {
    fault: Lock<Option<FaultState>>,
    go: Sm,
    done: Sm,
}

/// A thread in a domain of its own that accesses memory when told to.
struct Probe {
    host: HostSpace,
    memory: GuestMemory,
    shared: &'static Shared,
}

impl Probe {
    fn new(bench: &Bench<'_>) -> Result<Self, String> {
        Self::make(bench).map_err(show)
    }

    fn make(bench: &Bench<'_>) -> Result<Self, Status> {
        let pd = Pd::OWN.create_pd(24)?;
        let objects = ObjectSpace::create(pd)?;
        let host = HostSpace::create(pd)?;
        let lost = |_| Status::Quota;
        let (go, done) = (semaphore().map_err(lost)?, semaphore().map_err(lost)?);
        let shared: &'static Shared =
            Box::leak(Box::new(Shared { fault: Lock::new(None), go, done }));
        let events = FREE.range(32)?;
        let handler = Handler::with(defaults(), STACK, shared)?;
        for vector in 0..32 {
            handler.portal_at(
                events + vector,
                0,
                FaultGroups::STATE.0 | FaultGroups::CAUSE.0,
                serve,
            )?;
        }
        ObjectSpace::OWN.grant_range(events, objects, events, 32, Perms::PT_EVENT)?;
        let this = Self { host, memory: bench.memory, shared };
        let page = |at: u64| at >> 12;
        let code = (probe_code as *const () as u64).next_multiple_of(4096);
        this.grant_page(page(code), page(CODE), 1, MemRights::RX)?;
        this.give(STACK_AT, STACK_PAGE, 4096, MemRights::RW)?;
        let ec = FREE.one()?;
        // SAFETY: the domain has nothing but what was just put there. The thread's first pop is from an empty place: that
        // fault is what it waits with for its first job.
        unsafe { hypercall::create_thread(ec, pd.selector(), (0, events), (UTCB, 0x1000, CODE))? };
        let share = Share { priority: bench.priority - 1, budget: SLICE, period: 0 };
        Sc::create(pd, Ec::at(ec), share)?;
        this.shared.done.down_until(bench.in_ms(100))?;
        Ok(this)
    }

    fn grant_page(&self, from: u64, to: u64, count: u64, rights: MemRights) -> Result<(), Status> {
        let span = Span { from, to, count };
        // SAFETY: it goes to the probe's domain, and nobody here minds what that does to it.
        unsafe { hypercall::grant(own::MEMORY, self.host.selector(), span, rights.0.into()) }
    }

    /// Gives the probe memory of the test, `bytes` from `offset` on, at the address `va`.
    fn give(&self, offset: u64, va: u64, bytes: u64, rights: MemRights) -> Result<(), Status> {
        let region = self.memory.region(offset, bytes).map_err(|_| Status::BadParam)?;
        self.grant_page(region.base() >> 12, va >> 12, bytes >> 12, rights)
    }

    fn take(&self, va: u64, bytes: u64, rights: MemRights) -> Result<(), String> {
        // SAFETY: the probe is ready for it.
        unsafe { self.host.revoke(va, bytes, rights) }.map_err(show)
    }

    /// Lets the probe access an address: the error code of its page fault, or `None` if all went well.
    fn access(&self, bench: &Bench<'_>, access: Access, va: u64) -> Result<Option<u64>, String> {
        let outside = |_| String::from("outside of memory");
        self.memory.store_u64(STACK_AT + 0x800, va).map_err(outside)?;
        self.memory.store_u64(STACK_AT + 0x808, access as u64).map_err(outside)?;
        self.shared.go.up().map_err(show)?;
        self.shared.done.down_until(bench.in_ms(100)).map_err(show)?;
        let state = self.shared.fault.lock().ok_or("no fault")?;
        match state.vector {
            6 => Ok(None),
            14 => {
                check_eq!(state.address, va, "address of the {access:?}");
                Ok(Some(state.error))
            }
            other => Err(format!("{access:?} at {va:#x}: vector {other}")),
        }
    }

    /// What of reading, writing and fetching works at an address.
    fn rights(&self, bench: &Bench<'_>, va: u64) -> Result<MemRights, String> {
        let mut rights = MemRights(0);
        for (access, right, error) in [
            (Access::Read, MemRights::R, 4),
            (Access::Fetch, MemRights::X, 0x14),
            (Access::Write, MemRights::W, 6),
        ] {
            match self.access(bench, access, va)? {
                None => rights = rights.union(right),
                // The protection bit says whether there is anything at all.
                Some(code) => check_eq!(code & !1, error, "error code of {access:?} at {va:#x}"),
            }
        }
        Ok(rights)
    }
}

fn serve(shared: &mut &'static Shared, state: &mut FaultState, _: u64, _: u64) -> FaultGroups {
    *shared.fault.lock() = Some(*state);
    let _ = shared.done.up();
    while shared.go.down().is_err() {}
    state.rip = CODE;
    state.gpr.rsp = STACK_PAGE + 0x800;
    FaultGroups::STATE
}

/// Fills pages of the test's memory with the code of UD2.
fn prepare(bench: &Bench<'_>, offset: u64, bytes: u64) -> Check {
    for page in (offset..offset + bytes).step_by(4096) {
        bench.memory.store_u16(page, 0x0b0f).map_err(|_| "outside of memory")?;
    }
    Ok(())
}

fn rights(bench: &mut Bench<'_>) -> Check {
    let probe = Probe::new(bench)?;
    let va = 0x1234_5678_9000;
    for given in [MemRights::R, MemRights::RW, MemRights::RX, MemRights::RWX, MemRights::R] {
        prepare(bench, 0x1_0000, 4096)?;
        probe.give(0x1_0000, va, 4096, given).map_err(show)?;
        check_eq!(probe.rights(bench, va)?, given, "rights after a grant");
    }
    for next in [va - 4096, va + 4096] {
        check_eq!(probe.rights(bench, next)?, MemRights(0), "rights next to the page");
    }
    // Code can be passed on, not with the right to write.
    let code = prepare as *const () as u64 >> 12;
    probe.grant_page(code, va >> 12, 1, MemRights::RWX).map_err(show)?;
    check_eq!(probe.access(bench, Access::Write, va)?, Some(7), "writing to the test's code");
    check_eq!(probe.access(bench, Access::Read, va)?, None, "reading the test's code");
    Ok(())
}

fn revoke(bench: &mut Bench<'_>) -> Check {
    let probe = Probe::new(bench)?;
    let va = 0x7000_0000;
    prepare(bench, 0x1_0000, 0x4000)?;
    probe.give(0x1_0000, va, 0x4000, MemRights::RWX).map_err(show)?;
    check_eq!(probe.access(bench, Access::Write, va + 0x1800)?, None, "writing at first");
    probe.take(va + 0x1000, 0x1000, MemRights::W)?;
    check_eq!(probe.access(bench, Access::Write, va + 0x1800)?, Some(7), "writing without W");
    check_eq!(probe.access(bench, Access::Read, va + 0x1800)?, None, "reading without W");
    check_eq!(probe.access(bench, Access::Write, va + 0x2800)?, None, "writing next to it");
    probe.take(va + 0x1000, 0x1000, MemRights::RWX)?;
    check_eq!(probe.access(bench, Access::Read, va + 0x1800)?, Some(4), "reading afterwards");
    for next in [0x800, 0x2800] {
        check_eq!(probe.access(bench, Access::Read, va + next)?, None, "reading next to it");
    }
    // Everything, and much that is not there.
    probe.take(0x6000_0000, 0x4000_0000, MemRights::RWX)?;
    for page in (va..va + 0x4000).step_by(4096) {
        check_eq!(probe.access(bench, Access::Read, page)?, Some(4), "reading after all was taken");
    }
    Ok(())
}

fn large(bench: &mut Bench<'_>) -> Check {
    const LARGE: u64 = 2 << 20;
    let probe = Probe::new(bench)?;
    let va = 0x4000_0000;
    probe.give(LARGE, va, 2 * LARGE, MemRights::RW).map_err(show)?;
    for offset in [0, 0x1000, LARGE - 8, LARGE, 2 * LARGE - 8] {
        check_eq!(probe.access(bench, Access::Write, va + offset)?, None, "writing at {offset:#x}");
        let written = bench.memory.load_u64(LARGE + offset);
        check_eq!(written, Ok(va + offset), "what was written at {offset:#x}");
    }
    check_eq!(probe.access(bench, Access::Read, va + 2 * LARGE)?, Some(4), "reading behind it");
    // A hole in the middle of a large page.
    probe.take(va + 0x5000, 0x1000, MemRights::RWX)?;
    check_eq!(probe.access(bench, Access::Read, va + 0x5000)?, Some(4), "reading from the hole");
    for offset in [0x4ff8, 0x6000, 0, LARGE - 8] {
        check_eq!(probe.access(bench, Access::Write, va + offset)?, None, "writing at {offset:#x}");
        let written = bench.memory.load_u64(LARGE + offset);
        check_eq!(written, Ok(va + offset), "what was written at {offset:#x}");
    }
    // Not aligned to each other.
    let other = 0x8000_1000;
    probe.give(LARGE, other, LARGE, MemRights::RW).map_err(show)?;
    for offset in [0, LARGE - 8] {
        check_eq!(probe.access(bench, Access::Write, other + offset)?, None, "at {offset:#x}");
        check_eq!(bench.memory.load_u64(LARGE + offset), Ok(other + offset), "at {offset:#x}");
    }
    probe.take(va, 2 * LARGE, MemRights::W)?;
    check_eq!(probe.access(bench, Access::Write, va + LARGE)?, Some(7), "writing to a large page");
    check_eq!(probe.access(bench, Access::Read, va + LARGE)?, None, "reading from it");
    Ok(())
}

fn replace(bench: &mut Bench<'_>) -> Check {
    let probe = Probe::new(bench)?;
    let va = 0x9000_0000;
    for (turn, offset) in [(1, 0x1_0000), (2, 0x1_1000), (3, 0x1_0000)] {
        probe.give(offset, va, 4096, MemRights::RW).map_err(show)?;
        bench.memory.store_u64(offset + 16, 0).map_err(|_| "outside of memory")?;
        check_eq!(probe.access(bench, Access::Write, va + 16)?, None, "writing, turn {turn}");
        check_eq!(bench.memory.load_u64(offset + 16), Ok(va + 16), "the new page, turn {turn}");
    }
    Ok(())
}

fn pinned(bench: &mut Bench<'_>) -> Check {
    // Neither a message page nor the page of hypercalls can be given away or taken from.
    let probe = Probe::new(bench)?;
    let utcb = core::ptr::from_mut(bench.utcb) as u64;
    let va = 0xa000_0000;
    for page in [utcb, abi::layout::HYPERCALL_PAGE] {
        probe.grant_page(page >> 12, va >> 12, 1, MemRights::RW).map_err(show)?;
        check_eq!(probe.access(bench, Access::Read, va)?, Some(4), "reading {page:#x} elsewhere");
    }
    // SAFETY: the kernel does not let go of the page.
    let _ = unsafe { HostSpace::OWN.revoke(utcb, 4096, MemRights::RWX) };
    bench.utcb.words[9] = 7;
    check_eq!(bench.utcb.words[9], 7, "a word of the message page");
    // The probe's own: it is still there for the next message of its handler.
    probe.take(UTCB, 4096, MemRights::RWX)?;
    check_eq!(probe.access(bench, Access::Read, UTCB)?, None, "its message page after a revoke");
    // Nothing can be mapped over it either.
    let _ = probe.give(0x1_0000, UTCB, 4096, MemRights::RW);
    bench.memory.store_u64(0x1_0000, 0).map_err(|_| "outside of memory")?;
    check_eq!(probe.access(bench, Access::Write, UTCB)?, None, "writing to its message page");
    check_eq!(bench.memory.load_u64(0x1_0000), Ok(0), "what was granted over a message page");
    // Nor into the kernel's half, or what lies at its edge.
    for page in [1 << 36, (1 << 35) - 1, abi::layout::HYPERCALL_PAGE >> 12, u64::MAX] {
        let status = probe.grant_page(utcb >> 12, page, 1, MemRights::RW);
        check_eq!(status, Err(Status::BadParam), "a grant to page {page:#x}");
    }
    Ok(())
}

/// What [`read_given_up`] reads.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);

#[unsafe(naked)]
unsafe extern "C" fn read_given_up() {
    naked_asm!("mov rax, [rip + {page}]", "mov al, [rax]", "ret", page = sym GIVEN_UP)
}

fn own_memory(bench: &mut Bench<'_>) -> Check {
    // A task that gives memory up loses it, and what it granted stays granted.
    let probe = Probe::new(bench)?;
    let va = 0xb000_0000;
    let bytes: &'static mut runtime::memory::Page =
        Box::leak(Box::new(runtime::memory::Page([0x5a; 4096])));
    let address = bytes.0.as_ptr() as u64;
    probe.grant_page(address >> 12, va >> 12, 1, MemRights::RW).map_err(show)?;
    // A thread of this task has just used the page: nothing but the revocation makes the processor forget it.
    let victim = Victim::new(bench)?;
    GIVEN_UP.store(address, Ordering::Relaxed);
    check_eq!(victim.run(bench, read_given_up, note)?, None, "reading it before");
    // SAFETY: nobody uses the page any more; it is never freed.
    unsafe { HostSpace::OWN.revoke(address, 4096, MemRights::RWX) }.map_err(show)?;
    let fault = victim.fault(bench, read_given_up)?;
    check_eq!(
        (fault.vector, fault.error, fault.address),
        (14, 4, address),
        "reading it afterwards"
    );
    check_eq!(probe.access(bench, Access::Write, va)?, None, "writing to it elsewhere");
    probe.grant_page(address >> 12, va >> 12, 1, MemRights::RW).map_err(show)?;
    check_eq!(probe.access(bench, Access::Read, va)?, None, "after granting what is gone");
    Ok(())
}
