//! What CPUs hand to each other.
//!
//! The kernel runs with interrupts disabled and is not preempted, so what belongs to one CPU (its
//! ready queue, its timeouts, the execution and scheduling contexts bound to it) is touched by that
//! CPU alone and needs nothing of this. Everything else goes through one of these:
//!
//! | module | what is handed over | who waits |
//! |---|---|---|
//! | [`ticket_lock`] | the right to be the only one, in the order of asking | whoever comes second |
//! | [`big_lock`] | that right, for everything slow: create, destroy, grant, revoke, control | the same, but it serves requests meanwhile |
//! | [`request`] | an order from the holder of the big lock to other CPUs | the holder, until all have done it |
//! | [`mailbox`] | contexts to look at, from any CPU to the one they are bound to | nobody |
//! | [`semaphore`] | the count of a semaphore, or the right to change its queue | for the right: whoever comes second |
//! | [`online`] | that a CPU is ready to be asked | nobody |
//! | [`cpu_set`] | - | - |
//!
//! # Who may hold what
//!
//! The big lock comes before the lock of a semaphore. Who holds the lock of a semaphore waits for
//! nothing; it may push into a mailbox, as that does not wait. Call and reply, VM exits, look-ups of
//! capabilities, up and down take no big lock. NMI and machine-check handlers use none of this.
//!
//! # How an interrupt orders memory
//!
//! Wherever a table says "sends an interrupt", what the sender stored before it must be visible to
//! the receiver's handler. A store to the xAPIC's registers orders that by itself; a WRMSR to an
//! x2APIC does not wait for earlier stores, so MFENCE and LFENCE go before it (SDM 3A 11.12.3). An
//! interrupt that comes while its CPU has interrupts disabled stays pending (SDM 3A 11.8.4): it is
//! late, never lost, and STI followed by HLT lets none slip in between (SDM 2B, STI).

mod atomic;
pub mod big_lock;
pub mod cpu_set;
pub mod mailbox;
pub mod online;
pub mod request;
pub mod semaphore;
pub mod ticket_lock;

#[cfg(test)]
mod tests;
