//! Cuts what no signal would end.
//!
//! - **reads** nothing
//! - **writes** nothing
//! - **ends a connection** that is still there at the drain's deadline
//! - **settings** [`Drain`]
//! - **place** on the accept stack, around what does not know the drain: layer 4 has no way to ask a client to go

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::Live;

use crate::Drain;

/// Applies [`UntilDrained`].
#[derive(Debug, Clone)]
pub struct UntilDrainedLayer {
    drain: Live<Drain>,
}

impl UntilDrainedLayer {
    /// Ends services at the deadline of `drain`: of the one that is there when a service begins.
    pub fn new(drain: impl Into<Live<Drain>>) -> Self {
        Self { drain: drain.into() }
    }
}

impl<S> Layer<S> for UntilDrainedLayer {
    type Service = UntilDrained<S>;

    fn layer(&self, inner: S) -> UntilDrained<S> {
        UntilDrained { inner, drain: self.drain.clone() }
    }
}

/// Drops what it serves at the drain's deadline.
#[derive(Debug, Clone)]
pub struct UntilDrained<S> {
    inner: S,
    drain: Live<Drain>,
}

impl<S, R> Service<R> for UntilDrained<S>
where
    S: Service<R, Response = ()>,
{
    type Response = ();
    type Error = S::Error;
    type Future = UntilDrainedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let drain = Drain::clone(&self.drain.load());
        UntilDrainedFuture {
            served: self.inner.call(request),
            expired: Box::pin(async move { drain.expired().await }),
        }
    }
}

pin_project! {
    /// What [`UntilDrained`] serves.
    pub struct UntilDrainedFuture<F> {
        #[pin]
        served: F,
        expired: Pin<Box<dyn Future<Output = ()> + Send>>,
    }
}

impl<F: Future<Output = Result<(), E>>, E> Future for UntilDrainedFuture<F> {
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(served) = this.served.poll(cx) {
            return Poll::Ready(served);
        }
        ready!(this.expired.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_at_the_deadline() {
        let drain = Drain::new(Duration::from_secs(30));
        let endless = service_fn(|()| std::future::pending::<Result<(), Infallible>>());
        let served = tokio::spawn(UntilDrainedLayer::new(drain.clone()).layer(endless).oneshot(()));
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert!(!served.is_finished());
        drain.signal();
        let start = tokio::time::Instant::now();
        served.await.unwrap().unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}
