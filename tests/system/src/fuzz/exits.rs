//! The handler of the domain: it answers calls with anything, and exits of guests with states that range from sound to absurd.

use core::sync::atomic::Ordering;

use abi::hypercall::Number;
use abi::utcb::Utcb;
use abi::vcpu::{Event, Exit, Groups, VcpuState, Window};
use runtime::clock::now;

use super::control::Control;
use super::guest::CODE_PAGES;
use super::layout::{ARENA, SLOTS};
use super::rng::Rng;
use crate::kernel::raw;
use crate::processor::is_tcg;
use crate::vcpu::modes::{self, Mode};

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// Serves a message, or an event. It does not come back.
pub extern "C" fn serve(id: u64, _tag: u64, slot: u64, utcb: *mut Utcb) -> ! {
    // SAFETY: as in `walk`.
    let control = unsafe { &*(ARENA as *const Control) };
    let walker = &control.walkers[slot as usize % SLOTS];
    let mut rng = Rng::resume(walker.random.load(Ordering::Relaxed));
    walker.random.store(rng.next(), Ordering::Relaxed);
    // SAFETY: as in `walk`.
    let utcb = unsafe { &mut *utcb };
    let answer = match Exit::ALL.get(id as usize) {
        Some(exit) if !rng.once_in(16) => {
            control.exits.fetch_add(1, Ordering::Relaxed);
            // SAFETY: a state is numbers and fits the words of a message page.
            let state = unsafe { &mut *utcb.words.as_mut_ptr().cast::<VcpuState>() };
            exited(&mut rng, *exit, state, control).0
        }
        // Whatever the message page holds: most of it was never a state.
        _ if rng.once_in(4) => rng.next() & !unsafe_groups().0,
        _ => rng.below(6),
    };
    loop {
        // SAFETY: a handler does not come back from its reply; whoever else runs this does it again.
        unsafe { raw::hypercall(Number::Reply, 0, 0, [0, answer, 0, 0, 0]) };
    }
}

/// What is done about an exit.
fn exited(rng: &mut Rng, exit: Exit, state: &mut VcpuState, control: &Control) -> Groups {
    let sound = !matches!(exit, Exit::Startup | Exit::BadState | Exit::TripleFault);
    if sound && !rng.once_in(8) {
        if state.inst_len == 0 || rng.once_in(16) {
            state.inst_len = 1 + rng.below(4);
        }
        if rng.once_in(8) {
            state.event = event(rng);
            return Groups::DONE | Groups::EVENT;
        }
        state.gpr.rax = rng.next();
        return if rng.once_in(8) {
            Groups(rng.next() & (Groups::ALL.0 | Groups::DONE.0) & !unsafe_groups().0)
        } else {
            Groups::DONE | Groups::ACDB
        };
    }
    let mode = modes::ALL[rng.below(3) as usize];
    *state = modes::state(mode);
    state.rip = 0x1000 + rng.below(CODE_PAGES * 4096);
    if mode == Mode::Real {
        state.rip &= 0xffff;
    }
    state.rflags = 0x202;
    let sound = *state;
    mutate(rng, state, control.hz.load(Ordering::Relaxed));
    if is_tcg() {
        believe_nothing(state, &sound);
    } else {
        state.rflags |= INTERRUPTS;
    }
    Groups::ALL
}

/// What is written back in sound states only. QEMU 7.2 believes whatever it is told of control and segment registers: it runs guests in
/// modes and at addresses that no processor has, at a thousandth of its speed; it loses its host's paging over some of them; and it crashes when the delivery of an event touches
/// what a breakpoint watches. Bochs holds the host's interrupts back from a guest that is entered with interrupts off: if that is in a
/// loop without an exit, nothing calls it out of there.
fn unsafe_groups() -> Groups {
    if !is_tcg() {
        return Groups::DR | Groups::RFLAGS;
    }
    Groups::CR
        | Groups::CONTROL
        | Groups::EFER_PAT
        | Groups::DR
        | Groups::RIP
        | Groups::CS_SS
        | Groups::DS_ES
        | Groups::FS_GS
        | Groups::TABLES
}

/// Undoes what [`mutate`] did to what QEMU believes.
fn believe_nothing(state: &mut VcpuState, sound: &VcpuState) {
    let told = *state;
    *state = VcpuState {
        gpr: told.gpr,
        rflags: told.rflags & !0x2_0000,
        event: told.event,
        window: told.window,
        blocking: told.blocking,
        exceptions: told.exceptions,
        intercepts: told.intercepts,
        cr0_mask: u64::MAX,
        cr4_mask: u64::MAX,
        tsc_offset: told.tsc_offset,
        deadline: told.deadline,
        sysenter_eip: told.sysenter_eip,
        sysenter_esp: told.sysenter_esp,
        star: told.star,
        lstar: told.lstar,
        fmask: told.fmask,
        ..*sound
    };
}

fn event(rng: &mut Rng) -> Event {
    match rng.below(4) {
        0 => Event::interrupt(rng.next() as u8),
        1 => Event::nmi(),
        2 => Event::exception(rng.below(32) as u8, rng.once_in(2).then_some(rng.below(64) as u32)),
        _ => Event { info: rng.next() as u32, error: rng.next() as u32 },
    }
}

/// Changes a few things of a sound state.
fn mutate(rng: &mut Rng, state: &mut VcpuState, hz: u64) {
    state.gpr.rax = rng.next();
    state.gpr.rcx = rng.any_size();
    state.gpr.rdx = rng.any_size();
    state.gpr.rdi = 0x2000 + rng.below(0x10000);
    state.gpr.rsi = rng.below(0x20000);
    for _ in 0..rng.below(4) {
        let bit = 1_u64 << rng.below(64);
        match rng.below(24) {
            0 => state.rflags ^= bit & 0x3f_ffff,
            1 => state.cr0 ^= bit & 0xe005_003f,
            2 => state.cr4 ^= bit & 0x7f_ffff,
            3 => state.efer ^= bit & 0xffff,
            4 => state.cr3 ^= bit,
            5 => state.cs.attr ^= bit as u16,
            6 => state.ss.attr ^= bit as u16,
            7 => state.tr.attr ^= bit as u16,
            8 => state.ldtr.attr ^= bit as u16,
            9 => state.cs.base ^= bit,
            10 => state.gdtr.base ^= bit,
            11 => state.idtr.limit = rng.any_size(),
            12 => state.rip ^= bit,
            13 => state.event = event(rng),
            14 => state.window = Window(rng.next() as u32),
            15 => state.blocking = rng.next() as u32,
            16 => state.exceptions = rng.next() as u32,
            17 => state.intercepts = rng.next() as u32,
            18 => (state.cr0_mask, state.cr4_mask) = (rng.next(), rng.next()),
            19 => state.tsc_offset = rng.next(),
            20 => state.deadline = now().wrapping_add(rng.below(hz / 10_000 + 1)).wrapping_sub(100),
            21 => (state.lstar, state.star, state.fmask) = (rng.next(), rng.next(), rng.next()),
            22 => (state.sysenter_eip, state.sysenter_esp) = (rng.next(), rng.next()),
            _ => (state.xcr0, state.pat) = (rng.any_size(), rng.next()),
        }
    }
}
