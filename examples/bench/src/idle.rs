//! How soon a process answers, and its memory of idle connections: one request is served on each, then all are kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde::Serialize;

use crate::proxy::{Ground, Kind, Proxy, Role};
use crate::{Failure, client, interrupt, usage};

const CONNECTIONS: u32 = 1000;
/// What allocators and timers get to settle.
const SETTLE: Duration = Duration::from_secs(1);

/// Memory of one proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) proxy: Kind,
    /// From the start of the process to its first answer, the faster of two, in milliseconds.
    pub(crate) start_ms: f64,
    /// Resident memory after the first request, in MiB.
    pub(crate) rss_mib: f64,
    /// Growth for each idle plaintext connection, in KiB.
    pub(crate) plain_kib: f64,
    /// Growth for each idle TLS connection, in KiB.
    pub(crate) tls_kib: f64,
}

impl Idle {
    /// One line.
    pub(crate) fn text(&self) -> String {
        let Self { proxy, start_ms, rss_mib, plain_kib, tls_kib } = self;
        let name = proxy.name();
        format!(
            "{name}: {start_ms:.0} ms to the first answer, {rss_mib:.1} MiB, {plain_kib:.1} KiB a plaintext, {tls_kib:.1} KiB a TLS connection"
        )
    }
}

/// Measures one proxy; each kind of connection has a process of its own.
pub(crate) fn measure(
    ground: &Ground,
    kind: Kind,
    mut wait: impl FnMut(&mut Proxy, SocketAddr, bool) -> Result<(), Failure>,
) -> Result<Idle, Failure> {
    let config = client::checker(&ground.certificates)?;
    let mut start_ms = f64::INFINITY;
    let mut growth = |tls: bool| -> Result<(f64, f64), Failure> {
        let began = Instant::now();
        let mut proxy = kind.start(Role::Edge, ground)?.ok_or("it has no part in this")?;
        let address = if tls { proxy.tls } else { proxy.plain }.ok_or("it has no such listener")?;
        wait(&mut proxy, address, tls)?;
        start_ms = start_ms.min(began.elapsed().as_secs_f64() * 1000.0);
        hold(&proxy, address, tls.then_some(&config))
    };
    let (rss_mib, plain_kib) = growth(false)?;
    let (_, tls_kib) = growth(true)?;
    Ok(Idle { proxy: kind, start_ms, rss_mib, plain_kib, tls_kib })
}

/// Memory before in MiB, and growth for each connection in KiB.
fn hold(proxy: &Proxy, address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<(f64, f64), Failure> {
    sleep(SETTLE);
    let before = usage::rss_mib(&proxy.process.family());
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        interrupt::check()?;
        let mut io = client::connect(address, tls)?;
        client::exchange(&mut *io, "/", false)?;
        held.push(io);
    }
    sleep(SETTLE);
    let grown = usage::rss_mib(&proxy.process.family()) - before;
    Ok((before, grown * 1024.0 / f64::from(CONNECTIONS)))
}
