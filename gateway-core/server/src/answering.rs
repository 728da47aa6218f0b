//! From a request to its response head, by one clone of the stack.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, Waker, ready};

use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;
use towpath_gateway_core::{Fault, Reason, Request};

pin_project! {
    /// The response, or that of a fault that no rescue took.
    pub(crate) struct Answering<S, F> {
        #[pin]
        state: State<S, F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Waiting { service: S, request: Option<Request> },
        Called { #[pin] answer: F },
        Refused { fault: Option<Fault> },
    }
}

impl<S> Answering<S, S::Future>
where
    S: Service<Request, Error: Into<Fault>> + Clone,
{
    /// Calls `service` at once while it is ready.
    pub(crate) fn start(service: &mut S, request: Request) -> Self {
        let state = match service.poll_ready(&mut Task::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => State::Called { answer: service.call(request) },
            Poll::Ready(Err(error)) => State::Refused { fault: Some(error.into()) },
            Poll::Pending => {
                // The one that waits goes with the request, so that the place it may hold in a queue is used and waked.
                let fresh = service.clone();
                State::Waiting { service: std::mem::replace(service, fresh), request: Some(request) }
            }
        };
        Self { state }
    }

    /// No service sees the request.
    pub(crate) fn refused(fault: Fault) -> Self {
        Self { state: State::Refused { fault: Some(fault) } }
    }
}

impl<S, B> Future for Answering<S, S::Future>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>>,
    B: Default,
{
    type Output = Response<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Response<B>> {
        let mut this = self.project();
        let answer = loop {
            match this.state.as_mut().project() {
                StateProjection::Called { answer } => break ready!(answer.poll(cx)).map_err(Into::into),
                StateProjection::Refused { fault } => {
                    break Err(fault.take().unwrap_or_else(|| Fault::new(Reason::Internal)));
                }
                StateProjection::Waiting { service, request } => {
                    let next = match (ready!(service.poll_ready(cx)), request.take()) {
                        (Ok(()), Some(request)) => State::Called { answer: service.call(request) },
                        (Err(error), _) => State::Refused { fault: Some(error.into()) },
                        (Ok(()), None) => State::Refused { fault: None },
                    };
                    this.state.set(next);
                }
            }
        };
        Poll::Ready(answer.unwrap_or_else(|fault| bare(&fault)))
    }
}

/// A fault that no rescue took: the status of its reason and nothing more.
fn bare<B: Default>(fault: &Fault) -> Response<B> {
    tracing::debug!(%fault, "request refused by the server");
    let mut response = Response::new(B::default());
    *response.status_mut() = fault.status();
    response
}
