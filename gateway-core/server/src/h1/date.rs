//! The `Date` of answers (RFC 9110 section 6.6.1), written out once a second.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// The newest date. Only the tasks of one worker meet at the lock.
#[derive(Debug, Default)]
pub(crate) struct Dates(Mutex<(u64, String)>);

impl Dates {
    /// Appends the line for the current second.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.0 != second || newest.1.is_empty() {
            *newest = (second, format!("date: {}\r\n", HttpDate::from(now)));
        }
        out.extend_from_slice(newest.1.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_now_and_in_the_preferred_form() {
        let (dates, mut out) = (Dates::default(), Vec::new());
        dates.write(&mut out);
        dates.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            let date: HttpDate = line.strip_prefix("date: ").unwrap().parse().unwrap();
            let age = SystemTime::now().duration_since(SystemTime::from(date)).unwrap();
            assert!(age.as_secs() < 5 && line.ends_with("GMT"), "{line}");
        }
        assert_eq!(text.lines().count(), 2);
    }
}
