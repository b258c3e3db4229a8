//! The ten bytes of time and alarm in the clock's memory: BCD or binary, 12 or 24 hours.

/// Seconds in a day.
pub(super) const DAY: u64 = 86_400;

/// Memory addresses (MC146818 datasheet, figure 11); the century is the PC's addition.
pub(super) const SECONDS: u8 = 0x00;
pub(super) const SECONDS_ALARM: u8 = 0x01;
pub(super) const MINUTES: u8 = 0x02;
pub(super) const MINUTES_ALARM: u8 = 0x03;
pub(super) const HOURS: u8 = 0x04;
pub(super) const HOURS_ALARM: u8 = 0x05;
pub(super) const WEEKDAY: u8 = 0x06;
pub(super) const MONTHDAY: u8 = 0x07;
pub(super) const MONTH: u8 = 0x08;
pub(super) const YEAR: u8 = 0x09;
pub(super) const CENTURY: u8 = 0x32;

/// In 12-hour mode: the hour is after noon.
const PM: u8 = 0x80;

/// How the bytes are to be read, from register B.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub binary: bool,
    pub hours_24: bool,
}

impl Format {
    pub fn decode(self, byte: u8) -> u32 {
        if self.binary { byte.into() } else { u32::from(byte >> 4) * 10 + u32::from(byte & 0xf) }
    }

    /// `value` must be below 100.
    pub fn encode(self, value: u32) -> u8 {
        (if self.binary { value } else { value / 10 * 16 + value % 10 }) as u8
    }

    pub fn decode_hour(self, byte: u8) -> u32 {
        if self.hours_24 {
            return self.decode(byte);
        }
        self.decode(byte & !PM) % 12 + if byte & PM != 0 { 12 } else { 0 }
    }

    pub fn encode_hour(self, hour: u32) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { PM } else { 0 }
    }
}

/// Days from 1970-01-01 to the given day of the proleptic Gregorian calendar. Out-of-range months
/// and days simply count on.
pub(super) fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March end with the leap day.
    let months = year * 12 + month - 3;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 1970-01-01 is day 719468 counted from the 1st of March of the year 0.
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Year, month (1 to 12) and day of the month of the day that is `days` after 1970-01-01.
pub(super) fn date_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (year_of_era * 365 + year_of_era / 4 - year_of_era / 100);
    let march_month = (of_year * 5 + 2) / 153;
    let day = of_year - (march_month * 153 + 2) / 5 + 1;
    let (month, next) = if march_month < 10 { (march_month + 3, 0) } else { (march_month - 9, 1) };
    (era * 400 + year_of_era + next, month as u32, day as u32)
}

/// Time of day that an alarm waits for: hour, minute, second; `None` matches any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm(pub [Option<u32>; 3]);

impl Alarm {
    /// Seconds from the time of day `now` (below [`DAY`]) to the next match, 1 to 86400; `None` if
    /// a field holds a value that no time has.
    pub fn seconds_until(self, now: u64) -> Option<u64> {
        let Alarm([hour, minute, second]) = self;
        let start = now % DAY + 1;
        // The rest of the current hour, then whole hours until the same one of the next day.
        (0..=24).find_map(|ahead| {
            let from = if ahead == 0 { start } else { (start / 3600 + ahead) * 3600 };
            if hour.is_some_and(|hour| u64::from(hour) != from / 3600 % 24) {
                return None;
            }
            let at = first_in_hour(minute, second, (from % 3600) as u32)?;
            Some(from / 3600 * 3600 + u64::from(at) + 1 - start)
        })
    }
}

/// The first second of an hour, not before `from` (below 3600), with the given minute and second.
fn first_in_hour(minute: Option<u32>, second: Option<u32>, from: u32) -> Option<u32> {
    let first = |pattern: Option<u32>, least: u32| match pattern {
        Some(value) => (value >= least && value < 60).then_some(value),
        None => (least < 60).then_some(least),
    };
    let now = first(minute, from / 60)?;
    let least = if now == from / 60 { from % 60 } else { 0 };
    if let Some(second) = first(second, least) {
        return Some(now * 60 + second);
    }
    Some(first(minute, now + 1)? * 60 + first(second, 0)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_781, (2024, 2, 28)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date_from_days(days), date);
            assert_eq!(days_from_date(date.0, date.1.into(), date.2.into()), days);
        }
    }

    proptest! {
        #[test]
        fn dates_follow_each_other(days in -1_000_000i64..3_000_000) {
            let (year, month, day) = date_from_days(days);
            prop_assert_eq!(days_from_date(year, month.into(), day.into()), days);
            let (next_year, next_month, next_day) = date_from_days(days + 1);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (day == last, month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
            prop_assert_eq!((next_year, next_month, next_day), expected);
        }

        #[test]
        fn formats_round_trip(binary: bool, hours_24: bool, hour in 0u32..24, value in 0u32..100) {
            let format = Format { binary, hours_24 };
            prop_assert_eq!(format.decode_hour(format.encode_hour(hour)), hour);
            prop_assert_eq!(format.decode(format.encode(value)), value);
        }

        #[test]
        fn alarms_match_where_a_search_finds_them(
            hour in prop::option::of(0u32..26),
            minute in prop::option::of(0u32..62),
            second in prop::option::of(0u32..62),
            now in 0..DAY,
        ) {
            let alarm = Alarm([hour, minute, second]);
            let is = |wanted: Option<u32>, value: u64| wanted.is_none_or(|w| u64::from(w) == value);
            let matches = |ahead: &u64| {
                let t = now + ahead;
                is(hour, t / 3600 % 24) && is(minute, t / 60 % 60) && is(second, t % 60)
            };
            prop_assert_eq!(alarm.seconds_until(now), (1..=DAY).find(matches));
        }
    }
}
