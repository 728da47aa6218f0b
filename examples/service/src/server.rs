//! Listens, serves connections, and stops without breaking what runs.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::{App, Args};

/// How long requests that run may take when the program is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Rest after `accept` failed, for instance because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the program on a runtime of its own.
pub(crate) fn run(args: Args) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(async {
        let listen = args.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| cannot_listen(listen, &error))?;
        let stop = stop_signal().map_err(|error| format!("cannot watch for SIGTERM: {error}"))?;
        let address =
            listener.local_addr().map_err(|error| format!("cannot read the own address: {error}"))?;
        println!("{} {} listens on {address}", args.name, args.version);
        serve(listener, App::new(args), stop).await;
        Ok(())
    })
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the process that has it or choose another --listen",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{advice}")
}

/// Ends at the first SIGTERM or Ctrl-C.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves `app` until `stop` ends; then accepts nothing more and lets what runs finish, for at most 10 s.
pub async fn serve(listener: TcpListener, app: App, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((io, _)) => drop(tokio::spawn(connection(io, app.clone(), graceful.watcher()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    // What runs longer is cut when the runtime ends.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

async fn connection(io: TcpStream, app: App, watcher: Watcher) {
    // A socket that cannot be tuned still works.
    let _ = io.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    // A client that breaks its connection is its own business.
    let _ = watcher.watch(connection.into_owned()).await;
}
