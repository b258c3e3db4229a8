//! MC146818A real-time clock with the PC's 128 bytes of CMOS memory (Motorola MC146818A
//! datasheet; ICH9 datasheet 13.6 for the PC's ports).
//!
//! Not modelled: daylight saving (register B bit 0 is kept without effect, as in the ICHs) and the
//! square-wave output.

mod calendar;
mod divider;

use calendar::{
    Alarm, CENTURY, DAY, Format, HOURS, HOURS_ALARM, MINUTES, MINUTES_ALARM, MONTH, MONTHDAY,
    SECONDS, SECONDS_ALARM, WEEKDAY, YEAR, date_from_days, days_from_date,
};
use divider::Divider;
use serde::{Deserialize, Serialize};

use crate::time::{Time, earliest};

/// First I/O port: index (offset 0), and data (offset 1).
pub const PORT: u16 = 0x70;

const A: u8 = 0x0a;
const A_UIP: u8 = 1 << 7;
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_32KHZ: u8 = 0x20;
const A_RATE: u8 = 0x0f;

const B: u8 = 0x0b;
const B_SET: u8 = 1 << 7;
const B_UIE: u8 = 1 << 4;
const B_SQWE: u8 = 1 << 3;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;

const C: u8 = 0x0c;
const C_IRQF: u8 = 1 << 7;
/// Periodic, alarm and update-ended: flags in C, enable bits in B at the same places.
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE: u8 = 1 << 4;

const D: u8 = 0x0d;
/// Valid RAM and time: the battery is good.
const D_VRT: u8 = 1 << 7;

/// How long before an update the update-in-progress bit is set.
const UIP_NS: u64 = 244_140;

/// Alarm bytes from this value on match any time.
const WILDCARD: u8 = 0xc0;

/// Where the PC's firmware keeps what it knows about the machine.
mod cell {
    pub const BASE_KIB: u8 = 0x15;
    pub const ABOVE_1M_KIB: u8 = 0x17;
    pub const CHECKSUM: u8 = 0x2e;
    pub const ABOVE_1M_KIB_AGAIN: u8 = 0x30;
    pub const ABOVE_16M_64KIB: u8 = 0x34;
    pub const ABOVE_4G_64KIB: u8 = 0x5b;
}

/// Clock and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {
    index: u8,
    nmi_masked: bool,
    #[serde(with = "crate::array")]
    cells: [u8; 128],
    /// `None` while register A holds the chain in reset or selects another crystal.
    divider: Option<Divider>,
}

impl Rtc {
    /// A clock that shows `unix_seconds` (seconds since 1970-01-01, UTC) at guest time zero, in
    /// BCD and 24-hour format, as a PC's firmware leaves it.
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        let mut rtc = Self {
            index: 0,
            nmi_masked: false,
            cells: [0; 128],
            divider: Some(Divider::from_power_on()),
        };
        rtc.set_cell(A, A_DIVIDER_32KHZ | 6);
        rtc.set_cell(B, B_24_HOURS);
        rtc.set_cell(D, D_VRT);
        let days = (unix_seconds / DAY).min(1_000_000_000) as i64;
        // 1970-01-01 was a Thursday; Sunday is 1.
        rtc.set_cell(WEEKDAY, rtc.format().encode((days + 4).rem_euclid(7) as u32 + 1));
        rtc.set_date(days);
        rtc.set_time_of_day(unix_seconds % DAY);
        rtc
    }

    /// Tells the firmware how much memory there is, in bytes: `below_4g` from address zero up to
    /// the hole below 4 GiB, and `above_4g` from 4 GiB up.
    #[must_use]
    pub fn with_memory_size(mut self, below_4g: u64, above_4g: u64) -> Self {
        let units = |bytes: u64, unit: u64, most: u64| (bytes / unit).min(most).to_le_bytes();
        let above = |start: u64| below_4g.saturating_sub(start);
        self.set_cells(cell::BASE_KIB, &units(below_4g, 1 << 10, 640)[..2]);
        let above_1m = units(above(1 << 20), 1 << 10, 63 << 10);
        self.set_cells(cell::ABOVE_1M_KIB, &above_1m[..2]);
        self.set_cells(cell::ABOVE_1M_KIB_AGAIN, &above_1m[..2]);
        self.set_cells(cell::ABOVE_16M_64KIB, &units(above(16 << 20), 64 << 10, 0xffff)[..2]);
        self.set_cells(cell::ABOVE_4G_64KIB, &units(above_4g, 64 << 10, 0xff_ffff)[..3]);
        let sum = self.cells[0x10..0x2e].iter().map(|&cell| u16::from(cell)).sum::<u16>();
        self.set_cells(cell::CHECKSUM, &sum.to_be_bytes());
        self
    }

    /// The reset line: no interrupts. Time and memory are kept by the battery.
    pub fn reset(&mut self) {
        self.index = 0;
        self.nmi_masked = false;
        self.set_cell(B, self.cell(B) & !(PERIODIC | ALARM | UPDATE | B_SQWE));
        self.set_cell(C, 0);
    }

    /// Reads the index port (offset 0; it is write-only and gives all ones) or the data port (1).
    pub fn read(&mut self, offset: u16, now: Time) -> u8 {
        if offset & 1 == 0 {
            return 0xff;
        }
        self.advance(now);
        match self.index {
            A if self.updating(now) => self.cell(A) | A_UIP,
            C => {
                let flags = self.cell(C);
                let irqf = if self.irq() { C_IRQF } else { 0 };
                self.set_cell(C, 0);
                flags | irqf
            }
            index => self.cell(index),
        }
    }

    /// Writes the index port (offset 0, with the NMI mask in bit 7) or the data port (1).
    pub fn write(&mut self, offset: u16, value: u8, now: Time) {
        if offset & 1 == 0 {
            self.index = value & 0x7f;
            self.nmi_masked = value & 0x80 != 0;
            return;
        }
        self.advance(now);
        match self.index {
            A => self.write_a(value, now),
            B if value & B_SET != 0 => self.set_cell(B, value & !B_UIE),
            C | D => {} // Read-only.
            index => self.set_cell(index, value),
        }
    }

    /// Level of IRQ 8; high until register C is read.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.cell(C) & self.cell(B) & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// True while the guest has masked NMIs at the index port.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// A byte of the memory (index 0 to 127), as stored. For the owner; no side effect.
    #[must_use]
    pub fn cell(&self, index: u8) -> u8 {
        self.cells[usize::from(index & 0x7f)]
    }

    /// Changes a byte of the memory (index 0 to 127). For the owner; no side effect.
    pub fn set_cell(&mut self, index: u8, value: u8) {
        self.cells[usize::from(index & 0x7f)] = value;
    }

    /// Brings time, flags and interrupt up to `now`.
    pub fn advance(&mut self, now: Time) {
        let rate = self.cell(A) & A_RATE;
        let Some(divider) = &mut self.divider else { return };
        let passed = divider.advance(now, rate);
        if passed.periodic {
            self.set_cell(C, self.cell(C) | PERIODIC);
        }
        if passed.seconds > 0 && !self.setting() {
            self.pass_seconds(passed.seconds);
        }
    }

    /// When IRQ 8 next rises.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        let divider = self.divider.as_ref()?;
        if self.irq() {
            return None;
        }
        let enabled = |source: u8| self.cell(B) & source != 0;
        let mut next = None;
        if enabled(PERIODIC) {
            next = divider.next_periodic(self.cell(A) & A_RATE);
        }
        if enabled(UPDATE) && !self.setting() {
            next = earliest(next, Some(divider.end_of_second(1)));
        }
        if enabled(ALARM) && !self.setting() {
            let seconds = self.alarm().seconds_until(self.time_of_day());
            next = earliest(next, seconds.map(|seconds| divider.end_of_second(seconds)));
        }
        next
    }

    fn set_cells(&mut self, first: u8, values: &[u8]) {
        for (index, &value) in (first..).zip(values) {
            self.set_cell(index, value);
        }
    }

    fn format(&self) -> Format {
        let b = self.cell(B);
        Format { binary: b & B_BINARY != 0, hours_24: b & B_24_HOURS != 0 }
    }

    /// The guest is setting the time: no updates.
    fn setting(&self) -> bool {
        self.cell(B) & B_SET != 0
    }

    fn updating(&self, now: Time) -> bool {
        !self.setting() && self.divider.as_ref().is_some_and(|d| d.until_update(now) <= UIP_NS)
    }

    fn write_a(&mut self, value: u8, now: Time) {
        self.set_cell(A, value & !A_UIP);
        let runs = value & A_DIVIDER == A_DIVIDER_32KHZ;
        if runs != self.divider.is_some() {
            self.divider = runs.then(|| Divider::released(now));
        }
    }

    fn time_of_day(&self) -> u64 {
        let format = self.format();
        let hours = format.decode_hour(self.cell(HOURS));
        let minutes = format.decode(self.cell(MINUTES));
        u64::from(hours * 3600 + minutes * 60 + format.decode(self.cell(SECONDS)))
    }

    fn set_time_of_day(&mut self, seconds: u64) {
        let format = self.format();
        let seconds = (seconds % DAY) as u32;
        self.set_cell(HOURS, format.encode_hour(seconds / 3600));
        self.set_cell(MINUTES, format.encode(seconds / 60 % 60));
        self.set_cell(SECONDS, format.encode(seconds % 60));
    }

    /// Days since 1970-01-01.
    fn date(&self) -> i64 {
        let part = |index: u8| i64::from(self.format().decode(self.cell(index)));
        days_from_date(part(CENTURY) * 100 + part(YEAR), part(MONTH), part(MONTHDAY))
    }

    fn set_date(&mut self, days: i64) {
        let format = self.format();
        let (year, month, day) = date_from_days(days);
        self.set_cell(CENTURY, format.encode((year / 100).rem_euclid(100) as u32));
        self.set_cell(YEAR, format.encode(year.rem_euclid(100) as u32));
        self.set_cell(MONTH, format.encode(month));
        self.set_cell(MONTHDAY, format.encode(day));
    }

    fn alarm(&self) -> Alarm {
        let (format, byte) = (self.format(), |index: u8| self.cell(index));
        let field = |byte: u8, decoded: u32| (byte < WILDCARD).then_some(decoded);
        let (hours, minutes, seconds) =
            (byte(HOURS_ALARM), byte(MINUTES_ALARM), byte(SECONDS_ALARM));
        Alarm([
            field(hours, format.decode_hour(hours)),
            field(minutes, format.decode(minutes)),
            field(seconds, format.decode(seconds)),
        ])
    }

    /// `seconds` update cycles at once.
    fn pass_seconds(&mut self, seconds: u64) {
        let time = self.time_of_day();
        let mut flags = self.cell(C) | UPDATE;
        if self.alarm().seconds_until(time).is_some_and(|until| until <= seconds) {
            flags |= ALARM;
        }
        self.set_cell(C, flags);
        let time = time.saturating_add(seconds);
        if time >= DAY {
            let days = time / DAY;
            let weekday = u64::from(self.format().decode(self.cell(WEEKDAY)));
            let weekday = (weekday + 6 + days) % 7 + 1;
            self.set_cell(WEEKDAY, self.format().encode(weekday as u32));
            self.set_date(self.date() + days as i64);
        }
        self.set_time_of_day(time);
    }
}
