//! Virtual CPUs, as far as they are the same on both vendors' processors.
//!
//! One virtual CPU is *loaded* on a CPU: its FPU, debug and system-call registers stay in the processor across exits,
//! while threads run, until another one is loaded.

use abi::hypercall::Status;
use abi::utcb::Utcb;
use abi::vcpu::{Exit, Groups, VcpuState};

use super::cpu::Cpu;
use super::vendor::Vendor;
use super::{fpu, svm, vmx};
use crate::mem::virt;
use crate::object::Ref;
use crate::object::ec::{Ec, Kind, Retry, State};
use crate::object::pd::Pd;
use crate::object::space::{Space, Table};
use crate::sched::errand::{self, Errand, is_held_elsewhere};
use crate::sched::timeout::Owner;
use crate::sched::{self, Next};
use crate::sync::Guarded;
use crate::{ipc, println};

/// The part of an execution context that only a virtual CPU uses.
pub struct Vcpu {
    /// Physical address of its control structure: VMCS or VMCB.
    pub control: u64,
    /// FPU and vector state while others have the registers.
    fpu: u64,
    /// Its guest, MSR and port space.
    pub spaces: [Option<Ref<Space>>; 3],
    /// Whether it must leave its guest before the next instruction, or look at something else before it enters.
    pub attention: Guarded<bool>,
    /// Whether that is because it was recalled.
    recalled: Guarded<bool>,
    /// Whether it is to be stopped before it enters its guest.
    stopping: Guarded<bool>,
    /// Absolute deadline.
    pub deadline: Guarded<u64>,
    /// XCR0.
    pub xcr0: Guarded<u64>,
    /// What the VMM owns of CR0 and CR4.
    pub masks: Guarded<[u64; 2]>,
    /// Exceptions that the VMM wants.
    pub exceptions: Guarded<u32>,
    /// Debug registers 0 to 3, while others are loaded.
    breakpoints: Guarded<[u64; 4]>,
    /// The number of the last [`Exit`].
    pub last_exit: Guarded<u8>,
    /// What only VT-x has.
    pub vmx: vmx::vcpu::Own,
    /// What only AMD-V has.
    pub svm: svm::vcpu::Own,
}

impl Vcpu {
    /// For contexts that are none.
    pub const fn none() -> Self {
        Self {
            control: 0,
            fpu: 0,
            spaces: [None; 3],
            attention: Guarded::new(false),
            recalled: Guarded::new(false),
            stopping: Guarded::new(false),
            deadline: Guarded::new(u64::MAX),
            xcr0: Guarded::new(1),
            masks: Guarded::new([0; 2]),
            exceptions: Guarded::new(0),
            breakpoints: Guarded::new([0; 4]),
            last_exit: Guarded::new(Exit::Startup as u8),
            vmx: vmx::vcpu::Own::new(),
            svm: svm::vcpu::Own::new(),
        }
    }

    /// Takes the pages that a virtual CPU needs, on the account of `pd`.
    pub fn new(pd: &Pd, spaces: [Option<Ref<Space>>; 3]) -> Result<Self, Status> {
        let control = pd.account.take_page().ok_or(Status::Quota)?;
        let Some(fpu) = pd.account.take_page() else {
            // SAFETY: it was just taken.
            unsafe { pd.account.give_page(control) };
            return Err(Status::Quota);
        };
        fpu::init_area(fpu);
        for space in spaces.iter().flatten() {
            space.users.set(space.users.get() + 1);
        }
        Ok(Self { control, fpu, spaces, ..Self::none() })
    }

    /// Gives the pages back, of a virtual CPU that is not loaded.
    pub fn free(&self, pd: &Pd) {
        for space in self.spaces.iter().flatten() {
            space.users.set(space.users.get().saturating_sub(1));
        }
        // SAFETY: nothing refers to them yet, or any more.
        unsafe {
            pd.account.give_page(self.control);
            pd.account.give_page(self.fpu);
        }
    }
}

/// Prepares a new virtual CPU: everything but the guest state, which the VMM sets at its startup.
pub fn init(ec: Ref<Ec>) {
    let [Some(guest), msrs, ports] = &ec.vcpu.spaces else { return };
    let Table::Guest(table) = &guest.table else { return };
    let [msrs, ports] = [msrs, ports].map(|space| space.and_then(|space| space.bitmap()));
    ec.retry.set(Retry::Event(ec.events.wrapping_add(Exit::Startup as u32)));
    match ec.kind {
        Kind::Vcpu(Vendor::Svm) => svm::vcpu::init(ec, table.root, msrs, ports),
        _ => vmx::vcpu::init(ec, table.root, msrs, ports),
    }
}

/// Whether registers of a virtual CPU, or its control structure, are in the processor of `cpu`.
pub fn is_loaded(cpu: &Cpu, ec: &Ec) -> bool {
    cpu.vcpu.get() == Some(Ref::of(ec)) || ec.vcpu.vmx.is_active()
}

/// Puts all of a virtual CPU that is in this CPU into memory, so that another CPU can load it or the memory become something else.
pub fn unload(cpu: &Cpu, ec: &Ec) {
    if cpu.vcpu.get() == Some(Ref::of(ec)) {
        swap(cpu, None);
    }
    ec.vcpu.vmx.put_down(ec);
    ec.vcpu.svm.forget_tag();
}

/// Makes `ec` the virtual CPU that is loaded, and decides whether it enters its guest or has to report first.
#[inline(never)]
pub fn load(vendor: Vendor, cpu: &Cpu, ec: Ref<Ec>) -> Next {
    ensure_loaded(cpu, &ec);
    if ec.vcpu.stopping.replace(false) {
        ec.state.set(State::Stopped);
        sched::put_back(cpu, super::tsc());
        return None;
    }
    if ec.vcpu.attention.get()
        && let Some(exit) = attention(&ec)
    {
        return deliver(cpu, ec, exit as u8);
    }
    match vendor {
        Vendor::Vmx => vmx::vcpu::prepare(cpu, &ec),
        Vendor::Svm => svm::vcpu::prepare(cpu, &ec),
    }
    Some(ec)
}

/// What a virtual CPU has to report before it enters its guest.
#[cold]
fn attention(ec: &Ec) -> Option<Exit> {
    ec.vcpu.attention.set(false);
    // Anything else shows up again at the entry after this.
    if ec.vcpu.recalled.replace(false) {
        ec.vcpu.attention.set(matches!(ec.kind, Kind::Vcpu(Vendor::Svm)));
        return Some(Exit::Recall);
    }
    match ec.kind {
        Kind::Vcpu(Vendor::Svm) => svm::nmi::reaches_window(ec).then_some(Exit::NmiWindow),
        _ => None,
    }
}

/// Tells the VMM of an exit.
#[inline(always)]
pub fn deliver(cpu: &Cpu, ec: Ref<Ec>, exit: u8) -> Next {
    ec.vcpu.last_exit.set(exit);
    ipc::event(cpu, ec, ec.events.wrapping_add(u32::from(exit)))
}

/// The guest goes on, unless somebody else has to run first.
pub fn go_on(cpu: &Cpu, ec: Ref<Ec>) -> Next {
    if cpu.reschedule.get() { Some(sched::preempt(cpu)) } else { sched::switch_to(cpu, ec) }
}

/// Makes `ec` the loaded one, to enter its guest or to read or write its state.
#[inline(always)]
pub fn ensure_loaded(cpu: &Cpu, ec: &Ec) {
    if cpu.vcpu.get() != Some(Ref::of(ec)) {
        swap(cpu, Some(Ref::of(ec)));
    }
}

/// Takes the registers away from the virtual CPU that has them and gives them to `new`, if there is one.
#[cold]
fn swap(cpu: &Cpu, new: Option<Ref<Ec>>) {
    let old = cpu.vcpu.replace(new);
    if let Some(old) = old {
        match old.kind {
            Kind::Vcpu(Vendor::Svm) => svm::vcpu::save(&old),
            _ => vmx::vcpu::save(&old),
        }
        old.vcpu.breakpoints.set(save_breakpoints());
        old.vcpu.xcr0.set(fpu::xcr0());
    }
    if let Some(new) = new {
        if let Some(guest) = &new.vcpu.spaces[0] {
            guest.cpus.set(guest.cpus.get() | 1 << cpu.number);
        }
        match new.kind {
            Kind::Vcpu(Vendor::Svm) => svm::vcpu::load(&new),
            _ => vmx::vcpu::load(cpu, &new),
        }
        load_breakpoints(&new.vcpu.breakpoints.get());
    }
    let area = |ec: Ref<Ec>| (ec.vcpu.fpu, ec.vcpu.xcr0.get());
    fpu::switch(old.map(area), new.map(area));
}

/// Fills the UTCB of a handler with what its portal asks for.
#[inline(always)]
pub fn export_state(cpu: &Cpu, ec: &Ec, mover: StateMover, mask: u64, utcb: *mut Utcb) {
    ensure_loaded(cpu, ec);
    // SAFETY: the handler has a UTCB for life; a state fits its words, any bit pattern is valid.
    mover(cpu, ec, mask, unsafe { &mut *utcb.cast::<VcpuState>() });
}

/// Moves the groups of one mask out of a virtual CPU. The mask itself is for the mover that serves all.
pub type StateMover = fn(&Cpu, &Ec, u64, &mut VcpuState);

/// The mover for a mask.
pub fn mover(mask: u64) -> StateMover {
    match super::vendor() {
        Vendor::Vmx => vmx::export::mover(mask),
        Vendor::Svm => svm::export::mover(mask),
    }
}

/// Takes the groups that a reply names out of the UTCB of its handler.
pub fn import_state(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) {
    ensure_loaded(cpu, ec);
    // SAFETY: the handler has a UTCB for life; a state fits its words, any bit pattern is valid.
    let state = unsafe { &*utcb.cast::<VcpuState>() };
    match ec.kind {
        Kind::Vcpu(Vendor::Svm) => svm::import::import(ec, mask, state),
        _ => vmx::import::import(cpu, ec, mask, state),
    }
}

/// The usual reply to an exit: the instruction is done, nothing but RAX to RBX has changed, and the guest can go on at once. Returns
/// whether that was so; if not, nothing has been done.
///
/// VT-x is looked at first, and its conditions include one that no virtual CPU of AMD-V meets: so it does not pay for the
/// other.
#[inline(always)]
pub fn complete_instruction(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) -> bool {
    vmx::instruction::complete(cpu, ec, mask, utcb)
}

/// The same for AMD-V.
pub fn complete_late(cpu: &Cpu, ec: &Ec, mask: u64, utcb: *mut Utcb) -> bool {
    matches!(ec.kind, Kind::Vcpu(Vendor::Svm)) && svm::instruction::complete(cpu, ec, mask, utcb)
}

/// Makes a virtual CPU leave its guest. On this CPU it is not in it now.
pub fn recall(ec: Ref<Ec>) {
    ec.vcpu.recalled.set(true);
    ec.vcpu.attention.set(true);
    let cpu = ec.cpu.get();
    if cpu.current.get() == ec {
        cpu.kick();
    }
}

/// Stops a virtual CPU, now or as soon as its exit is answered. If another CPU has it, that has to let go of it first.
pub fn stop(ec: Ref<Ec>) -> Result<(), Status> {
    match ec.state.get() {
        State::Dead | State::Ending => return Err(Status::Aborted),
        _ if ec.callee.get().is_some() => {
            ec.vcpu.stopping.set(true);
            ec.vcpu.attention.set(true);
            return Err(Status::Busy);
        }
        _ if is_held_elsewhere(ec) => {
            errand::leave(Errand::Stop(ec));
            return Err(Status::Busy);
        }
        _ => ec.state.set(State::Stopped),
    }
    Ok(())
}

/// Lets a virtual CPU go on.
pub fn go(ec: Ref<Ec>) {
    ec.vcpu.stopping.set(false);
    // A stop that another CPU has not come to yet is withdrawn as well.
    errand::forget(ec);
    if ec.state.get() == State::Stopped {
        ec.state.set(State::Ready);
        sched::unpark(ec);
    }
}

/// Reads groups of the state of a virtual CPU that stands still, or writes them, for the thread whose message page they are in.
pub fn access(
    cpu: &Cpu,
    ec: Ref<Ec>,
    write: bool,
    groups: u64,
    utcb: *mut Utcb,
) -> Result<(), Status> {
    if ec.state.get() != State::Stopped {
        return Err(Status::Busy);
    }
    if is_held_elsewhere(ec) {
        errand::leave(Errand::Stop(ec));
        return Err(Status::Busy);
    }
    if write {
        import_state(cpu, &ec, groups, utcb);
    } else {
        export_state(cpu, &ec, mover(groups), groups, utcb);
    }
    if !ec.cpu.get().is_here() {
        unload(cpu, &ec);
    }
    Ok(())
}

/// The deadline of a virtual CPU has passed, and is used up.
pub fn deadline_passed(ec: Ref<Ec>) {
    ec.vcpu.deadline.set(u64::MAX);
    recall(ec);
}

/// Sets the deadline of a virtual CPU.
pub fn set_deadline(ec: Ref<Ec>, deadline: u64) {
    let cpu = ec.cpu.get();
    if ec.vcpu.deadline.replace(deadline) != deadline
        && cpu.timeouts.arm(&ec.timeout, Owner::Ec(ec), deadline)
        // On another CPU it stands still, and the decision after it goes on programs the timer.
        && cpu.is_here()
    {
        sched::refresh_timer(&cpu);
    }
}

/// Debug registers 0 to 3 of `ec`.
pub fn breakpoints(cpu: &Cpu, ec: &Ec) -> [u64; 4] {
    if cpu.vcpu.get() == Some(Ref::of(ec)) { save_breakpoints() } else { ec.vcpu.breakpoints.get() }
}

/// Writes debug registers 0 to 3 of `ec`, which is loaded.
pub fn set_breakpoints(ec: &Ec, values: [u64; 4]) {
    ec.vcpu.breakpoints.set(values);
    load_breakpoints(&values);
}

fn save_breakpoints() -> [u64; 4] {
    let (d0, d1, d2, d3): (u64, u64, u64, u64);
    // SAFETY: reads only.
    unsafe {
        core::arch::asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) d0, out(reg) d1, out(reg) d2, out(reg) d3, options(nomem, nostack, preserves_flags));
    }
    [d0, d1, d2, d3]
}

fn load_breakpoints(values: &[u64; 4]) {
    // SAFETY: DR7 enables none of them while the kernel runs (SDM 3C 28.5.1, APM 2 15.6).
    unsafe {
        core::arch::asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3],
            options(nomem, nostack, preserves_flags));
    }
}

/// Tells people about an exit that nobody takes.
pub fn report(cpu: &Cpu, ec: &Ec, why: &str) {
    ensure_loaded(cpu, ec);
    let mut state = VcpuState::default();
    mover(u64::MAX)(cpu, ec, Groups::ALL.0, &mut state);
    let (domain, exit) = (ec.pd.address(), Exit::ALL.get(usize::from(ec.vcpu.last_exit.get())));
    let VcpuState { rip, rflags, cr0, cr3, cr4, qual: [q0, q1, q2], .. } = state;
    let (cs, rsp) = (state.cs.selector, state.gpr.rsp);
    println!(
        "a virtual CPU of domain {domain:#x} is ended: {why} (exit {exit:?}, qualification {q0:#x} {q1:#x} {q2:#x})"
    );
    println!(
        "  rip {cs:#x}:{rip:#018x} rsp {rsp:#018x} rflags {rflags:#x} cr0 {cr0:#x} cr3 {cr3:#x} cr4 {cr4:#x}"
    );
    super::trap::print_registers(&state.gpr);
}

const _: () = assert!(size_of::<Ec>() <= 1024);

/// The page of a control structure, in the window.
pub fn control(ec: &Ec) -> *mut u8 {
    virt(ec.vcpu.control)
}

/// Exits that do not tell the length of an instruction (SDM 3C 28.2.5), or are
/// not due to one.
const NO_LENGTH: u32 = 1 << Exit::Startup as u32
    | 1 << Exit::Recall as u32
    | 1 << Exit::BadState as u32
    | 1 << Exit::TripleFault as u32
    | 1 << Exit::Exception as u32
    | 1 << Exit::InterruptWindow as u32
    | 1 << Exit::NmiWindow as u32
    | 1 << Exit::Memory as u32
    | 1 << Exit::Init as u32
    | 1 << Exit::Other as u32;

/// [`Exit::Port`] as the number of an exit.
pub const PORT: u8 = Exit::Port as u8;
/// [`Exit::Memory`] as one.
pub const MEMORY: u8 = Exit::Memory as u8;

/// Whether the last exit is due to an instruction whose length a processor can tell.
#[inline(always)]
pub fn has_length(ec: &Ec) -> bool {
    NO_LENGTH >> (ec.vcpu.last_exit.get() & 31) & 1 == 0
}

/// A mask for which nothing is known at compile time.
pub const ANY: u64 = u64::MAX;

const IO: Groups = Groups::ACDB.union(Groups::QUAL);
const MMIO: Groups = Groups::GPRS
    .union(Groups::RIP)
    .union(Groups::RFLAGS)
    .union(Groups::QUAL)
    .union(Groups::CR)
    .union(Groups::EFER_PAT)
    .union(Groups::CS_SS);

/// The masks of hot portals: they have movers of their own, in which every test of the mask is decided at compile time.
pub const HOT: [u64; 5] = [Groups::NONE.0, Groups::ACDB.0, Groups::QUAL.0, IO.0, MMIO.0];

/// Whether a mover moves a group. `KNOWN` is its mask, or [`ANY`].
#[inline(always)]
pub const fn wants<const KNOWN: u64>(mask: u64, group: Groups) -> bool {
    let mask = if KNOWN == ANY { mask } else { KNOWN };
    mask & group.0 != 0
}

/// Defines `mover` in a module that has an `export::<KNOWN>`.
macro_rules! movers {
    () => {
        /// The mover for a mask.
        pub fn mover(mask: u64) -> crate::arch::StateMover {
            use crate::arch::vcpu::HOT;
            movers!(@ mask, 0 1 2 3 4);
            |cpu, ec, mask, state| export::<ANY>(cpu, ec, mask, state)
        }
    };
    (@ $mask:ident, $($index:literal)*) => {
        $(if $mask == HOT[$index] {
            return |cpu, ec, _, state| export::<{ HOT[$index] }>(cpu, ec, HOT[$index], state);
        })*
    };
}
pub(in crate::arch) use movers;
