//! A response body and the connection that it comes on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;
use towpath_gateway_core::{Body, Fault, InFlight, Reason, Response};

use super::h1::H1;
use super::key::Key;
use super::store::Store;
use super::translate;

/// How long a connection whose response has ended may take to finish its request.
const SETTLE: Duration = Duration::from_secs(1);

/// What a response holds until its body has ended.
pub(super) enum Lease {
    /// An HTTP/1.1 connection of its own, which then goes back.
    Whole(Box<Whole>),
    /// A stream of an HTTP/2 connection.
    Stream(#[expect(dead_code, reason = "held, not read")] InFlight),
}

/// A connection on loan.
pub(super) struct Whole {
    pub(super) connection: H1,
    pub(super) key: Key,
    pub(super) store: Arc<Store>,
}

impl Lease {
    /// The response has ended as it should. (A lease that is dropped instead closes its connection.)
    fn end(self) {
        if let Self::Whole(whole) = self {
            whole.give_back();
        }
    }
}

impl Whole {
    fn give_back(self: Box<Self>) {
        if self.connection.is_usable() {
            self.store.put(self.key, self.connection);
        } else if !self.connection.is_closed()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(self.settle());
        }
    }

    /// A server may answer before it has the whole request. Until it has, the connection is not fit for another.
    async fn settle(mut self: Box<Self>) {
        if let Ok(Ok(())) = timeout(SETTLE, self.connection.ready()).await {
            self.store.put(self.key, self.connection);
        }
    }
}

/// The response as layers see it.
pub(super) fn deliver(response: http::Response<Incoming>, lease: Lease) -> Response {
    let (mut parts, body) = response.into_parts();
    translate::response(&mut parts.headers);
    parts.extensions.clear();
    // The version that the client speaks is the server's affair, and an HTTP/1.0 here would end its connection.
    parts.version = Version::HTTP_11;
    let body = if body.is_end_stream() {
        lease.end();
        Body::empty()
    } else {
        Body::new(Leased { body, lease: Some(lease) })
    };
    Response::from_parts(parts, body)
}

struct Leased {
    body: Incoming,
    lease: Option<Lease>,
}

impl Leased {
    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }
}

impl http_body::Body for Leased {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.end(),
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) if self.body.is_end_stream() => self.end(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| Fault::new(Reason::UpstreamReset).with_source(error))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
