//! Bodies that are counted on their way.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use towpath_gateway_core::{Body, BodyError, Fault, Reason, Watch};

use crate::open::{BytesIn, Open};

type BoxError = Box<dyn Error + Send + Sync>;

pin_project! {
    /// A request body that counts what is read of it.
    struct CountedBody<B> {
        #[pin]
        body: B,
        read: Arc<AtomicU64>,
    }
}

impl<B: HttpBody> HttpBody for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.read.fetch_add(data.remaining() as u64, Ordering::Relaxed);
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

/// The body that goes on, and where its bytes are counted. A body in hand stays in hand, so that it can still be
/// sent again.
pub(crate) fn count<B>(body: B) -> (Body, BytesIn)
where
    B: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    if body.is_end_stream() {
        return (Body::empty(), BytesIn::Known(0));
    }
    let mut slot = Some(body);
    match in_hand(&mut slot) {
        Some((body, length)) => (body, BytesIn::Known(length)),
        None => slot.map_or_else(|| (Body::empty(), BytesIn::Known(0)), stream),
    }
}

fn in_hand<B: 'static>(slot: &mut Option<B>) -> Option<(Body, u64)> {
    let ours = (slot as &mut dyn std::any::Any).downcast_mut::<Option<Body>>()?;
    let length = ours.as_ref()?.bytes()?.len() as u64;
    ours.take().map(|body| (body, length))
}

fn stream<B>(body: B) -> (Body, BytesIn)
where
    B: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    let read = Arc::new(AtomicU64::new(0));
    (Body::new(CountedBody { body, read: read.clone() }), BytesIn::Counted(read))
}

/// A response body is followed to its end. The record is finished when the last frame has been taken, when the body
/// fails, or when it is dropped before either.
impl Watch for Open {
    fn see(&mut self, seen: Option<Result<&Frame<Bytes>, &BodyError>>, ended: bool) -> bool {
        match seen {
            Some(Ok(frame)) => {
                let reached = self.sent(frame.data_ref().map_or(0, Bytes::len) as u64);
                // Servers stop at the announced length and do not ask for the end: a reached length is the end.
                if !(frame.is_trailers() || reached || ended) {
                    return false;
                }
                self.ended(Ok(()));
            }
            Some(Err(error)) => self.ended(Err(blame(error))),
            None => self.ended(Ok(())),
        }
        true
    }
}

/// A fault inside the error says best what happened; otherwise the side that sent the body broke it.
fn blame(error: &BodyError) -> Fault {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return fault.clone();
        }
        source = error.source();
    }
    Fault::new(Reason::UpstreamReset).with_source(error.clone())
}
