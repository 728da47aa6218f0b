//! HTTP/1.1 connections: one request at a time, kept between requests.
//!
//! No task drives a connection. The request's future sends and reads until the response head is there; the response
//! body reads on, sends what is left of the request, and brings the connection back.

mod body;
mod wire;
mod write;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use http::{Method, StatusCode};
use tower_service::Service;
use towpath_gateway_core::{
    BodyError, BoxIo, Connected, Destination, Fault, Prefixed, Reason, Request, Response,
};

use towpath_http1::response::{self, ResponseHead};
use towpath_http1::{Broken, Invalid, Section, Sending};

use self::body::{Loan, deliver};
pub(super) use self::wire::Wire;
use super::upgrade::Upgrade;
use super::{Try, fault, translate};

/// A request as it goes out.
pub(super) struct Outgoing {
    upload: Sending,
    upgrade: Option<Box<Upgrade>>,
    /// It is a `HEAD` request, whose response has no body.
    to_head: bool,
    sent: bool,
    /// How far the response head was looked through.
    section: Section,
    /// The connection would not take more of it. What the server said before that may still be read.
    stuck: Option<io::Error>,
}

/// Makes a request ready to be written.
pub(super) fn prepare<C>(attempt: &Try<C>, mut request: Request) -> Result<Outgoing, Fault> {
    let upgrade = Upgrade::take(&mut request).map(Box::new);
    let length = translate::to_http1(&mut request, &attempt.destination.endpoint, upgrade.is_some())?;
    let to_head = request.method() == Method::HEAD;
    let upload = write::begin(request, length, attempt.store.buffers().writer());
    Ok(Outgoing { upload, upgrade, to_head, sent: false, section: Section::default(), stuck: None })
}

/// Sends a request and gives its response, whose body brings the connection back.
pub(super) async fn exchange<C>(attempt: Try<C>, mut outgoing: Outgoing) -> Result<Response, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    // A request that is never repeated does not meet a connection that may be closing.
    let fresh = attempt.again || outgoing.upgrade.is_some();
    let mut kept = if fresh { None } else { attempt.store.take(&attempt.key) };
    loop {
        let reused = kept.is_some();
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => Box::pin(open(&attempt)).await?,
        };
        let answer = poll_fn(|cx| outgoing.poll_answer(&mut wire, cx)).await;
        if !outgoing.upload.has_begun()
            && let Err(End::Untouched(error)) = answer
        {
            if reused {
                // It closed before it took a byte: the request goes out on a new one as if nothing had been.
                continue;
            }
            return Err(fault::unsent(error, &attempt.destination));
        }
        attempt.record.set_connection(Arc::clone(&wire.connection))?;
        return match answer {
            Ok(head) => conclude(attempt, outgoing, wire, head),
            Err(end) => Err(end.fault(&attempt.destination)),
        };
    }
}

async fn open<C>(attempt: &Try<C>) -> Result<Box<Wire>, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    let connected = attempt.connect().await?;
    Ok(Box::new(Wire::new(connected, Arc::clone(attempt.store.buffers()))))
}

fn conclude<C>(
    attempt: Try<C>,
    mut outgoing: Outgoing,
    mut wire: Box<Wire>,
    head: ResponseHead,
) -> Result<Response, Fault> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = outgoing.upgrade.ok_or_else(|| {
            Fault::new(Reason::UpstreamInvalid).with_detail("101 without an upgrade request")
        })?;
        let ahead = std::mem::take(&mut wire.read.bytes).freeze();
        return upgrade.join(head.headers, Prefixed::new(ahead, wire.io));
    }
    let upload = if outgoing.sent {
        attempt.store.buffers().give_writer(outgoing.upload.take_buffer());
        None
    } else {
        Some(Box::new(outgoing.upload))
    };
    let Try { destination, key, store, .. } = attempt;
    let keep = head.keep && outgoing.stuck.is_none();
    Ok(deliver(head, Loan { wire, key, store, destination, upload, keep }))
}

impl Outgoing {
    /// Sends and reads until the response head is there.
    fn poll_answer(&mut self, wire: &mut Wire, cx: &mut Task<'_>) -> Poll<Result<ResponseHead, End>> {
        self.poll_upload(&mut wire.io, cx)?;
        // What comes before a byte of the request went out is not its answer.
        if !self.upload.has_begun() {
            return Poll::Pending;
        }
        loop {
            match response::parse(&mut wire.read.bytes, &mut self.section, self.to_head)
                .map_err(End::Invalid)?
            {
                // Interim responses are for whoever waits before it sends its body (RFC 9110 section 15.2).
                Some(head) if is_interim(&head) => continue,
                Some(head) => return Poll::Ready(Ok(head)),
                None => {}
            }
            let error = match ready!(wire.poll_fill(cx)) {
                Ok(0) => end_of_stream(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Poll::Ready(Err(End::Io(self.stuck.take().unwrap_or(error))));
        }
    }

    fn poll_upload(&mut self, io: &mut BoxIo, cx: &mut Task<'_>) -> Result<(), End> {
        if self.sent || self.stuck.is_some() {
            return Ok(());
        }
        match self.upload.poll(io, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sent = true,
            Poll::Ready(Err(Broken::Body(error))) => return Err(End::Body(error)),
            Poll::Ready(Err(Broken::Length(how))) => return Err(End::Body(wrong_length(how))),
            Poll::Ready(Err(Broken::Io(error))) if !self.upload.has_begun() => {
                return Err(End::Untouched(error));
            }
            Poll::Ready(Err(Broken::Io(error))) => self.stuck = Some(error),
        }
        Ok(())
    }
}

fn is_interim(head: &ResponseHead) -> bool {
    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Why a request got no answer.
enum End {
    /// Not one byte of it was taken.
    Untouched(io::Error),
    Body(BodyError),
    Invalid(Invalid),
    Io(io::Error),
}

impl End {
    fn fault(self, destination: &Destination) -> Fault {
        match self {
            Self::Untouched(error) => fault::unsent(error, destination),
            Self::Body(error) => request_body(error),
            Self::Invalid(error) => invalid(error, destination),
            Self::Io(error) => broken(error, destination),
        }
    }
}

fn wrong_length(how: &str) -> BodyError {
    BodyError::new(Fault::new(Reason::BadRequest).with_detail(format!("the body is {how} than its length")))
}

/// A body that a layer or the client broke off carries its own reason.
fn request_body(error: BodyError) -> Fault {
    let known = fault::find::<Fault>(&error).cloned();
    known.unwrap_or_else(|| Fault::new(Reason::ClientGone).with_source(error))
}

fn invalid(error: Invalid, destination: &Destination) -> Fault {
    let address = destination.endpoint.address;
    Fault::new(Reason::UpstreamInvalid).with_detail(format!("{address}: {error}"))
}

fn end_of_stream() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

fn broken(error: io::Error, destination: &Destination) -> Fault {
    let address = destination.endpoint.address.to_string();
    Fault::new(Reason::UpstreamReset).with_detail(address).with_source(error)
}
