//! A request whose record is not finished.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use towpath_gateway_core::{Context, Fault, Reason};

use crate::Recorder;
use crate::record::{End, Head};

/// What is known of a request while it runs. Dropping it, for whatever reason, finishes the record: exactly one is
/// made of each request, also when the client goes away or a task panics.
pub(crate) struct Open {
    recorder: Recorder,
    context: Context,
    method: Method,
    /// What only the access log shows; not kept where there is none.
    arrival: Option<Arrival>,
    bytes_in: BytesIn,
    status: Option<StatusCode>,
    bytes_out: u64,
    /// What is left of the announced length of the response body.
    left: Option<u64>,
    /// How the response stream ended; if it has not, whoever drops the record now cuts it off.
    ended: Option<Result<(), Fault>>,
}

/// The head of a request as it came in.
struct Arrival {
    time: SystemTime,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
}

/// Bytes of the request body.
pub(crate) enum BytesIn {
    /// The body was in hand.
    Known(u64),
    /// The body is counted while it is read.
    Counted(Arc<AtomicU64>),
}

impl Open {
    pub(crate) fn new<B>(recorder: Recorder, context: Context, request: &Request<B>) -> Self {
        Self {
            arrival: recorder.logs().then(|| Arrival::of(request)),
            recorder,
            context,
            method: request.method().clone(),
            bytes_in: BytesIn::Known(0),
            status: None,
            bytes_out: 0,
            left: None,
            ended: None,
        }
    }

    pub(crate) fn set_bytes_in(&mut self, bytes: BytesIn) {
        self.bytes_in = bytes;
    }

    /// Takes the head of the response. Returns whether no body will be read to its end: the exchange is over, or
    /// what follows is another protocol (RFC 9110 sections 6.4.1 and 7.8).
    pub(crate) fn answered(&mut self, status: StatusCode) -> bool {
        self.status = Some(status);
        let tunnel = self.method == Method::CONNECT && status.is_success();
        let bodiless = matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        tunnel || bodiless || self.method == Method::HEAD
    }

    /// How many bytes the response body is to have, if that is known.
    pub(crate) fn announce(&mut self, length: Option<u64>) {
        self.left = length;
    }

    /// Returns whether the announced length is reached.
    pub(crate) fn sent(&mut self, bytes: u64) -> bool {
        self.bytes_out += bytes;
        self.left = self.left.map(|left| left.saturating_sub(bytes));
        self.left == Some(0)
    }

    /// The response came to its proper end, or broke off, or there never was one.
    pub(crate) fn ended(&mut self, ended: Result<(), Fault>) {
        self.ended = Some(ended);
    }

    /// Why the response stream ended early, if it did.
    fn stream_fault(&self) -> Option<Fault> {
        match &self.ended {
            Some(ended) => ended.as_ref().err().cloned(),
            None if std::thread::panicking() => {
                Some(Fault::new(Reason::Internal).with_detail("a task panicked"))
            }
            None => Some(Fault::new(Reason::ClientGone)),
        }
    }

    fn figures(&self) -> End {
        End {
            status: self.status.map(|status| status.as_u16()),
            duration: self.context.started().elapsed(),
            bytes_in: match &self.bytes_in {
                BytesIn::Known(bytes) => *bytes,
                BytesIn::Counted(bytes) => bytes.load(Ordering::Relaxed),
            },
            bytes_out: self.bytes_out,
            complete: matches!(self.ended, Some(Ok(()))),
        }
    }
}

impl Arrival {
    fn of<B>(request: &Request<B>) -> Self {
        Self {
            time: SystemTime::now(),
            uri: request.uri().clone(),
            host: request.headers().get(header::HOST).cloned(),
            version: request.version(),
        }
    }

    fn head<'a>(&'a self, method: &'a Method) -> Head<'a> {
        let header = || self.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()));
        Head {
            time: self.time,
            method: method.as_str(),
            // RFC 9112 section 3.2.2: the target's own authority comes before the header.
            host: self.uri.authority().map(|authority| Cow::Borrowed(authority.as_str())).or_else(header),
            path: self.uri.path(),
            version: self.version,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let cut = self.stream_fault();
        // What a layer blamed comes before what became of the stream afterwards.
        let fault = self.context.fault().or(cut.as_ref());
        let head = self.arrival.as_ref().map(|arrival| arrival.head(&self.method));
        self.recorder.finish(head, self.figures(), &self.context, fault);
    }
}
