//! `wrk`: HTTP/1.1 with keep-alive, as fast as it goes.

use super::Done;
use crate::Failure;

/// Its command line.
pub(super) fn args(url: &str, connections: u32, secs: u32) -> Vec<String> {
    let flags = [
        "-t1".to_owned(),
        format!("-c{connections}"),
        format!("-d{secs}s"),
        "--latency".to_owned(),
        "--timeout".to_owned(),
        "10s".to_owned(),
    ];
    flags.into_iter().chain([url.to_owned()]).collect()
}

/// What it reports.
pub(super) fn parse(said: &str) -> Result<Done, Failure> {
    let after = |start: &str| said.lines().find_map(|line| line.trim().strip_prefix(start).map(str::trim));
    let count = said.lines().find_map(|line| line.trim().split_once(" requests in ").map(|(count, _)| count));
    let unknown = || format!("wrk said what is not understood: {said}");
    let bad = after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0);
    let errors: u64 = after("Socket errors:").map_or(0, |line| {
        line.split(',').filter_map(|part| part.trim().rsplit(' ').next()?.parse::<u64>().ok()).sum()
    });
    Ok(Done {
        requests: count.and_then(|count| count.parse().ok()).ok_or_else(unknown)?,
        failed: bad + errors,
        per_second: after("Requests/sec:").and_then(|rate| rate.parse().ok()).ok_or_else(unknown)?,
        p50_ms: after("50%").and_then(milliseconds),
        p99_ms: after("99%").and_then(milliseconds),
    })
}

/// A time with its unit, such as `620.00us`.
pub(super) fn milliseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(unit)?;
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.90ms  400.00us  10.00ms   90.00%
    Req/Sec    61.00k     2.00k   65.00k    80.00%
  Latency Distribution
     50%  840.00us
     75%    1.00ms
     90%    1.20ms
     99%    4.87ms
  63473 requests in 1.00s, 17.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  63473.12
Transfer/sec:     17.00MB
";

    #[test]
    fn every_figure_is_found() {
        let done = parse(SAID).unwrap();
        let expected =
            Done { requests: 63473, failed: 7, per_second: 63473.12, p50_ms: Some(0.84), p99_ms: Some(4.87) };
        assert_eq!(done, expected);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(parse("unable to connect").unwrap_err().to_string().contains("unable to connect"));
    }

    #[test]
    fn units() {
        for (text, expected) in
            [("2.00s", Some(2000.0)), ("1.00m", Some(60_000.0)), ("5", None), ("5h", None)]
        {
            assert_eq!(milliseconds(text), expected);
        }
    }
}
