//! Moments, as certificates name them and as messages show them.

use std::time::{Duration, SystemTime};

use x509_parser::time::ASN1Time;

/// The moment that a certificate names; `None` if this machine has no word for it.
pub(crate) fn of(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Whether a certificate whose last valid moment this is has expired. The last second counts whole (RFC 5280 section
/// 4.1.2.5).
pub(crate) fn is_past(not_after: SystemTime, now: SystemTime) -> bool {
    now.duration_since(not_after).is_ok_and(|past| past >= Duration::from_secs(1))
}

/// The moment in universal time, as RFC 2822 writes it.
pub(crate) fn utc(moment: SystemTime) -> String {
    let seconds = match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    };
    ASN1Time::from_timestamp(seconds)
        .ok()
        .and_then(|time| time.to_rfc2822().ok())
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}
