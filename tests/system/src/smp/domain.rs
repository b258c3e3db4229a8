//! Domains below this task's, with threads of a few instructions.

use alloc::boxed::Box;
use alloc::string::String;

use abi::cap::{MemRights, Perms, Selector, SpaceKind, own};
use abi::fault::{FaultGroups, FaultState};
use abi::hypercall::{Number, Status, pack as hypercall_word};
use abi::layout::{HYPERCALL_PAGE, PAGE_SIZE};
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::ec::Ec;
use runtime::handler::Handler;
use runtime::hypercall::{self, Span};
use runtime::memory::GuestMemory;
use runtime::pd::{Limits, Pd};
use runtime::sc::Sc;
use runtime::selector::FREE;
use runtime::sm::Sm;
use runtime::space::{HostSpace, ObjectSpace};

use super::worker::{handler_on, show};
use crate::code;
use crate::kernel::threads::semaphore;
use crate::report::{Bench, Check};

/// Kernel memory of a domain in pages.
const QUOTA: u64 = 120;
/// Where its code is.
pub const CODE: u64 = 0x40_0000;
/// Its data: each thread counts in a word of its own.
pub const DATA: u64 = 0x50_0000;
/// Where the messages pages of its threads are.
const UTCBS: u64 = 0x6000_0000;
/// First event selector of its threads on a CPU: a fault stays there, so each has portals of its own.
const fn events(cpu: u16) -> Selector {
    32 + 32 * cpu as Selector
}
/// Where in the test's memory domains have their code and data: behind those of virtual machines.
const MEMORY: u64 = 48 << 20;
/// Selectors of a domain: itself, its spaces, then an execution and a scheduling context for each thread.
const SELECTORS: u32 = 4 + 2 * 64;

/// A domain.
#[derive(Clone, Copy)]
pub struct Domain {
    parent: Pd,
    pub pd: Pd,
    pub objects: ObjectSpace,
    pub host: HostSpace,
    fresh: Selector,
    memory: GuestMemory,
    at: u64,
}

/// Counts in a word of its own, for ever. Which word that is is the thread's stack pointer.
fn counting() -> &'static [u8] {
    code!(64, "2:", "inc qword ptr [rsp]", "pause", "jmp 2b")
}

/// Where a domain has the code that destroys, in the page of the other code.
const DESTROYING: u64 = 0x800;
/// Words of the data for it: what it is to do as the first word of a hypercall, whether it may begin, and the status, plus 1, when it
/// is done. Behind them is its stack.
const ORDER: u64 = 256;
const BEGIN: u64 = ORDER + 1;
const DONE: u64 = ORDER + 2;

/// Destroys an object, and says what came of it.
fn destroying() -> &'static [u8] {
    const { assert!(DATA + 8 * ORDER == 0x50_0800 && HYPERCALL_PAGE == 0x7fff_fff0_0000) }
    const { assert!(Status::Partial as u64 == 10) }
    code!(
        64,
        "2:",
        "pause",
        "cmp qword ptr [0x500808], 0",
        "je 2b",
        "3:",
        "mov rax, [0x500800]",
        "xor esi, esi",
        "movabs r10, 0x7ffffff00000",
        "call r10",
        "cmp rax, 10",
        "je 3b",
        "inc rax",
        "mov [0x500810], rax",
        "4:",
        "pause",
        "jmp 4b",
    )
}

impl Domain {
    /// A domain with code and data, and no threads. There is one in use at a time.
    pub fn new(bench: &Bench<'_>, limits: Limits) -> Result<Self, String> {
        Self::numbered(bench.memory, limits, 0).map_err(show)
    }

    /// The same where there are several.
    pub fn numbered(memory: GuestMemory, limits: Limits, number: u64) -> Result<Self, Status> {
        Self::below(Pd::OWN, memory, limits, number)
    }

    /// The same below another domain than this task's, which has to have what it needs.
    pub fn below(
        parent: Pd,
        memory: GuestMemory,
        limits: Limits,
        number: u64,
    ) -> Result<Self, Status> {
        let at = MEMORY + number * 2 * PAGE_SIZE;
        let fresh = FREE.range(SELECTORS)?;
        Self::at(parent, memory, limits, (at, fresh))
    }

    /// The same with a place in memory and selectors that were used before.
    pub fn again(self, limits: Limits) -> Result<Self, Status> {
        Self::at(self.parent, self.memory, limits, (self.at, self.fresh))
    }

    fn at(
        parent: Pd,
        memory: GuestMemory,
        limits: Limits,
        (at, fresh): (u64, Selector),
    ) -> Result<Self, Status> {
        memory.write(at, counting()).map_err(|_| Status::BadParam)?;
        memory.write(at + DESTROYING, destroying()).map_err(|_| Status::BadParam)?;
        memory.fill(at + PAGE_SIZE, PAGE_SIZE, 0).map_err(|_| Status::BadParam)?;
        hypercall::create_pd(fresh, parent.selector(), QUOTA, limits)?;
        hypercall::create_space(fresh + 1, fresh, SpaceKind::Object)?;
        hypercall::create_space(fresh + 2, fresh, SpaceKind::Host)?;
        let (objects, host) = (ObjectSpace::at(fresh + 1), HostSpace::at(fresh + 2));
        let domain = Self { parent, pd: Pd::at(fresh), objects, host, fresh, memory, at };
        domain.map(CODE, 0, MemRights::RX)?;
        domain.map(DATA, PAGE_SIZE, MemRights::RW)?;
        Ok(domain)
    }

    /// Maps the page at `offset` of the domain's memory.
    pub fn map(self, va: u64, offset: u64, rights: MemRights) -> Result<(), Status> {
        let region = self.memory.region(self.at + offset, PAGE_SIZE);
        let region = region.map_err(|_| Status::BadParam)?;
        let span = Span { from: region.base() / PAGE_SIZE, to: va / PAGE_SIZE, count: 1 };
        // SAFETY: memory for this, and another domain's view of it.
        unsafe { hypercall::grant(own::MEMORY, self.host.selector(), span, rights.0.into()) }
    }

    /// Gives its threads something else to do than to count.
    pub fn set_code(self, code: &[u8]) -> Result<(), Status> {
        self.memory.write(self.at, code).map_err(|_| Status::BadParam)
    }

    /// Takes the data away.
    pub fn unmap_data(self, rights: MemRights) -> Result<(), Status> {
        // SAFETY: the domain's view of its memory is not this task's.
        unsafe { self.host.revoke(DATA, PAGE_SIZE, rights) }
    }

    /// Gives the data back.
    pub fn map_data(self) -> Result<(), Status> {
        self.map(DATA, PAGE_SIZE, MemRights::RW)
    }

    /// A thread without time, which counts in word `index`.
    pub fn thread(self, cpu: u16, index: u64) -> Result<Ec, Status> {
        self.thread_at(cpu, index, (DATA + 8 * index, CODE))
    }

    /// A thread without time that destroys what the domain has at `object`, as soon as it is told to begin.
    pub fn destroyer(self, cpu: u16, index: u64, object: Selector) -> Result<Ec, Status> {
        self.set(ORDER, hypercall_word(Number::Destroy, 0, object))?;
        self.thread_at(cpu, index, (DATA + PAGE_SIZE, CODE + DESTROYING))
    }

    /// Lets it begin.
    pub fn begin(self) -> Result<(), Status> {
        self.set(BEGIN, 1)
    }

    /// The status that it got, if it is done.
    pub fn outcome(self) -> Option<u64> {
        self.count(DONE).checked_sub(1)
    }

    fn set(self, word: u64, value: u64) -> Result<(), Status> {
        let at = self.at + PAGE_SIZE + 8 * word;
        self.memory.write(at, &value.to_le_bytes()).map_err(|_| Status::BadParam)
    }

    fn thread_at(self, cpu: u16, index: u64, (sp, ip): (u64, u64)) -> Result<Ec, Status> {
        let ec = self.fresh + 4 + 2 * index as Selector;
        let start = (UTCBS + index * PAGE_SIZE, sp, ip);
        // SAFETY: the code is there, and the domain's memory is for this.
        unsafe { hypercall::create_thread(ec, self.fresh, (cpu, events(cpu)), start)? };
        Ok(Ec::at(ec))
    }

    /// Its time.
    pub fn run(self, index: u64, (priority, budget): (u64, u64)) -> Result<Sc, Status> {
        let ec = self.fresh + 4 + 2 * index as Selector;
        hypercall::create_sc(ec + 1, self.fresh, ec, (priority, budget, 0))?;
        Ok(Sc::at(ec + 1))
    }

    /// What thread `index` has counted to.
    pub fn count(self, index: u64) -> u64 {
        self.memory.load_u64(self.at + PAGE_SIZE + 8 * index).unwrap_or(0)
    }
}

/// Who takes the faults of a domain's threads on one CPU: it waits until the test has seen each of them.
pub struct Faults {
    handler: Handler<&'static Shared>,
    portals: Selector,
    shared: &'static Shared,
}

struct Shared {
    /// Vector and address.
    last: [AtomicU64; 2],
    taken: Sm,
    go: Sm,
}

/// Exceptions that a thread may run into here: #UD, #GP, #PF.
const VECTORS: [u32; 3] = [6, 13, 14];

impl Faults {
    pub fn new(cpu: u16) -> Result<Self, String> {
        let (taken, go) = (semaphore()?, semaphore()?);
        let last = [const { AtomicU64::new(0) }; 2];
        let shared: &'static Shared = Box::leak(Box::new(Shared { last, taken, go }));
        let handler = handler_on(cpu, shared)?;
        let portals = FREE.range(VECTORS.len() as u32).map_err(show)?;
        let groups = FaultGroups::STATE.0 | FaultGroups::CAUSE.0;
        for at in portals..portals + VECTORS.len() as u32 {
            let serve = |shared: &mut &'static Shared, state: &mut FaultState, _, _| {
                let [vector, address] = &shared.last;
                vector.store(state.vector, Ordering::Relaxed);
                address.store(state.address, Ordering::Relaxed);
                let _ = shared.taken.up();
                let _ = shared.go.down();
                FaultGroups(0)
            };
            handler.portal_at(at, 0, groups, serve).map_err(show)?;
        }
        Ok(Self { handler, portals, shared })
    }

    /// From now on it takes those of this domain.
    pub fn take(&self, domain: Domain) -> Result<(), Status> {
        for (at, vector) in (self.portals..).zip(VECTORS) {
            let to = events(self.handler.cpu()) + vector;
            ObjectSpace::OWN.grant(at, domain.objects, to, Perms::PT_EVENT)?;
        }
        Ok(())
    }

    /// The next fault: its vector, and its address if it is a page fault.
    pub fn wait(&self, bench: &Bench<'_>) -> Result<(u64, u64), String> {
        let waited = self.shared.taken.down_until(bench.in_ms(500));
        waited.map_err(|status| crate::format!("no fault: {status:?}"))?;
        let [vector, address] = self.shared.last.each_ref().map(|x| x.load(Ordering::Relaxed));
        Ok((vector, if vector == 14 { address } else { 0 }))
    }

    /// Whether there was none since.
    pub fn quiet(&self) -> bool {
        self.shared.taken.down_until(0).is_err()
    }

    /// The thread tries again.
    pub fn answer(&self) -> Check {
        self.shared.go.up().map_err(show)
    }

    pub fn end(self) -> Check {
        // SAFETY: the domain whose faults it took is gone.
        unsafe { self.handler.ec().destroy() }.map_err(show)
    }
}
