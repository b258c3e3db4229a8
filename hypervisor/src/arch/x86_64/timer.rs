//! Time: how fast the time-stamp counter runs, and the timer of a CPU.

use super::lapic;
use super::port::{inb, outb};
use super::{msr, tsc};
use crate::sync::Guarded;

/// Vector of the timer's interrupt.
pub const VECTOR: u8 = 0xfe;

/// 8254 input frequency in hertz.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of the 8254 to calibrate over: 10 ms.
const PIT_TICKS: u64 = PIT_HZ / 100;
/// How often: what comes in between only makes it longer, so the shortest is the best.
const CALIBRATIONS: usize = 4;

/// The timer of a CPU, programmed in time-stamp-counter ticks.
pub struct Timer {
    /// Of a one-shot countdown: timer ticks per time-stamp-counter tick, as a fraction of 2^32. Without it deadlines are written to
    /// IA32_TSC_DEADLINE (SDM 3A 11.5.4.1).
    ratio: Option<u64>,
    /// What it was last set to.
    deadline: Guarded<u64>,
    /// From when on its interrupt may be there: the deadline less what calibration may be wrong by.
    due: Guarded<u64>,
}

/// What calibration found.
pub struct Calibration {
    /// Time-stamp-counter ticks in a second.
    pub tsc_hz: u64,
    /// Ticks of the local APIC timer, undivided, in a second.
    pub apic_hz: u64,
}

/// Measures against channel 2 of the 8254, whose gate software controls. The local APIC must be on.
/// `None`: the 8254 does not count.
pub fn calibrate() -> Option<Calibration> {
    lapic::write(lapic::DIVIDE, 0b1011);
    lapic::write(lapic::LVT_TIMER, 1 << 16 | u32::from(VECTOR));
    lapic::write(lapic::INITIAL_COUNT, u32::MAX);
    let mut best = measure()?;
    for _ in 1..CALIBRATIONS {
        best = best.min(measure()?);
    }
    lapic::write(lapic::INITIAL_COUNT, 0);
    let scale = |ticks: u64| ticks.saturating_mul(PIT_HZ) / PIT_TICKS;
    Some(Calibration { tsc_hz: scale(best.0), apic_hz: scale(best.1) })
}

/// Ticks of the time-stamp counter and the local APIC timer in [`PIT_TICKS`].
fn measure() -> Option<(u64, u64)> {
    const GATE: u8 = 1;
    const OUT: u8 = 1 << 5;
    // SAFETY: the 8254 and port 0x61 belong to the kernel at boot.
    unsafe {
        let before = inb(0x61) & !3;
        outb(0x61, before);
        outb(0x43, 0xb0);
        outb(0x42, PIT_TICKS as u8);
        outb(0x42, (PIT_TICKS >> 8) as u8);
        outb(0x61, before | GATE);
        let (start, apic_start) = now();
        // A counter that stands still must not hold the boot up: this is far more than 10 ms anywhere.
        for _ in 0..50_000_000_u32 {
            if inb(0x61) & OUT != 0 {
                let (end, apic_end) = now();
                outb(0x61, before);
                let apic = apic_start.wrapping_sub(apic_end);
                return Some((end.wrapping_sub(start), apic.into()));
            }
        }
    }
    None
}

/// The time-stamp counter and the local APIC timer, read as closely together as they come in a few tries.
fn now() -> (u64, u32) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..4 {
        let before = tsc();
        let apic = lapic::read(lapic::CURRENT_COUNT);
        best = best.min((tsc().wrapping_sub(before), before, apic));
    }
    (best.1, best.2)
}

impl Timer {
    /// The timer of a CPU.
    pub fn new(has_deadline: bool, calibration: &Calibration) -> Self {
        let ratio = (u128::from(calibration.apic_hz) << 32) / u128::from(calibration.tsc_hz.max(1));
        let ratio = (!has_deadline).then(|| u64::try_from(ratio).unwrap_or(1 << 32));
        Self { ratio, deadline: Guarded::new(u64::MAX), due: Guarded::new(u64::MAX) }
    }

    /// Turns it on, on its CPU.
    pub fn enable(&self) {
        const DEADLINE_MODE: u32 = 2 << 17;
        lapic::write(lapic::DIVIDE, 0b1011);
        match self.ratio {
            None => {
                lapic::write(lapic::LVT_TIMER, DEADLINE_MODE | u32::from(VECTOR));
                // The mode must be in force before the first deadline (SDM 3A 11.5.4.1).
                // SAFETY: orders memory accesses, no more.
                unsafe { core::arch::x86_64::_mm_mfence() };
            }
            Some(_) => lapic::write(lapic::LVT_TIMER, u32::from(VECTOR)),
        }
    }

    /// Interrupts at `deadline` at the latest, at once if it has passed. If it is already set for an earlier time it stays so:
    /// whoever is interrupted then programs it anew.
    #[inline]
    pub fn program(&self, deadline: u64) {
        if deadline >= self.deadline.get() {
            return;
        }
        self.deadline.set(deadline);
        match self.ratio {
            None => {
                // SAFETY: the timer belongs to the kernel. Zero would disarm it.
                unsafe { msr::TSC_DEADLINE.write(deadline.max(1)) };
            }
            Some(ratio) => {
                let ticks = deadline.saturating_sub(tsc());
                self.due.set(deadline.saturating_sub(ticks >> 10));
                let count = (u128::from(ticks) * u128::from(ratio)) >> 32;
                let count = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
                lapic::write(lapic::INITIAL_COUNT, count);
            }
        }
    }

    /// The interrupt has come: whatever was programmed is used up.
    pub fn fired(&self) {
        self.deadline.set(u64::MAX);
        self.due.set(u64::MAX);
    }

    /// Whether the interrupt of a countdown may be there. In the other mode nobody has to ask.
    pub fn is_due(&self) -> bool {
        tsc() >= self.due.get()
    }
}
