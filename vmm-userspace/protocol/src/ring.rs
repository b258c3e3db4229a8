//! A stream of bytes from one producer to one consumer, through memory that both can write.
//!
//! `written` and `read` count bytes from the start of the stream, modulo 2^32; byte `i` lies at
//! `data[i % N]`. Each side keeps its own count for itself and only publishes it, so a peer that
//! scribbles over the shared one changes what it sees itself and nothing else.
//!
//! # Why no wake-up is lost
//!
//! A side that has nothing to do says so in its `waits` flag, looks once more, and only then
//! sleeps on its semaphore. The other side publishes its progress first and looks at the flag
//! after that. Both have a full fence between the store and the load, so at least one of them sees
//! what the other stored:
//!
//! | consumer | producer | outcome |
//! |---|---|---|
//! | sets flag, fence, finds bytes | - | withdraws the flag, does not sleep |
//! | sets flag, fence, finds none | its fence comes later: sees the flag | clears it, then up: the consumer wakes |
//! | withdraws the flag | saw it before | one up too many: the consumer wakes, finds nothing new, waits again |
//! | withdraws, reads, sets it again | clears the second flag, having seen the first | the up that follows the clearing wakes the consumer |
//!
//! A semaphore counts, so an up between the last look and the sleep is kept. The same holds with
//! the roles exchanged, for a producer that waits for room.

use core::fmt;

#[cfg(not(test))]
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};
#[cfg(test)]
use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

/// One side's half of the bookkeeping, on a cache line of its own.
#[repr(C, align(64))]
struct Side {
    /// Bytes written or read so far, modulo 2^32.
    count: AtomicU32,
    /// Not zero while this side is going to sleep or sleeps.
    waits: AtomicU32,
}

/// The shared memory of a stream; `N` is its capacity in bytes, a power of two.
#[repr(C)]
pub struct Ring<const N: usize> {
    producer: Side,
    consumer: Side,
    data: [AtomicU8; N],
}

impl<const N: usize> fmt::Debug for Ring<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("written", &self.producer.count.load(Ordering::Relaxed))
            .field("read", &self.consumer.count.load(Ordering::Relaxed))
            .field("capacity", &N)
            .finish_non_exhaustive()
    }
}

impl<const N: usize> Ring<N> {
    const CAPACITY: u32 = {
        assert!(N.is_power_of_two() && N <= 1 << 30);
        N as u32
    };

    /// An empty stream, for tests and for streams inside one task. Zeroed memory is the same.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let side = || Side { count: AtomicU32::new(0), waits: AtomicU32::new(0) };
        Self {
            producer: side(),
            consumer: side(),
            data: core::array::from_fn(|_| AtomicU8::new(0)),
        }
    }

    /// Whether both sides say that everything was read, for somebody who looks on.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.producer.count.load(Ordering::Acquire) == self.consumer.count.load(Ordering::Acquire)
    }

    fn byte(&self, position: u32) -> &AtomicU8 {
        &self.data[position as usize & (N - 1)]
    }
}

/// Says that this side goes to sleep; whether it may, or `ready` holds already.
fn announce(side: &Side, ready: impl FnOnce() -> bool) -> bool {
    side.waits.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if ready() {
        side.waits.store(0, Ordering::Relaxed);
        return false;
    }
    true
}

/// Publishes progress on `own` side and wakes the `other` if it said that it sleeps.
#[inline]
fn publish(own: &Side, count: u32, other: &Side, wake: impl FnOnce()) {
    own.count.store(count, Ordering::Release);
    fence(Ordering::SeqCst);
    if other.waits.load(Ordering::Relaxed) != 0 {
        other.waits.store(0, Ordering::Relaxed);
        wake();
    }
}

/// The sending end. There must be one for a ring.
#[derive(Debug)]
pub struct Producer<'a, const N: usize> {
    ring: &'a Ring<N>,
    written: u32,
}

impl<'a, const N: usize> Producer<'a, N> {
    /// Goes on where the ring's last producer stopped.
    #[must_use]
    pub fn new(ring: &'a Ring<N>) -> Self {
        Self { ring, written: ring.producer.count.load(Ordering::Relaxed) }
    }

    /// Bytes that can be sent now.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        let read = self.ring.consumer.count.load(Ordering::Acquire);
        let under_way = self.written.wrapping_sub(read);
        // A count that no honest consumer publishes leaves no room.
        Ring::<N>::CAPACITY.saturating_sub(under_way) as usize
    }

    /// Sends as much of `bytes` as there is room for and says how many that were. `wake` is to up
    /// the consumer's semaphore; it is called only if the consumer may be asleep.
    #[inline]
    pub fn write(&mut self, bytes: &[u8], wake: impl FnOnce()) -> usize {
        let count = bytes.len().min(self.room());
        if count == 0 {
            return 0;
        }
        for byte in bytes.iter().take(count) {
            self.ring.byte(self.written).store(*byte, Ordering::Relaxed);
            self.written = self.written.wrapping_add(1);
        }
        publish(&self.ring.producer, self.written, &self.ring.consumer, wake);
        count
    }

    /// To be called before sleeping until there is room: `true` if sleeping is right, `false` if
    /// there is room by now.
    #[must_use]
    pub fn prepare_wait(&self) -> bool {
        announce(&self.ring.producer, || self.room() > 0)
    }
}

/// The receiving end. There must be one for a ring.
#[derive(Debug)]
pub struct Consumer<'a, const N: usize> {
    ring: &'a Ring<N>,
    read: u32,
}

impl<'a, const N: usize> Consumer<'a, N> {
    /// Goes on where the ring's last consumer stopped.
    #[must_use]
    pub fn new(ring: &'a Ring<N>) -> Self {
        Self { ring, read: ring.consumer.count.load(Ordering::Relaxed) }
    }

    /// Bytes that can be received now.
    #[must_use]
    #[inline]
    pub fn available(&self) -> usize {
        let written = self.ring.producer.count.load(Ordering::Acquire);
        // A count that no honest producer publishes stands for a full ring of garbage.
        written.wrapping_sub(self.read).min(Ring::<N>::CAPACITY) as usize
    }

    /// Receives into the start of `buffer` and says how many bytes. `wake` is to up the producer's
    /// semaphore; it is called only if the producer may be asleep.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8], wake: impl FnOnce()) -> usize {
        let count = self.peek(buffer);
        self.skip(count, wake);
        count
    }

    /// Copies what would be received next and leaves it in the ring.
    #[inline]
    pub fn peek(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.available());
        let mut position = self.read;
        for byte in buffer.iter_mut().take(count) {
            *byte = self.ring.byte(position).load(Ordering::Relaxed);
            position = position.wrapping_add(1);
        }
        count
    }

    /// Drops up to `count` bytes that were looked at with [`Self::peek`].
    #[inline]
    pub fn skip(&mut self, count: usize, wake: impl FnOnce()) {
        let count = count.min(self.available());
        if count == 0 {
            return;
        }
        // At most the capacity, which fits.
        self.read = self.read.wrapping_add(count as u32);
        publish(&self.ring.consumer, self.read, &self.ring.producer, wake);
    }

    /// To be called before sleeping until there is something to read: `true` if sleeping is
    /// right, `false` if there is something by now.
    #[must_use]
    pub fn prepare_wait(&self) -> bool {
        announce(&self.ring.consumer, || self.available() > 0)
    }
}
