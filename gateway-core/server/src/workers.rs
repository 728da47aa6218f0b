//! One current-thread runtime per core, each with its own listener socket and its own clone of the stack.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use crate::accept::{self, Admission};
use crate::admission::OpenConnections;
use crate::redirected::Redirected;
use crate::{Bound, BoundDatagrams, ConnectionService, DatagramService, Drain, Limits, datagrams};

/// Threads that serve connections. A connection stays on the worker that accepted it, so nothing that belongs to a
/// worker's clone of the stack is shared.
///
/// Dropping it ends the threads without waiting for them.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    open: OpenConnections,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Workers {
    /// Starts `count` threads (at least one), named `worker-0` and so on. Fails if the system gives no thread or no
    /// event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        let workers = (0..count.max(1)).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, open: OpenConnections::default() })
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// The runtimes, for what has to run beside the connections of each worker.
    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.workers.iter().map(|worker| &worker.handle)
    }

    /// Connections open now, over all listeners.
    pub fn connections(&self) -> usize {
        self.open.count()
    }

    /// Serves `bound`: `factory` is called once for each worker, on its thread and in its runtime, with the worker's
    /// number, and its service gets every connection of that worker. Bind with [`Workers::count`] sockets.
    ///
    /// Accepting ends with [`Listening::close`] or when `drain` is signalled. Fails if a socket cannot be registered
    /// with its runtime; then none is served.
    pub fn open<F>(&self, bound: Bound, factory: F, limits: &Limits, drain: &Drain) -> io::Result<Listening>
    where
        F: Fn(usize) -> ConnectionService + Send + Sync + 'static,
    {
        let local = bound.local_addr();
        let (close, closing) = watch::channel(false);
        let admission =
            Admission { open: self.open.clone(), max: limits.max_connections, drain: drain.clone() };
        let (factory, redirected) = (Arc::new(factory), bound.is_redirected());
        for (number, (worker, listener)) in self.registered(bound)?.into_iter().enumerate() {
            let (factory, admission, closing) = (Arc::clone(&factory), admission.clone(), closing.clone());
            worker.handle.spawn(async move {
                let service = factory(number);
                let drain = admission.drain.clone();
                let stop = stop(closing.clone(), drain);
                if redirected {
                    accept::run(Redirected::new(listener), service, admission, stop).await;
                } else {
                    accept::run(listener, service, admission, stop).await;
                }
                // `Listening::closed` waits for this, and by now the socket is gone.
                drop(closing);
            });
        }
        Ok(Listening { local, close })
    }

    /// [`Workers::open`] for datagrams: the service of a worker gets a flow for each client whose datagrams the kernel gives to
    /// it. Flows count as connections. When accepting ends, those that there are have half a second for last answers.
    pub fn open_datagrams<F>(
        &self,
        bound: BoundDatagrams,
        factory: F,
        limits: &Limits,
        drain: &Drain,
    ) -> io::Result<Listening>
    where
        F: Fn(usize) -> DatagramService + Send + Sync + 'static,
    {
        let local = bound.local_addr();
        let (close, closing) = watch::channel(false);
        let admission =
            Admission { open: self.open.clone(), max: limits.max_connections, drain: drain.clone() };
        let factory = Arc::new(factory);
        for (number, (worker, socket)) in self.registered_datagrams(bound)?.into_iter().enumerate() {
            let (factory, admission, closing) = (Arc::clone(&factory), admission.clone(), closing.clone());
            worker.handle.spawn(async move {
                let service = factory(number);
                let drain = admission.drain.clone();
                datagrams::run(socket, service, admission, stop(closing.clone(), drain)).await;
                drop(closing);
            });
        }
        Ok(Listening { local, close })
    }

    fn registered_datagrams(&self, bound: BoundDatagrams) -> io::Result<Vec<(&Worker, UdpSocket)>> {
        let mut registered = Vec::new();
        for (socket, worker) in bound.into_sockets().into_iter().zip(self.workers.iter().cycle()) {
            let _inside = worker.handle.enter();
            registered.push((worker, UdpSocket::from_std(socket)?));
        }
        Ok(registered)
    }

    fn registered(&self, bound: Bound) -> io::Result<Vec<(&Worker, TcpListener)>> {
        let mut registered = Vec::new();
        for (socket, worker) in bound.into_sockets().into_iter().zip(self.workers.iter().cycle()) {
            let _inside = worker.handle.enter();
            registered.push((worker, TcpListener::from_std(socket)?));
        }
        Ok(registered)
    }

    /// Ends every worker and waits for its thread; connections still open are cut. Drain first. It blocks, so call it
    /// outside of the workers.
    pub fn shutdown(self) {
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| {
                let _ = worker.stop.send(());
                worker.thread
            })
            .collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread had panicked");
            }
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // An error means that the sender is gone: the workers were dropped.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, stop, thread })
    }
}

async fn stop(mut closing: watch::Receiver<bool>, drain: Drain) {
    let closed = async {
        if closing.wait_for(|closed| *closed).await.is_err() {
            // The handle is gone without a word: the listener stays.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = closed => {}
        () = drain.signalled() => {}
    }
}

/// A listener that is being served. Dropping it leaves the listener open.
#[derive(Debug)]
pub struct Listening {
    local: SocketAddr,
    close: watch::Sender<bool>,
}

impl Listening {
    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops accepting on all workers, after what already waits to be accepted. Connections live on.
    pub fn close(&self) {
        self.close.send_replace(true);
    }

    /// Resolves when no worker accepts any more and the port is free.
    pub async fn closed(&self) {
        self.close.closed().await;
    }
}
