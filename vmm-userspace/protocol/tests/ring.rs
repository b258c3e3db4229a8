//! The ring against a queue, and against peers that lie.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use protocol::ring::{Consumer, Producer, Ring};

const N: usize = 16;

/// The memory of a ring as the peer sees it: count and flag of the producer, count and flag of the
/// consumer, each pair on a cache line of its own, then the data.
#[repr(C, align(64))]
struct Memory([AtomicU32; SIZE]);

const SIZE: usize = (128 + 64) / 4;

impl Memory {
    fn zeroed() -> Self {
        Self([const { AtomicU32::new(0) }; SIZE])
    }

    fn ring(&self) -> &Ring<N> {
        assert!(size_of::<Ring<N>>() <= size_of::<Self>());
        assert!(align_of::<Ring<N>>() <= align_of::<Self>());
        // SAFETY: a ring consists of atomics only, which hold for every content; it fits, is
        // aligned, and lives as long as the memory.
        unsafe { &*self.0.as_ptr().cast() }
    }

    fn scribble(&self, producer: [u32; 2], consumer: [u32; 2]) {
        for (at, value) in [0, 1, 16, 17].into_iter().zip(producer.into_iter().chain(consumer)) {
            self.0[at].store(value, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    Read(usize),
    Peek(usize),
    ProducerWaits,
    ConsumerWaits,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..2 * N).prop_map(Step::Write),
        (0..2 * N).prop_map(Step::Read),
        (0..2 * N).prop_map(Step::Peek),
        Just(Step::ProducerWaits),
        Just(Step::ConsumerWaits),
        Just(Step::Reopen),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_bounded_queue(steps in proptest::collection::vec(step(), 0..200)) {
        let ring = Ring::<N>::new();
        let mut producer = Producer::new(&ring);
        let mut consumer = Consumer::new(&ring);
        let mut model = VecDeque::new();
        let (mut producer_sleeps, mut consumer_sleeps) = (false, false);
        for step in steps {
            match step {
                Step::Write(bytes) => {
                    let mut woken = false;
                    let sent = producer.write(&bytes, || woken = true);
                    prop_assert_eq!(sent, bytes.len().min(N - model.len()));
                    model.extend(&bytes[..sent]);
                    prop_assert_eq!(woken, consumer_sleeps && sent > 0);
                    consumer_sleeps &= !woken;
                }
                Step::Read(count) => {
                    let mut buffer = vec![0; count];
                    let mut woken = false;
                    let got = consumer.read(&mut buffer, || woken = true);
                    let expected: Vec<u8> = model.drain(..count.min(model.len())).collect();
                    prop_assert_eq!(&buffer[..got], &expected);
                    prop_assert_eq!(woken, producer_sleeps && got > 0);
                    producer_sleeps &= !woken;
                }
                Step::Peek(count) => {
                    let mut buffer = vec![0; count];
                    let got = consumer.peek(&mut buffer);
                    prop_assert!(buffer[..got].iter().eq(model.iter().take(count)));
                    prop_assert_eq!(got, count.min(model.len()));
                }
                Step::ProducerWaits => {
                    producer_sleeps = producer.prepare_wait();
                    prop_assert_eq!(producer_sleeps, model.len() == N);
                }
                Step::ConsumerWaits => {
                    consumer_sleeps = consumer.prepare_wait();
                    prop_assert_eq!(consumer_sleeps, model.is_empty());
                }
                Step::Reopen => {
                    producer = Producer::new(&ring);
                    consumer = Consumer::new(&ring);
                }
            }
            prop_assert_eq!(producer.room(), N - model.len());
            prop_assert_eq!(consumer.available(), model.len());
        }
    }

    #[test]
    fn a_lying_peer_garbles_only_the_stream(lies in proptest::collection::vec(any::<[u32; 4]>(), 1..50)) {
        let memory = Memory::zeroed();
        let ring = memory.ring();
        let mut producer = Producer::new(ring);
        let mut consumer = Consumer::new(ring);
        for [written, read, producer_waits, consumer_waits] in lies {
            memory.scribble([written, producer_waits], [read, consumer_waits]);
            let (room, available) = (producer.room(), consumer.available());
            prop_assert!(room <= N && available <= N);
            let mut buffer = [0; 2 * N];
            prop_assert_eq!(consumer.read(&mut buffer, || {}), available);
            memory.scribble([written, producer_waits], [read, consumer_waits]);
            prop_assert_eq!(producer.write(&[1; 2 * N], || {}), room);
        }
    }
}

#[test]
fn zeroed_memory_is_an_empty_ring() {
    let memory = Memory::zeroed();
    assert_eq!(Producer::new(memory.ring()).room(), N);
    assert_eq!(Producer::new(memory.ring()).write(b"hello", || {}), 5);
    let mut buffer = [0; N];
    assert_eq!(Consumer::new(memory.ring()).read(&mut buffer, || {}), 5);
    assert_eq!(&buffer[..5], b"hello");
}

#[test]
fn counts_wrap_around_at_32_bits() {
    let memory = Memory::zeroed();
    let start = u32::MAX - 2;
    memory.scribble([start, 0], [start, 0]);
    let mut producer = Producer::new(memory.ring());
    let mut consumer = Consumer::new(memory.ring());
    for round in 0..4_u8 {
        assert_eq!(producer.write(&[round; N], || {}), N);
        assert_eq!(producer.room(), 0);
        let mut buffer = [0xee; N];
        assert_eq!(consumer.read(&mut buffer, || {}), N);
        assert_eq!(buffer, [round; N]);
        assert_eq!(consumer.available(), 0);
    }
}
