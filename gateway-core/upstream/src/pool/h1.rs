//! HTTP/1.1 connections: one request at a time, kept between requests.

use std::sync::Arc;

use http::{Extensions, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tower_service::Service;
use towpath_gateway_core::{Body, Connected, Connection, Destination, Fault, Reason, Request, Response};

use super::lease::{Lease, Whole, deliver};
use super::upgrade::Upgrade;
use super::{Try, fault, translate};

/// An open connection.
pub(super) struct H1 {
    sender: http1::SendRequest<Body>,
    connection: Arc<Connection>,
    pub(super) born: Instant,
}

impl H1 {
    /// Whether it can take a request now.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        self.sender.ready().await
    }
}

/// Sends a request and gives its response, whose body brings the connection back.
pub(super) async fn exchange<C>(attempt: Try<C>, mut request: Request) -> Result<Response, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    let upgrade = Upgrade::take(&mut request);
    translate::to_http1(&mut request, &attempt.destination.endpoint, upgrade.is_some())?;
    *request.extensions_mut() = Extensions::new();
    // A request that is never repeated does not meet a connection that may be closing.
    let fresh = attempt.again || upgrade.is_some();
    let (response, connection) = send(&attempt, request, fresh).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade.ok_or_else(unasked).and_then(|upgrade| upgrade.join(response));
    }
    Ok(deliver(
        response,
        Lease::Whole(Box::new(Whole { connection, key: attempt.key, store: attempt.store })),
    ))
}

fn unasked() -> Fault {
    Fault::new(Reason::UpstreamInvalid).with_detail("101 without an upgrade request")
}

async fn send<C>(
    attempt: &Try<C>,
    mut request: Request,
    fresh: bool,
) -> Result<(http::Response<Incoming>, H1), Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    if !fresh && let Some(idle) = attempt.store.take(&attempt.key) {
        match send_on(attempt, idle, request).await? {
            Sent::Answered(response, idle) => return Ok((response, idle)),
            // It closed before it took a byte: the request goes out on a new one as if nothing had been.
            Sent::Untouched(same, _) => request = same,
        }
    }
    let new = Box::pin(open(attempt)).await?;
    match send_on(attempt, new, request).await? {
        Sent::Answered(response, new) => Ok((response, new)),
        Sent::Untouched(_, error) => Err(fault::unsent(error, &attempt.destination)),
    }
}

/// How far a request came.
enum Sent {
    Answered(http::Response<Incoming>, H1),
    Untouched(Request, hyper::Error),
}

async fn send_on<C>(attempt: &Try<C>, mut h1: H1, request: Request) -> Result<Sent, Fault> {
    let error = match h1.sender.try_send_request(request).await {
        Ok(response) => {
            attempt.record.set_connection(Arc::clone(&h1.connection))?;
            return Ok(Sent::Answered(response, h1));
        }
        Err(mut error) => match error.take_message() {
            Some(untouched) => return Ok(Sent::Untouched(untouched, error.into_error())),
            None => error.into_error(),
        },
    };
    attempt.record.set_connection(h1.connection)?;
    Err(fault::of(error, &attempt.destination))
}

async fn open<C>(attempt: &Try<C>) -> Result<H1, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>> + Clone,
{
    let connected = attempt.connect().await?;
    let handshake = http1::Builder::new().handshake(TokioIo::new(connected.io)).await;
    let (sender, task) = handshake.map_err(|error| fault::unsent(error, &attempt.destination))?;
    let address = attempt.destination.endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = task.with_upgrades().await {
            tracing::debug!(%address, %error, "connection broke off");
        }
    });
    Ok(H1 { sender, connection: connected.connection, born: Instant::now() })
}
