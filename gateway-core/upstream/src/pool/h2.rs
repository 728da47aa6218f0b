//! HTTP/2 connections: many requests at a time.

use std::sync::Arc;

use http::{Extensions, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;
use tower_service::Service;
use towpath_gateway_core::{
    Body, Connected, Connection, Destination, Fault, InFlight, Reason, Request, Response,
};

use super::lease::deliver;
use super::{Try, fault, translate};

/// Bytes that a server may send ahead on one stream, and on one connection. The bound on what slow clients make us
/// hold.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a request body that wait in memory for the server to take them.
const SEND_BUFFER: usize = 256 * 1024;
/// Bytes of a response head or of trailers.
const MAX_HEAD: u32 = 64 * 1024;

/// An open connection; clones share it.
#[derive(Clone)]
pub(super) struct H2 {
    sender: http2::SendRequest<Body>,
    pub(super) connection: Arc<Connection>,
    pub(super) born: Instant,
}

impl H2 {
    /// Whether it takes new requests: it is open and the server has not said `GOAWAY`.
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Sends a request and gives its response, whose body holds its place on the connection.
pub(super) async fn exchange<C>(attempt: Try<C>, mut request: Request) -> Result<Response, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    translate::to_http2(&mut request, &attempt.destination.endpoint)?;
    *request.extensions_mut() = Extensions::new();
    let (response, flight) = send(&attempt, request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // HTTP/2 has no such status (RFC 9113 section 8.6).
        return Err(Fault::new(Reason::UpstreamInvalid).with_detail("101 on HTTP/2"));
    }
    Ok(deliver(response, flight))
}

async fn send<C>(
    attempt: &Try<C>,
    mut request: Request,
) -> Result<(http::Response<hyper::body::Incoming>, InFlight), Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    let mut first = true;
    loop {
        let (mut h2, flight) = place(attempt).await?;
        match h2.sender.try_send_request(request).await {
            Ok(response) => {
                attempt.record.set_connection(h2.connection)?;
                return Ok((response, flight));
            }
            Err(mut error) => match error.take_message() {
                // It closed before it took the request: that goes out on another as if nothing had been.
                Some(untouched) if first => (request, first) = (untouched, false),
                message => {
                    attempt.record.set_connection(h2.connection)?;
                    let judge = if message.is_some() { fault::unsent } else { fault::of };
                    return Err(judge(error.into_error(), &attempt.destination));
                }
            },
        }
    }
}

/// A place on an open connection, or on a new one if all are full. Requests that come together open one together.
async fn place<C>(attempt: &Try<C>) -> Result<(H2, InFlight), Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    if let Some(place) = attempt.store.pick(&attempt.key) {
        return Ok(place);
    }
    let gate = attempt.store.gate(&attempt.key);
    let turn = gate.enter().await?;
    if let Some(place) = attempt.store.pick(&attempt.key) {
        return Ok(place);
    }
    match Box::pin(open(attempt)).await {
        Ok(h2) => Ok((h2.clone(), attempt.store.add(&attempt.key, h2))),
        Err(fault) => {
            turn.failed(&fault);
            Err(fault)
        }
    }
}

async fn open<C>(attempt: &Try<C>) -> Result<H2, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    let connected = attempt.connect().await?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .handshake(TokioIo::new(connected.io))
        .await;
    let (sender, task) = handshake.map_err(|error| fault::unsent(error, &attempt.destination))?;
    let address = attempt.destination.endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = task.await {
            tracing::debug!(%address, %error, "connection broke off");
        }
    });
    Ok(H2 { sender, connection: connected.connection, born: Instant::now() })
}
