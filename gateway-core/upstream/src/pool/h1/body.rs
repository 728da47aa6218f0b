//! A response body and the connection that it comes on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use towpath_gateway_core::{Body, Destination, Fault, Response};
use towpath_http1::response::ResponseHead;
use towpath_http1::{Broken, Decoded, Framing, Sending};

use super::wire::Wire;
use super::{broken, end_of_stream, invalid};
use crate::pool::key::Key;
use crate::pool::store::Store;

/// A connection on loan, which goes back when the response has ended. If it is dropped before, the connection is closed.
pub(super) struct Loan {
    pub(super) wire: Box<Wire>,
    pub(super) key: Key,
    pub(super) store: Arc<Store>,
    pub(super) destination: Destination,
    /// What is left of the request, if the server answered before it had all of it.
    pub(super) upload: Option<Box<Sending>>,
    /// Whether both sides will have another request on the connection.
    pub(super) keep: bool,
}

impl Loan {
    /// Bytes that came after the response are an answer to nothing: they would be taken for the next one.
    fn give_back(mut self) {
        if self.keep && self.upload.is_none() && self.wire.read.bytes.is_empty() {
            self.wire.read.park();
            self.store.put(self.key, self.wire);
        }
    }

    /// Sends on what is left of the request. Whether it all gets out is the server's affair now that it has answered.
    fn poll_upload(&mut self, cx: &mut Task<'_>) -> Result<(), Fault> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(&mut self.wire.io, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload = None,
            Poll::Ready(Err(Broken::Io(_))) => {
                self.keep = false;
                self.upload = None;
            }
            Poll::Ready(Err(Broken::Body(error))) => return Err(super::request_body(error)),
            Poll::Ready(Err(Broken::Length(how))) => {
                return Err(super::request_body(super::wrong_length(how)));
            }
        }
        Ok(())
    }
}

/// The response as layers see it. A body that is here already comes without its connection.
pub(super) fn deliver(head: ResponseHead, mut loan: Loan) -> Response {
    let body = match head.framing {
        Framing::Length(0) => {
            loan.give_back();
            Body::empty()
        }
        Framing::Length(length) if loan.wire.read.bytes.len() as u64 >= length => {
            let bytes = loan.wire.read.bytes.split_to(usize::try_from(length).unwrap_or(usize::MAX)).freeze();
            loan.give_back();
            Body::from(bytes)
        }
        framing => Body::new(Download { framing, loan: Some(loan) }),
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

struct Download {
    framing: Framing,
    loan: Option<Loan>,
}

impl Download {
    fn poll_decoded(&mut self, cx: &mut Task<'_>) -> Poll<Result<Decoded, Fault>> {
        let Some(loan) = &mut self.loan else { return Poll::Ready(Ok(Decoded::End)) };
        loan.poll_upload(cx)?;
        loop {
            let decoded = self.framing.decode(&mut loan.wire.read.bytes);
            match decoded.map_err(|error| invalid(error, &loan.destination))? {
                Decoded::More => {}
                decoded => return Poll::Ready(Ok(decoded)),
            }
            match ready!(loan.wire.poll_fill(cx)) {
                // Under TLS only an end that the server signed comes as one: a cut is an error.
                Ok(0) if matches!(self.framing, Framing::Close) => return Poll::Ready(Ok(Decoded::End)),
                Ok(0) => return Poll::Ready(Err(broken(end_of_stream(), &loan.destination))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(broken(error, &loan.destination))),
            }
        }
    }

    fn end(&mut self) {
        if let Some(loan) = self.loan.take() {
            loan.give_back();
        }
    }

    fn data(&mut self, data: Bytes) -> Frame<Bytes> {
        if matches!(self.framing, Framing::Length(0)) {
            self.end();
        }
        Frame::data(data)
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        self.end();
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match ready!(self.poll_decoded(cx)) {
            Ok(Decoded::Data(data)) => Poll::Ready(Some(Ok(self.data(data)))),
            Ok(Decoded::Trailers(trailers)) if !trailers.is_empty() => {
                Poll::Ready(Some(Ok(self.trailers(trailers))))
            }
            Ok(_) => {
                self.end();
                Poll::Ready(None)
            }
            Err(fault) => {
                self.loan = None;
                Poll::Ready(Some(Err(fault)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.loan.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::Close => SizeHint::default(),
        }
    }
}
