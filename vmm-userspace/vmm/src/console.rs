//! The guest's serial port and the console service.

use devices::time::Time;
use machine::pc::{Clock, Pc};
use runtime::console::{Input, Output};

use crate::clock::GuestClock;

/// The far end of the guest's serial line; without one, output is lost and input never comes.
#[derive(Debug)]
pub struct Console {
    channel: Option<(Output, Input)>,
    /// Host ticks at which the line has time for another byte of input that waits.
    input_at: u64,
    listener: Listener,
    /// A byte that the guest cleared away unread: it comes before all others.
    again: Option<u8>,
}

/// What is known of the guest's readiness for input.
#[derive(Clone, Copy, Debug)]
enum Listener {
    /// It does not listen.
    Deaf,
    /// It seems to, and gets a first byte at this time.
    Settles(Time),
    /// It was sent this byte, and had read so many before. Until it reads that, no other follows: a driver that was
    /// held up between enabling interrupts and setting up its FIFOs clears them yet.
    Tried(u8, u64),
    /// It has read.
    Hears,
}

/// Nanoseconds between the first sign that a guest listens and the first byte: a driver that enables interrupts may still have its
/// FIFOs to set up.
const SETTLING: u64 = 1_000_000;

impl Console {
    /// A console over the channel that the root task set up.
    #[must_use]
    pub const fn new(channel: Option<(Output, Input)>) -> Self {
        Self { channel, input_at: u64::MAX, listener: Listener::Deaf, again: None }
    }

    /// When [`Console::pump`] has to be called at the latest, in host ticks.
    #[inline(always)]
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.input_at
    }

    /// Whether input waits for the guest to read.
    #[inline(always)]
    #[must_use]
    pub fn has_input(&self) -> bool {
        let tried = self.again.is_some() || matches!(self.listener, Listener::Tried(..));
        tried || self.channel.as_ref().is_some_and(|(_, input)| input.available() > 0)
    }

    /// Looks what the guest does about input.
    fn observe(&mut self, pc: &Pc, now: Time) {
        if let Listener::Tried(byte, before) = self.listener {
            match pc.input_fate() {
                (taken, _) if taken > before => self.listener = Listener::Hears,
                (_, 0) => {
                    self.again = Some(byte);
                    self.listener = Listener::Deaf;
                }
                _ => return,
            }
        }
        match self.listener {
            _ if !pc.listens() => self.listener = Listener::Deaf,
            Listener::Deaf => self.listener = Listener::Settles(now + SETTLING),
            _ => {}
        }
    }

    /// Passes output on. What does not fit stays in the serial port, and the service says when there is room. Returns whether
    /// the serial port may have something new to tell the guest.
    #[inline]
    pub fn send(&mut self, pc: &mut Pc) -> bool {
        let Some((output, _)) = &mut self.channel else {
            while pc.take_output().is_some() {}
            return false;
        };
        let was_full = pc.output_waiting() > 1;
        loop {
            while output.room() > 0
                && let Some(byte) = pc.take_output()
            {
                output.write(&[byte]);
            }
            if pc.output_waiting() == 0 {
                break;
            }
            if output.prepare_wait() {
                return false;
            }
        }
        if was_full {
            pc.output_taken();
        }
        was_full
    }

    /// Moves whatever can move, in both directions. Afterwards the service wakes the task when there is more.
    pub fn pump(&mut self, pc: &mut Pc, clock: &GuestClock) {
        self.send(pc);
        self.input_at = u64::MAX;
        let now = clock.time();
        self.observe(pc, now);
        let Some((_, input)) = &mut self.channel else { return };
        loop {
            while self.again.is_some() || input.available() > 0 {
                match self.listener {
                    // It says so at the serial port, and this is called again.
                    Listener::Deaf | Listener::Tried(..) => return,
                    Listener::Settles(time) if now < time => {
                        self.input_at = clock.tsc_at(time);
                        return;
                    }
                    Listener::Settles(_) | Listener::Hears => {}
                }
                if pc.input_room(clock) == 0 {
                    // Either the line is busy for a while, or the guest must read first.
                    if let Some(time) = pc.next_input(clock) {
                        self.input_at = clock.tsc_at(time);
                    }
                    return;
                }
                let mut byte = [0];
                let Some(byte) =
                    self.again.take().or_else(|| (input.read(&mut byte) == 1).then_some(byte[0]))
                else {
                    return;
                };
                if let Listener::Settles(_) = self.listener {
                    self.listener = Listener::Tried(byte, pc.input_fate().0);
                }
                pc.input(byte, clock);
            }
            if input.prepare_wait() {
                return;
            }
        }
    }
}
