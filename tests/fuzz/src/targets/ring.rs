//! The console's rings, with a peer that writes whatever it likes into the shared memory.
//!
//! `unsafe` is needed to be that peer.

use std::sync::atomic::{AtomicU8, Ordering};

use protocol::ring::{Consumer, Producer, Ring};

use super::Target;
use crate::input::Input;

const ROOM: usize = 64;

/// A sequence of what the two ends do, and of bytes that the peer of one puts anywhere.
pub const TARGET: Target = Target { name: "ring", longest: 256, dictionary: &[], seeds, run };

fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x00\x05hello\x01\x05\x00\x02hi\x02\x01\x03\x01\x04\x05".to_vec(),
        b"\x00\x40\x06\x40\xff\x01\x50\x06\x00\x80\x01\x10\x02\x07\x03\xff".to_vec(),
    ]
}

/// Stores a byte in the ring's memory, as a task can that shares it.
fn scribble(ring: &Ring<ROOM>, offset: u8, value: u8) {
    let start = std::ptr::from_ref(ring).cast::<AtomicU8>();
    let offset = usize::from(offset) % size_of::<Ring<ROOM>>();
    // SAFETY: the offset is inside of the ring, which consists of atomic integers and padding.
    unsafe { (*start.add(offset)).store(value, Ordering::Relaxed) };
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ring = Ring::<ROOM>::new();
    let mut producer = Producer::new(&ring);
    let mut consumer = Consumer::new(&ring);
    while !input.is_empty() {
        let (room, available) = (producer.room(), consumer.available());
        assert!(room <= ROOM && available <= ROOM);
        match input.byte() % 7 {
            0 => {
                let count = usize::from(input.byte());
                let text = input.bytes(count);
                assert_eq!(producer.write(text, || ()), text.len().min(room));
            }
            1 => {
                let mut buffer = [0; 256];
                let buffer = &mut buffer[..input.byte().into()];
                let wanted = buffer.len();
                assert_eq!(consumer.read(buffer, || ()), wanted.min(available));
            }
            2 => {
                let mut buffer = [0; 256];
                assert_eq!(consumer.peek(&mut buffer), available);
                assert_eq!(consumer.available(), available);
            }
            3 => consumer.skip(input.byte().into(), || ()),
            4 => assert_eq!(producer.prepare_wait(), room == 0),
            5 => assert_eq!(consumer.prepare_wait(), available == 0),
            _ => scribble(&ring, input.byte(), input.byte()),
        }
        std::hint::black_box(ring.is_drained());
    }
}
