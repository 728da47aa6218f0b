//! The boxed end of the accept stack.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context as Task, Poll, Waker};

use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxDatagrams, Flow};

use crate::ConnectionFuture;

/// An accept stack whose type no longer matters: what a listener hands its connections to.
///
/// ```
/// use std::convert::Infallible;
/// use tokio::io::AsyncWriteExt;
/// use towpath_gateway_core::{Accepted, BoxDatagrams, Flow};
/// use towpath_server::ConnectionService;
///
/// let greeter = ConnectionService::new(tower::service_fn(|mut accepted: Accepted| async move {
///     let _ = accepted.io.write_all(b"hello\n").await;
///     Ok::<_, Infallible>(())
/// }));
/// ```
pub type ConnectionService = AcceptService<Accepted>;

/// The same for the datagrams of one client.
pub type DatagramService = AcceptService<Flow<BoxDatagrams>>;

/// What serves a `T` to its end, whatever it is.
pub struct AcceptService<T>(Box<dyn CloneService<T> + Send + Sync>);

impl<T: Send + 'static> AcceptService<T> {
    /// Boxes `service`.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<T, Response = (), Error = Infallible, Future: Send + 'static>,
        S: Clone + Send + Sync + 'static,
    {
        Self(Box::new(Boxed(service)))
    }

    /// Serves one: at once if the service is ready, else on the one that waits, with a fresh clone here.
    pub(crate) fn serve(&mut self, accepted: T) -> ConnectionFuture {
        if self.poll_ready(&mut Task::from_waker(Waker::noop())).is_ready() {
            return self.call(accepted);
        }
        let fresh = self.clone();
        let mut waiting = std::mem::replace(self, fresh);
        Box::pin(async move {
            let Ok(()) = poll_fn(|cx| waiting.poll_ready(cx)).await;
            let served = waiting.call(accepted);
            drop(waiting);
            served.await
        })
    }
}

impl<T> Clone for AcceptService<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl<T> fmt::Debug for AcceptService<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcceptService")
    }
}

impl<T> Service<T> for AcceptService<T> {
    type Response = ();
    type Error = Infallible;
    type Future = ConnectionFuture;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.0.ready(cx)
    }

    fn call(&mut self, accepted: T) -> ConnectionFuture {
        self.0.call(accepted)
    }
}

trait CloneService<T> {
    fn clone_box(&self) -> Box<dyn CloneService<T> + Send + Sync>;
    fn ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>>;
    fn call(&mut self, accepted: T) -> ConnectionFuture;
}

#[derive(Clone)]
struct Boxed<S>(S);

impl<T, S> CloneService<T> for Boxed<S>
where
    S: Service<T, Response = (), Error = Infallible, Future: Send + 'static>,
    S: Clone + Send + Sync + 'static,
{
    fn clone_box(&self) -> Box<dyn CloneService<T> + Send + Sync> {
        Box::new(self.clone())
    }

    fn ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, accepted: T) -> ConnectionFuture {
        Box::pin(self.0.call(accepted))
    }
}
