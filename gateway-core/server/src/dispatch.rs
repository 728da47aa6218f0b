//! Hands the requests of one connection to the service.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service;
use towpath_gateway_core::{Body, Connection, Context, Fault, Reason, Request};

use crate::Limits;
use crate::pace::Pace;

/// hyper's service for one connection. It keeps one clone of the stack and calls it at once while that is ready.
pub(crate) struct Dispatch<S> {
    service: RefCell<S>,
    connection: Arc<Connection>,
    pace: Arc<Pace>,
    limits: Limits,
}

impl<S> Dispatch<S> {
    pub(crate) fn new(service: S, connection: Arc<Connection>, pace: Arc<Pace>, limits: Limits) -> Self {
        Self { service: RefCell::new(service), connection, pace, limits }
    }

    fn prepare(&self, request: http::Request<Incoming>) -> Request {
        let mut request = request.map(|body| match body {
            body if body.is_end_stream() => Body::empty(),
            body => Body::new(Upload::new(body, &self.pace)),
        });
        request.extensions_mut().insert(Context::on(Arc::clone(&self.connection)));
        request
    }
}

impl<S, B> hyper::service::Service<http::Request<Incoming>> for Dispatch<S>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>> + Clone,
    B: http_body::Body + Default,
{
    type Response = Response<ExchangeBody<B>>;
    type Error = Fault;
    type Future = Exchange<S, S::Future>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let open = Open::new(&self.pace);
        let old = request.version() < Version::HTTP_2;
        let state = match refusal(&request, &self.limits) {
            Some(reason) => State::Refused { fault: Some(Fault::new(reason)) },
            None => start::<S>(&mut self.service.borrow_mut(), self.prepare(request)),
        };
        Exchange { state, open: Some(open), old }
    }
}

/// What HTTP itself does not bound, or bounds more loosely.
fn refusal<B>(request: &http::Request<B>, limits: &Limits) -> Option<Reason> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    if target + authority > limits.target_bytes {
        return Some(Reason::TargetTooLong);
    }
    (request.headers().len() > limits.header_count).then_some(Reason::HeadTooLarge)
}

fn start<S>(service: &mut S, request: Request) -> State<S, S::Future>
where
    S: Service<Request, Error: Into<Fault>> + Clone,
{
    match service.poll_ready(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => State::Called { answer: service.call(request) },
        Poll::Ready(Err(error)) => State::Refused { fault: Some(error.into()) },
        Poll::Pending => {
            // The one that waits goes with the request, so that the place it may hold in a queue is used and waked.
            let fresh = service.clone();
            State::Waiting { service: std::mem::replace(service, fresh), request: Some(request) }
        }
    }
}

pin_project! {
    /// One request being answered.
    pub(crate) struct Exchange<S, F> {
        #[pin]
        state: State<S, F>,
        open: Option<Open>,
        // HTTP/1, which says goodbye in a header.
        old: bool,
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

impl<S, B> Future for Exchange<S, S::Future>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>>,
    B: http_body::Body + Default,
{
    type Output = Result<Response<ExchangeBody<B>>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
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
        let mut response = answer.unwrap_or_else(|fault| bare(&fault));
        let open = this.open.take();
        if *this.old && open.as_ref().is_some_and(|open| open.pace.is_draining()) {
            say_goodbye(&mut response);
        }
        Poll::Ready(Ok(response.map(|body| ExchangeBody { body, open })))
    }
}

/// A fault that no rescue took: the status of its reason and nothing more.
fn bare<B: Default>(fault: &Fault) -> Response<B> {
    tracing::debug!(%fault, "request refused by the server");
    let mut response = Response::new(B::default());
    *response.status_mut() = fault.reason().status();
    response
}

fn say_goodbye<B>(response: &mut Response<B>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

pin_project! {
    /// The body of a request; the connection does not rest as long as this lives.
    struct Upload {
        #[pin]
        body: Incoming,
        pace: Arc<Pace>,
    }

    impl PinnedDrop for Upload {
        fn drop(this: Pin<&mut Self>) {
            this.pace.end_upload();
        }
    }
}

impl Upload {
    fn new(body: Incoming, pace: &Arc<Pace>) -> Self {
        pace.begin_upload();
        Self { body, pace: Arc::clone(pace) }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // hyper does not say so before the next request if the body ends later than the answer.
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts its request as in flight.
struct Open {
    pace: Arc<Pace>,
    held_back: bool,
}

impl Open {
    fn new(pace: &Arc<Pace>) -> Self {
        pace.begin();
        Self { pace: Arc::clone(pace), held_back: false }
    }

    fn ask(&mut self) {
        self.pace.ask(std::mem::take(&mut self.held_back));
    }

    fn hold_back(&mut self) {
        self.held_back = true;
        self.pace.hold_back();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ask();
        self.pace.end();
    }
}

pin_project! {
    /// The body of an answer; its request is in flight as long as this lives.
    pub(crate) struct ExchangeBody<B> {
        #[pin]
        body: B,
        open: Option<Open>,
    }
}

impl<B: http_body::Body<Data: Buf>> http_body::Body for ExchangeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        if let Some(open) = &mut this.open {
            open.ask();
        }
        let frame = this.body.as_mut().poll_frame(cx);
        if let (Poll::Ready(Some(Ok(_))), Some(open)) = (&frame, this.open) {
            open.hold_back();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_header_counts_are_bounded() {
        let limits = Limits { target_bytes: 20, header_count: 2, ..Limits::edge() };
        let request = |target: &str, headers: usize| {
            let mut request = http::Request::builder().uri(target);
            for _ in 0..headers {
                request = request.header("a", "b");
            }
            request.body(()).unwrap()
        };
        let cases = [
            (request("/", 2), None),
            (request("/", 3), Some(Reason::HeadTooLarge)),
            (request("/2345678901234567890", 0), None),
            (request("/23456789012345678901", 0), Some(Reason::TargetTooLong)),
            (request("http://host.example/3456789", 0), None),
            (request("http://host.example/34567890", 0), Some(Reason::TargetTooLong)),
        ];
        for (request, expected) in cases {
            assert_eq!(refusal(&request, &limits), expected, "{}", request.uri());
        }
    }
}
