//! A connection with a full TLS handshake for each request. The usual tools resume sessions or not as their TLS library
//! sees fit; here nothing is ever resumed. It runs as a process of its own, so that it can be pinned.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use super::Done;
use crate::statistics::{float, percentile};
use crate::{Failure, client};

#[derive(Debug, Parser)]
#[command(name = "handshakes")]
struct Args {
    address: SocketAddr,
    connections: u32,
    secs: u32,
    root: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    requests: u64,
    failed: u64,
    seconds: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// The command line of the process.
pub(super) fn args(address: SocketAddr, connections: u32, secs: u32, root: &Path) -> Vec<String> {
    let root = root.display().to_string();
    vec!["handshakes".into(), address.to_string(), connections.to_string(), secs.to_string(), root]
}

/// What it reports.
pub(super) fn parse(said: &str) -> Result<Done, Failure> {
    let said: Said = serde_json::from_str(said)?;
    let ms = |us: u64| float(us) / 1000.0;
    Ok(Done {
        requests: said.requests,
        failed: said.failed,
        per_second: float(said.requests) / said.seconds.max(0.001),
        p50_ms: said.p50_us.map(ms),
        p99_ms: said.p99_us.map(ms),
    })
}

/// Runs the process.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let sent = Args::try_parse_from(args).map_err(Into::into).and_then(|args| send(&args));
    match sent.and_then(|said| Ok(serde_json::to_string(&said)?)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("handshakes: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn send(args: &Args) -> Result<Said, Failure> {
    let config = client::tls(&args.root, None)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(args.secs.into());
    let address = args.address;
    let one =
        |config: Arc<ClientConfig>| std::thread::spawn(move || one_after_another(address, &config, end));
    let threads: Vec<_> = (0..args.connections).map(|_| one(Arc::clone(&config))).collect();
    let (mut times, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (took, bad) = thread.join().map_err(|_| "a thread of load has ended badly")?;
        times.extend(took);
        failed += bad;
    }
    times.sort_unstable();
    Ok(Said {
        requests: u64::try_from(times.len())?,
        failed,
        seconds: began.elapsed().as_secs_f64(),
        p50_us: percentile(&times, 500),
        p99_us: percentile(&times, 990),
    })
}

fn one_after_another(address: SocketAddr, config: &Arc<ClientConfig>, end: Instant) -> (Vec<u64>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        let began = Instant::now();
        let answer =
            client::connect(address, Some(config)).and_then(|mut io| client::exchange(&mut *io, "/", true));
        if let Ok((200, _)) = answer {
            times.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        } else {
            // A refusal would be repeated as fast as the machine can: not so fast.
            failed += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    (times, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_survives_its_way_through_a_pipe() {
        let said = Said { requests: 100, failed: 1, seconds: 2.0, p50_us: Some(1500), p99_us: None };
        let done = parse(&serde_json::to_string(&said).unwrap()).unwrap();
        assert_eq!((done.requests, done.failed, done.p50_ms, done.p99_ms), (100, 1, Some(1.5), None));
        assert!((done.per_second - 50.0).abs() < f64::EPSILON);
    }
}
