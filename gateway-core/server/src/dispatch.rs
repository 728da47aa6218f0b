//! Hands the requests of a connection that hyper speaks to the service: HTTP/2, and the one request that may leave
//! HTTP/1.1 behind.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service;
use towpath_gateway_core::{Body, Connection, Context, Fault, Reason, Request};

use crate::Limits;
use crate::answering::Answering;
use crate::pace::Pace;

/// hyper's service for one connection. It keeps one clone of the stack and calls it at once while that is ready.
pub(crate) struct Dispatch<S> {
    service: RefCell<S>,
    connection: Arc<Connection>,
    pace: Arc<Pace>,
    limits: Limits,
    last: bool,
}

impl<S> Dispatch<S> {
    pub(crate) fn new(service: S, connection: Arc<Connection>, pace: Arc<Pace>, limits: Limits) -> Self {
        Self { service: RefCell::new(service), connection, pace, limits, last: false }
    }

    /// The connection ends with the answer to its next request, unless that is 101.
    pub(crate) fn last(self) -> Self {
        Self { last: true, ..self }
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
        let connect = request.method() == Method::CONNECT;
        let old = request.version() < Version::HTTP_2;
        let answer = match refusal(&request, &self.limits) {
            Some(reason) => Answering::refused(Fault::new(reason)),
            None => Answering::start(&mut *self.service.borrow_mut(), self.prepare(request)),
        };
        Exchange { answer, open: Some(open), old, connect, last: self.last }
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

pin_project! {
    /// One request being answered.
    pub(crate) struct Exchange<S, F> {
        #[pin]
        answer: Answering<S, F>,
        open: Option<Open>,
        // HTTP/1, which says goodbye in a header.
        old: bool,
        connect: bool,
        last: bool,
    }
}

impl<S, B> Future for Exchange<S, S::Future>
where
    S: Service<Request, Response = Response<B>, Error: Into<Fault>>,
    B: http_body::Body + Default,
{
    type Output = Result<Response<ExchangeBody<B>>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.answer.poll(cx));
        let open = this.open.take();
        if *this.last || *this.old && open.as_ref().is_some_and(|open| open.pace.is_draining()) {
            say_goodbye(&mut response, *this.connect);
        }
        Poll::Ready(Ok(response.map(|body| ExchangeBody { body, open })))
    }
}

/// Unless the connection becomes a tunnel.
fn say_goodbye<B>(response: &mut Response<B>, connect: bool) {
    let tunnel = connect && response.status().is_success();
    if !tunnel && response.status() != StatusCode::SWITCHING_PROTOCOLS {
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
pub(crate) struct Open {
    pace: Arc<Pace>,
    held_back: bool,
}

impl Open {
    pub(crate) fn new(pace: &Arc<Pace>) -> Self {
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
