//! Wall-clock time as logs show it.

use std::fmt;
use std::time::{Duration, SystemTime};

const SECONDS_A_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const EPOCH_FROM_MARCH_0: u64 = 719_468;
/// Days in 400 years.
const ERA: u64 = 146_097;

/// Shows a time in UTC by RFC 3339, with milliseconds: `2026-11-23T06:05:07.089Z`. Times before 1970 show as 1970.
pub(crate) struct Rfc3339(pub(crate) SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / SECONDS_A_DAY, since.as_secs() % SECONDS_A_DAY);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let fields =
            [(0, 4, year), (5, 7, month), (8, 10, day), (11, 13, hour), (14, 16, minute), (17, 19, second)];
        let millis = (20, 23, u64::from(since.subsec_millis()));
        for (from, to, value) in fields.into_iter().chain([millis]) {
            put(text.get_mut(from..to).unwrap_or_default(), value);
        }
        // Digits are always text.
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes a number with leading zeros. By hand, for it is done for every line of the access log.
fn put(places: &mut [u8], mut value: u64) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
    }
}

/// Year, month and day of a count of days since 1970-01-01. Years are reckoned from March, so that the leap day is
/// the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_FROM_MARCH_0;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(seconds: u64, millis: u32) -> String {
        Rfc3339(SystemTime::UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000)).to_string()
    }

    #[test]
    fn known_times() {
        assert_eq!(show(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(show(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(show(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(show(1_709_164_800, 0), "2024-02-29T00:00:00.000Z");
        assert_eq!(show(1_000_000_000, 0), "2001-09-09T01:46:40.000Z");
        assert_eq!(show(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(show(253_402_300_799, 0), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..=150_000 {
            let now = civil(day);
            let next_day = now == (before.0, before.1, before.2 + 1);
            let next_month = now == (before.0, before.1 + 1, 1) && before.2 >= 28;
            let next_year = now == (before.0 + 1, 1, 1) && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} then {now:?}");
            before = now;
        }
    }

    #[test]
    fn a_clock_before_1970_does_not_panic() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Rfc3339(early).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
