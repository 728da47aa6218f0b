//! The life of the process: state, listeners, signals.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer as _;
use towpath_ca::{Authority, TokenKey};
use towpath_control::{Configuration, Plane, PlaneAcceptLayer, plane_tls};
use towpath_server::{ConnectionService, Drain, Limits, Listening, Serve, Workers, bind};

use crate::Failure;
use crate::admin::Admin;
use crate::args::RunArgs;

/// How long requests in flight have at the end. Those that wait for a change are cut; they come again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is opened, so that no signal ends the process unawares.
    let stop = runtime.block_on(async { stop_signal() })?;
    let authority = Authority::open_or_create(&args.state, args.trust_domain.clone())?.with_max_ttl(args.ttl);
    let authority = Arc::new(authority);
    let tokens = TokenKey::open_or_create(&args.state)?;
    let configuration = Configuration::read(args.config.clone())?;
    let accept = PlaneAcceptLayer::new(plane_tls(Arc::clone(&authority))?);
    let plane = Plane::new(Arc::clone(&authority), tokens, configuration.clone());

    let (limits, drain) = (Limits::edge(), Drain::new(PATIENCE));
    let workers = Workers::start(1)?;
    let bound = bind(args.listen, workers.count())?;
    let address = bound.local_addr();
    let stack = {
        let drain = drain.clone();
        move |_| ConnectionService::new(accept.layer(Serve::new(plane.clone(), limits, drain.clone())))
    };
    let listening = workers.open(bound, stack, &limits, &drain)?;
    if let Some(admin) = args.admin {
        open_admin(&workers, admin, &drain)?;
    }
    tracing::info!(
        %address,
        trust_domain = %authority.domain(),
        root = %authority.fingerprint(),
        files = configuration.file_count(),
        "control plane is ready"
    );
    runtime.block_on(serve_until(stop, configuration, &listening, &drain));
    workers.shutdown();
    Ok(())
}

fn open_admin(workers: &Workers, address: std::net::SocketAddr, drain: &Drain) -> Result<(), Failure> {
    let limits = Limits::edge();
    let admin = Admin::new(drain.clone());
    // Drains with the process, not with the plane: probes must see the end coming.
    let open = Drain::new(PATIENCE);
    let stack = {
        let open = open.clone();
        move |_| ConnectionService::new(Serve::new(admin.clone(), limits, open.clone()))
    };
    workers.open(bind(address, workers.count())?, stack, &limits, &open)?;
    Ok(())
}

async fn serve_until(
    stop: impl Future<Output = ()>,
    configuration: Configuration,
    listening: &Listening,
    drain: &Drain,
) {
    tokio::select! {
        () = stop => {}
        // Follows for as long as it is polled.
        () = configuration.follow() => {}
    }
    tracing::info!("shutting down");
    drain.signal();
    // Who waits to be accepted is accepted first.
    listening.closed().await;
    if !drain.drained().await {
        tracing::info!("requests that were waiting are cut");
    }
}

/// Resolves at SIGTERM or Ctrl-C. Signals count from the call on.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
