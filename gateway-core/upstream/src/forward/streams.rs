//! Carries TCP connections.
//!
//! - **reads** the flow's backend
//! - **writes** an attempt for each endpoint that is tried, and the connection of the one that took the flow
//! - **ends a flow with** `Unresolved`, `NoEndpoint`, the connector's own faults once no other endpoint is left to try;
//!   `ClientGone` or `UpstreamReset` if one side breaks, `ClientTimeout` if no byte moves for the idle timeout
//! - **settings** the idle timeout, 1 hour unless told otherwise (Envoy's default for TCP)
//! - **place** at the end of a layer 4 stack, around a connect stack

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tower_service::Service;
use towpath_gateway_core::{
    Attempt, BoxIo, Connected, Context, Destination, Fault, Flow, InFlight, Protocol, Reason,
};

use super::idle::{Movement, Watched, while_moving};
use super::{ForwardFuture, begin, failed};
use crate::{Random, random};

const IDLE_TIMEOUT: Duration = Duration::from_hours(1);

/// Bytes that may be under way in each direction.
const BUFFER: usize = 16 * 1024;

/// Joins each client's connection with one to an endpoint of its backend. Each side may close its half on its own (RFC 9293
/// section 3.6): what the other still sends is carried to the end.
///
/// ```
/// use std::sync::Arc;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
/// use tower::ServiceExt;
/// use towpath_gateway_core::{Backend, Balance, Context, Endpoint, Flow};
/// use towpath_upstream::{ForwardStreams, MESH_CONNECT_TIMEOUT, TcpConnector};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let database = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let endpoint = Arc::new(Endpoint::plaintext(database.local_addr()?));
/// let context = Context::new();
/// context.set_backend(Arc::new(Backend::new("shop/database:5432", Balance::LeastRequest, vec![endpoint])))?;
///
/// let forward = ForwardStreams::new(TcpConnector::new(MESH_CONNECT_TIMEOUT));
/// let (mut client, io) = duplex(64);
/// let carried = tokio::spawn(forward.oneshot(Flow { context, io: Box::new(io) }));
///
/// let (mut server, _) = database.accept().await?;
/// server.write_all(b"welcome").await?;
/// let mut greeting = [0; 7];
/// client.read_exact(&mut greeting).await?;
/// assert_eq!(&greeting, b"welcome");
/// drop((client, server));
/// carried.await??;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ForwardStreams<C> {
    connector: C,
    idle: Duration,
    random: Random,
}

impl<C> ForwardStreams<C> {
    /// Opens connections with `connector`.
    pub fn new(connector: C) -> Self {
        Self { connector, idle: IDLE_TIMEOUT, random: random::below }
    }

    /// How long no byte may move in either direction.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle = limit;
        self
    }

    /// Takes random numbers from `random`.
    #[must_use]
    pub fn random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }
}

impl<C> Service<Flow<BoxIo>> for ForwardStreams<C>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = ();
    type Error = Fault;
    type Future = ForwardFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        // Readiness of the connector is asked for each try.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, flow: Flow<BoxIo>) -> ForwardFuture {
        let Self { connector, idle, random } = self.clone();
        ForwardFuture(Box::pin(async move {
            // The tries have a box of their own: nothing of them is kept while the flow lives.
            let (server, load) = Box::pin(connect(&flow.context, connector, random)).await?;
            let carried = carry(flow.io, server, idle).await;
            drop(load);
            carried
        }))
    }
}

/// A connection to an endpoint that takes one, and the endpoint's count of flows.
async fn connect<C>(context: &Context, mut connector: C, random: Random) -> Result<(BoxIo, InFlight), Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>>,
{
    loop {
        let attempt = begin(context, random)?;
        let load = attempt.endpoint().load.begin();
        match open(&attempt, &mut connector).await {
            Ok(io) => return Ok((io, load)),
            Err(fault) if failed(&attempt, context, &fault)? => {}
            Err(fault) => return Err(fault),
        }
    }
}

async fn open<C>(attempt: &Attempt, connector: &mut C) -> Result<BoxIo, Fault>
where
    C: Service<Destination, Response = Connected, Error: Into<Fault>>,
{
    poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
    let to = Destination { endpoint: Arc::clone(attempt.endpoint()), protocol: Protocol::Opaque };
    let Connected { io, connection } = connector.call(to).await.map_err(Into::into)?;
    attempt.set_connection(connection)?;
    Ok(io)
}

async fn carry(client: BoxIo, server: BoxIo, idle: Duration) -> Result<(), Fault> {
    let (movement, client_broke, server_broke) =
        (Movement::new(), <Arc<AtomicBool>>::default(), Arc::default());
    let mut client = Watched::new(client, movement.clone(), Arc::clone(&client_broke));
    let mut server = Watched::new(server, movement.clone(), server_broke);
    let copied = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER);
    match while_moving(copied, &movement, idle).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => {
            let client_broke = client_broke.load(Ordering::Relaxed);
            let reason = if client_broke { Reason::ClientGone } else { Reason::UpstreamReset };
            Err(Fault::new(reason).with_source(error))
        }
        None => Err(Fault::new(Reason::ClientTimeout).with_detail(format!("no byte moved for {idle:?}"))),
    }
}

#[cfg(test)]
mod tests;
