//! Single values, checked as they are read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use towpath_auth::Pattern;
use towpath_routing::Hostname;

macro_rules! leaf {
    ($(#[$doc:meta])* $name:ident($type:ty), $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) $type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let read: fn(&str) -> Result<$type, String> = $read;
                read(&text).map(Self).map_err(D::Error::custom)
            }
        }
    };
}

leaf!(
    /// A host name, perhaps with a wildcard in front (Gateway API, `Hostname`).
    Host(Hostname),
    host
);
leaf!(
    /// A host name without wildcard (Gateway API, `PreciseHostname`).
    PreciseHost(Arc<str>),
    |text| match host(text)? {
        Hostname::Exact(name) => Ok(name),
        _ => Err(format!("`{text}` may not have a wildcard here")),
    }
);
leaf!(
    /// A header's name.
    FieldName(HeaderName),
    |text| text.parse().map_err(|_| format!("`{text}` is not a header name"))
);
leaf!(
    /// Names of headers (Istio): one, those that begin with what stands before a `*`, or end with what stands behind it.
    FieldPattern(Pattern),
    |text| match Pattern::new(text) {
        Pattern::Exact(name) | Pattern::Prefix(name) | Pattern::Suffix(name)
            if name.contains('*') || name.parse::<HeaderName>().is_err() =>
        {
            Err(format!("`{text}` is not a header name, perhaps with a `*` as its first or last character"))
        }
        pattern => Ok(pattern),
    }
);
leaf!(
    /// A header's value.
    FieldValue(HeaderValue),
    |text| HeaderValue::from_str(text).map_err(|_| "a header value has no control characters".to_owned())
);
leaf!(
    /// A request method; the specification knows them in upper case.
    Verb(Method),
    |text| match text {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            text.parse().map_err(|_| format!("`{text}` is not a method"))
        }
        _ => Err(format!("`{text}` is not a method: they are written in upper case, such as GET")),
    }
);
leaf!(
    /// A length of time in the Gateway API's form (GEP-2257).
    Span(Duration),
    duration
);
leaf!(
    /// Seconds since the epoch of an RFC 3339 time.
    Timestamp(i64),
    |text| timestamp(text).ok_or_else(|| format!("`{text}` is not a time such as 2026-11-23T00:00:00Z"))
);

fn host(text: &str) -> Result<Hostname, String> {
    match text.parse() {
        _ if text.parse::<IpAddr>().is_ok() => Err(format!("`{text}` is an address, not a host name")),
        Ok(Hostname::Any) | Err(_) => {
            Err(format!("`{text}` is not a host name: a DNS name, with at most a `*.` in front"))
        }
        Ok(name) => Ok(name),
    }
}

/// A response status that may be given as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) StatusCode);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        StatusCode::from_u16(number)
            .map(Self)
            .map_err(|_| D::Error::custom(format!("{number} is not an HTTP status")))
    }
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum PortRef {
    Number(u16),
    Name(String),
}

/// GEP-2257: one to four numbers of up to five digits, each with a unit of `h`, `m`, `s` or `ms`, each unit once.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as 10s, 500ms or 1h30m");
    let (mut rest, mut total, mut seen) = (text, Duration::ZERO, Vec::new());
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|digits| (1..=5).contains(digits))
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit =
            tail.find(|c: char| c.is_ascii_digit()).map_or(tail, |end| tail.get(..end).unwrap_or(tail));
        let millis: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        if seen.contains(&unit) {
            return Err(wrong());
        }
        seen.push(unit);
        total += Duration::from_millis(number.parse::<u64>().map_err(|_| wrong())? * millis);
        rest = tail.get(unit.len()..).unwrap_or_default();
    }
    if seen.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// RFC 3339 section 5.6, to the second; a fraction is dropped.
fn timestamp(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        text.get(from..to).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let sign = |at: usize, wanted: &str| text.get(at..=at).filter(|c| wanted.contains(*c));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    sign(4, "-").and(sign(7, "-")).and(sign(10, "Tt ")).and(sign(13, ":")).and(sign(16, ":"))?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?;
    let zone = zone
        .strip_prefix('.')
        .map_or(zone, |fraction| fraction.trim_start_matches(|c: char| c.is_ascii_digit()));
    Some(days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?)
}

fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let part = |text: &str, most: i64| {
        let number = text.parse::<i64>().ok().filter(|n| (0..=most).contains(n));
        number.filter(|_| text.len() == 2)
    };
    Some(sign * (part(hours, 23)? * 3_600 + part(minutes, 59)? * 60))
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_durations_as_gep_2257_has_them() {
        for (text, millis) in
            [("0s", 0), ("10s", 10_000), ("500ms", 500), ("1h30m", 5_400_000), ("1s500ms", 1_500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "-1s", "100000s", "1s1s", "1d", "1us", " 1s", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2026-11-23T05:26:01.123456Z", 1_795_411_561),
            ("2026-11-23T06:26:01+01:00", 1_795_411_561),
            ("1969-12-31T23:59:59z", -1),
        ] {
            assert_eq!(timestamp(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+1:00",
            "2026/01/01T00:00:00Z",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn host_names_are_names() {
        for text in ["", "*", "1.2.3.4", "a..b", "a.*.b", "-a", "a b"] {
            assert!(host(text).is_err(), "{text}");
        }
        assert_eq!(host("*.Example.com"), Ok(Hostname::Suffix(".example.com".into())));
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in ".{0,40}", time in "[0-9TZ:+. -]{0,30}") {
            let _ = (duration(&text), timestamp(&text), host(&text), timestamp(&time));
        }
    }
}
