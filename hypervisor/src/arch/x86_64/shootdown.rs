//! What was taken away must be forgotten by all CPUs before whoever took it is told that it is gone, and before a page of tables
//! becomes something else.
//!
//! ```text
//! holder of the lock                      another CPU
//! clears the entries
//! makes a demand, sends an interrupt ───► in ring 3 or a guest: enters the kernel, waits for the lock
//! waits                                   waiting for the lock: flushes, answers
//! frees the tables         ◄───────────
//! gives the lock back      ───────────►   goes on
//! ```

use super::cpu::{self, Cpu};
use super::{flush_guest, space};
use crate::mem::pool;
use crate::object::Ref;
use crate::object::space::Space;

/// Translations of host spaces.
const HOST: u32 = 1 << 0;
/// Translations of guest spaces.
const GUEST: u32 = 1 << 1;
/// The page-table root that is loaded.
const ROOT: u32 = 1 << 2;
/// Only to be in the kernel.
const NOTHING: u32 = 1 << 3;

/// On another CPU than the one that wants it: does what that waits for.
#[inline]
pub fn meet(cpu: &Cpu) {
    cpu.demand.meet(|what| forget(cpu, what));
    core::hint::spin_loop();
}

fn forget(cpu: &Cpu, what: u32) {
    if what & ROOT != 0 {
        space::load_root(cpu, space::template());
    }
    if what & HOST != 0 {
        space::flush_host();
    }
    if what & GUEST != 0 {
        flush_guest(cpu);
    }
}

/// Makes all CPUs that `who` names forget `what`, then frees the tables that were waiting for it.
fn demand(what: u32, who: impl Fn(&Cpu) -> bool) {
    /// In QEMU's emulation of AMD-V an interrupt can be lost.
    const TURNS: u32 = 1 << 16;
    for cpu in cpu::all().filter(|cpu| who(cpu)) {
        if cpu.is_here() {
            forget(&cpu, what);
        } else {
            cpu.demand.make(what);
            cpu.kick();
        }
    }
    for cpu in cpu::all() {
        let mut turns = 0;
        while !cpu.demand.is_met() {
            core::hint::spin_loop();
            turns += 1;
            if turns % TURNS == 0 {
                cpu.kick();
            }
        }
    }
    pool::reclaim();
}

/// A host space with that root has lost something.
pub fn host(root: u64) {
    demand(HOST, |cpu| cpu.cr3.get() == root);
}

/// A guest space has lost something. From then on only those CPUs may have translations that have a virtual CPU of it loaded.
pub fn guest(space: &Space) {
    demand(GUEST, |cpu| cpu.is_here() || space.cpus.get() >> cpu.number & 1 != 0);
    let loaded = cpu::all().filter(|cpu| uses(cpu, space));
    space.cpus.set(loaded.fold(0, |cpus, cpu| cpus | 1 << cpu.number));
}

/// Whether the virtual CPU that is loaded on `cpu` uses a space.
fn uses(cpu: &Cpu, space: &Space) -> bool {
    cpu.vcpu.get().is_some_and(|vcpu| vcpu.vcpu.spaces.contains(&Some(Ref::of(space))))
}

/// Permission bitmaps may not change while a processor is in a guest that uses them (SDM 3C 25.11.4). Who has left it waits for the
/// lock.
pub fn leave_guest(space: &Space) {
    demand(NOTHING, |cpu| {
        !cpu.is_here() && cpu.vcpu.get() == Some(cpu.current.get()) && uses(cpu, space)
    });
}

/// A host space is about to end. No thread runs in it, but a CPU may not have loaded another since.
pub fn leave(root: u64) {
    demand(ROOT, |cpu| cpu.cr3.get() == root);
}

/// Anything may have been lost.
pub fn everything() {
    demand(HOST | GUEST, |_| true);
}
