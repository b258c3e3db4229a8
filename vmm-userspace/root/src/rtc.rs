//! The time of day in a PC's battery-backed clock.

/// The clock's registers as they were read (MC146818 datasheet, figure 11; the century's place is
/// the PC's addition).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registers {
    pub seconds: u8,
    pub minutes: u8,
    pub hours: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    pub century: u8,
    /// Register B: how the others are to be read.
    pub format: u8,
}

/// Register B: numbers are binary, not BCD.
const BINARY: u8 = 1 << 2;
/// Register B: hours count to 24.
const HOURS_24: u8 = 1 << 1;
/// With hours to 12: after noon.
const PM: u8 = 1 << 7;

const SECONDS_PER_DAY: u64 = 86_400;

impl Registers {
    /// Seconds from 1970-01-01 00:00 to the time in the registers, which is taken for UTC. `None`
    /// if they hold no time, as without a clock.
    #[must_use]
    pub fn unix_seconds(self) -> Option<u64> {
        let [second, minute] = [self.number(self.seconds)?, self.number(self.minutes)?];
        let (hour, year) = (self.hour()?, self.number(self.year).filter(|year| *year < 100)?);
        let [month, day] = [self.number(self.month)?, self.number(self.day)?];
        // Not every PC keeps the century there.
        let century = self.number(self.century).filter(|c| (20..=21).contains(c)).unwrap_or(20);
        let year = century * 100 + year;
        let valid = second < 60
            && minute < 60
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        if !valid {
            return None;
        }
        let days = (1970..year).map(days_in_year).sum::<u64>()
            + (1..month).map(|month| days_in_month(year, month)).sum::<u64>()
            + (day - 1);
        Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
    }

    fn number(self, byte: u8) -> Option<u64> {
        if self.format & BINARY != 0 {
            return Some(byte.into());
        }
        let (tens, ones) = (byte >> 4, byte & 0xf);
        (tens < 10 && ones < 10).then_some((tens * 10 + ones).into())
    }

    fn hour(self) -> Option<u64> {
        if self.format & HOURS_24 != 0 {
            return self.number(self.hours).filter(|hour| *hour < 24);
        }
        let hour = self.number(self.hours & !PM).filter(|hour| (1..=12).contains(hour))?;
        Some(hour % 12 + if self.hours & PM != 0 { 12 } else { 0 })
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BCD_24: u8 = HOURS_24;

    fn bcd(format: u8, date: [u8; 3], time: [u8; 3], century: u8) -> Registers {
        let [year, month, day] = date;
        let [hours, minutes, seconds] = time;
        Registers { seconds, minutes, hours, day, month, year, century, format }
    }

    #[test]
    fn known_moments() {
        for (registers, expected) in [
            // date -u -d '2025-02-28 23:59:59' +%s
            (bcd(BCD_24, [0x25, 0x02, 0x28], [0x23, 0x59, 0x59], 0x20), 1_740_787_199),
            // date -u -d '2024-02-29' +%s, and the day after
            (bcd(BCD_24, [0x24, 0x02, 0x29], [0, 0, 0], 0x20), 1_709_164_800),
            (bcd(BCD_24, [0x24, 0x03, 0x01], [0, 0, 0], 0x20), 1_709_251_200),
            // date -u -d '2000-01-01' +%s; date -u -d '2100-03-01' +%s
            (bcd(BCD_24, [0x00, 0x01, 0x01], [0, 0, 0], 0x20), 946_684_800),
            (bcd(BCD_24, [0x00, 0x03, 0x01], [0, 0, 0], 0x21), 4_107_542_400),
            // No century, and a wrong one.
            (bcd(BCD_24, [0x00, 0x01, 0x01], [0, 0, 0], 0x00), 946_684_800),
            (bcd(BCD_24, [0x00, 0x01, 0x01], [0, 0, 0], 0x19), 946_684_800),
            (bcd(BCD_24, [0x00, 0x01, 0x01], [0, 0, 0], 0xff), 946_684_800),
            // 12:30 at night, 11:30, 12:30 at noon, 11:30 at night.
            (bcd(0, [0x00, 0x01, 0x01], [0x12, 0x30, 0], 0x20), 946_684_800 + 1800),
            (bcd(0, [0x00, 0x01, 0x01], [0x11, 0x30, 0], 0x20), 946_684_800 + 11 * 3600 + 1800),
            (bcd(0, [0x00, 0x01, 0x01], [0x92, 0x30, 0], 0x20), 946_684_800 + 12 * 3600 + 1800),
            (bcd(0, [0x00, 0x01, 0x01], [0x91, 0x30, 0], 0x20), 946_684_800 + 23 * 3600 + 1800),
            // Binary.
            (bcd(BINARY | HOURS_24, [25, 2, 28], [23, 59, 59], 20), 1_740_787_199),
            (bcd(BINARY, [25, 2, 28], [0x8b, 59, 59], 20), 1_740_787_199),
        ] {
            assert_eq!(registers.unix_seconds(), Some(expected), "{registers:x?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let absent = bcd(0xff, [0xff; 3], [0xff; 3], 0xff);
        assert_eq!(absent.unix_seconds(), None);
        let good = bcd(BCD_24, [0x25, 0x02, 0x28], [0x23, 0x59, 0x59], 0x20);
        for bad in [
            Registers { seconds: 0x60, ..good },
            Registers { minutes: 0x5a, ..good },
            Registers { hours: 0x24, ..good },
            Registers { day: 0x29, ..good },
            Registers { day: 0, ..good },
            Registers { month: 0x13, ..good },
            Registers { month: 0, ..good },
            Registers { year: 0xa0, ..good },
            Registers { hours: 0x00, format: 0, ..good },
            Registers { hours: 0x13, format: 0, ..good },
        ] {
            assert_eq!(bad.unix_seconds(), None, "{bad:x?}");
        }
        assert!(good.unix_seconds().is_some());
    }

    /// Every day of two centuries follows the one before.
    #[test]
    fn days_follow_each_other() {
        let mut expected = 946_684_800;
        for year in 2000..2200 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    let registers = Registers {
                        day: day as u8,
                        month: month as u8,
                        year: (year % 100) as u8,
                        century: (year / 100) as u8,
                        format: BINARY | HOURS_24,
                        ..Registers::default()
                    };
                    assert_eq!(registers.unix_seconds(), Some(expected));
                    expected += SECONDS_PER_DAY;
                }
            }
        }
        // date -u -d '2200-01-01' +%s
        assert_eq!(expected, 7_258_118_400);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in any::<[u8; 8]>()) {
            let [seconds, minutes, hours, day, month, year, century, format] = bytes;
            let registers =
                Registers { seconds, minutes, hours, day, month, year, century, format };
            if let Some(time) = registers.unix_seconds() {
                prop_assert!((946_684_800..7_258_118_400).contains(&time));
            }
        }
    }
}
