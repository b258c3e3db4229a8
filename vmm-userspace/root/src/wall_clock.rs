//! The machine's own wall clock.

use root_task::rtc::Registers;
use runtime::clock::{Clock, now};
use runtime::port::{inb, outb};

/// Ports of the clock's memory: address and data.
const ADDRESS: u16 = 0x70;
const DATA: u16 = 0x71;
/// Register A, and its bit: an update is near or under way (MC146818 datasheet, register A).
const REGISTER_A: u8 = 0x0a;
const UPDATE: u8 = 1 << 7;
/// Nanoseconds that an update can take with its announcement: 2228 us at most, and some margin.
const UPDATE_TIME: u64 = 10_000_000;
/// Readings until two in a row are the same.
const TRIES: u32 = 8;

/// Seconds from 1970-01-01 00:00 UTC to the moment when the time-stamp counter was zero; 0 if the
/// machine has no clock.
pub fn epoch(clock: Clock) -> u64 {
    let Some(seconds) = stable(clock).and_then(Registers::unix_seconds) else { return 0 };
    seconds.saturating_sub(clock.to_ns(now()) / 1_000_000_000)
}

/// The registers, all of one second.
fn stable(clock: Clock) -> Option<Registers> {
    let mut before = read(clock);
    for _ in 0..TRIES {
        let again = read(clock);
        if again == before {
            return Some(again);
        }
        before = again;
    }
    None
}

fn read(clock: Clock) -> Registers {
    let limit = clock.in_ns(UPDATE_TIME);
    while register(REGISTER_A) & UPDATE != 0 && now() < limit {}
    Registers {
        seconds: register(0x00),
        minutes: register(0x02),
        hours: register(0x04),
        day: register(0x07),
        month: register(0x08),
        year: register(0x09),
        format: register(0x0b),
        century: register(0x32),
    }
}

fn register(address: u8) -> u8 {
    outb(ADDRESS, address);
    inb(DATA)
}
