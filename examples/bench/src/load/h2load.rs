//! `h2load`: HTTP/2, and HTTP/1.1 at a fixed rate.

use std::path::Path;

use super::{Done, Load};
use crate::Failure;
use crate::statistics::{float, percentile};

/// Its command line; each request goes into `log`.
pub(super) fn args(load: Load, url: &str, secs: u32, log: &Path) -> Vec<String> {
    let mut args = vec!["-t1".to_owned(), format!("-D{secs}"), format!("--log-file={}", log.display())];
    match load {
        Load::Rate { connections, per_second } => args.extend([
            "--h1".to_owned(),
            format!("-c{connections}"),
            format!("--rps={}", f64::from(per_second) / f64::from(connections)),
        ]),
        Load::H2 { connections, streams } => {
            args.extend([format!("-c{connections}"), format!("-m{streams}"), "--npn-list=h2".to_owned()]);
        }
        Load::Wrk { .. } | Load::Handshakes { .. } => {}
    }
    args.push(url.to_owned());
    args
}

/// What it reports. Its log has a line for each request: begin, status, and duration in microseconds.
pub(super) fn parse(said: &str, log: &str) -> Result<Done, Failure> {
    let unknown = || format!("h2load said what is not understood: {said}");
    let line = said.lines().find_map(|line| line.strip_prefix("requests:")).ok_or_else(unknown)?;
    let counted = |what: &str| {
        let part = line.split(',').find_map(|part| part.trim().strip_suffix(what))?;
        part.trim().parse::<u64>().ok()
    };
    let rate = said
        .lines()
        .filter(|line| line.starts_with("finished in"))
        .find_map(|line| line.split(',').find_map(|part| part.trim().strip_suffix(" req/s"))?.parse().ok());
    let mut times: Vec<u64> = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_unstable();
    let ms = |permille| percentile(&times, permille).map(|us| float(us) / 1000.0);
    Ok(Done {
        requests: counted("succeeded").ok_or_else(unknown)?,
        failed: counted("failed").unwrap_or(0) + counted("errored").unwrap_or(0),
        per_second: rate.ok_or_else(unknown)?,
        p50_ms: ms(500),
        p99_ms: ms(990),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...
Application protocol: h2

finished in 1.00s, 61505.00 req/s, 8.97MB/s
requests: 61533 total, 61633 started, 61505 done, 61500 succeeded, 3 failed, 2 errored, 0 timeout
status codes: 61505 2xx, 0 3xx, 0 4xx, 0 5xx
time for request:      101us      9.51ms      2.08ms       644us    78.65%
";

    #[test]
    fn every_figure_is_found() {
        let done = parse(SAID, "1\t200\t1000\n2\t200\t3000\n3\t200\t2000\n").unwrap();
        let expected =
            Done { requests: 61500, failed: 5, per_second: 61505.0, p50_ms: Some(2.0), p99_ms: Some(3.0) };
        assert_eq!(done, expected);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(parse("connect failed", "").is_err());
    }

    #[test]
    fn the_rate_is_shared_by_the_connections() {
        let load = Load::Rate { connections: 32, per_second: 3000 };
        assert!(args(load, "http://x/", 1, Path::new("log")).contains(&"--rps=93.75".to_owned()));
    }
}
