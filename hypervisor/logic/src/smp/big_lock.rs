//! The one lock for everything slow.
//!
//! Its holder may ask all other CPUs for something ([`super::request`]) and wait until they have
//! done it. A CPU that waits for the lock has interrupts disabled; it would never see the request,
//! and each of the two would wait for the other. So it looks for requests while it waits:
//!
//! | CPU A | CPU B | who goes on, and why |
//! |---|---|---|
//! | holds the lock, waits for B | runs a thread or a guest, or is idle | A's interrupt reaches B at once |
//! | holds the lock, waits for B | is on a path that needs no lock | B waits for nobody there, leaves the kernel, takes the interrupt |
//! | holds the lock, waits for B | waits for the lock | B polls, serves the request; A goes on, and then B |
//! | waits for the lock | holds it, waits for A | the same, the other way round |
//! | waits for the lock | waits for the lock | somebody holds it, and one of the rows above applies to them |
//!
//! Who has just got the lock has no request open: the last holder did not release it before all
//! were done.
//!
//! What a CPU has looked up before it waits is worth nothing afterwards: the request that it served
//! may have been for just that object to go away. Look up after acquiring.

use super::atomic::const_fn;
use super::ticket_lock::{Ticket, TicketLock};

/// The lock.
#[derive(Debug, Default)]
pub struct BigLock(TicketLock);

impl BigLock {
    const_fn! {
        /// A lock that nobody holds.
        #[must_use]
        pub fn new() -> Self {
            Self(TicketLock::new())
        }
    }

    /// Waits for the lock in the order of asking. `poll` serves a request if there is one for this
    /// CPU; it is called again and again while the lock is somebody else's.
    #[inline]
    #[must_use]
    pub fn acquire(&self, poll: impl FnMut()) -> Held<'_> {
        Held(self.0.acquire(poll))
    }
}

/// The proof that the lock is held; dropping it releases the lock.
#[derive(Debug)]
pub struct Held<'a>(#[allow(dead_code, reason = "it is there to be dropped")] Ticket<'a>);
