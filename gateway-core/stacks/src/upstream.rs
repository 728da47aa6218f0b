//! Below the seam: from a chosen backend to its answer.

use std::time::Duration;

use tower::{Service, ServiceBuilder};
use towpath_gateway_core::{Connected, Destination, Fault};
use towpath_mesh_mtls::{Identity, OriginateLayer};
use towpath_trace::SpanLayer;
use towpath_upstream::{
    BalanceLayer, DeadlineLayer, ForwardStreams, HboneLayer, OriginateTlsLayer, Pool, PoolSettings,
    RetryLayer, TcpConnector,
};

use crate::{HttpStack, Streams};

/// How a process reaches endpoints.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Its identity in the mesh, if it has one.
    pub identity: Option<Identity>,
    /// How long a TCP connection may take to be made.
    pub connect_timeout: Duration,
}

/// A worker's way out. Each worker has its own, with connections of its own.
pub fn upstream(reach: Reach) -> impl HttpStack {
    ServiceBuilder::new()
        .layer(DeadlineLayer::new())
        .layer(RetryLayer::new())
        .layer(BalanceLayer::new())
        .layer(SpanLayer::new())
        .service(Pool::new(connector(reach), PoolSettings::default()))
}

/// The way out of layer 4: a connection to an endpoint for each that comes in.
pub fn streams(reach: Reach) -> Streams {
    Streams::new(ForwardStreams::new(connector(reach)))
}

/// Opens connections to endpoints, protected as each asks for.
fn connector(
    reach: Reach,
) -> impl Service<Destination, Response = Connected, Error = Fault, Future: Send> + Clone + Send + Sync + 'static
{
    ServiceBuilder::new()
        .layer(HboneLayer::new())
        .layer(OriginateLayer::new(reach.identity))
        .layer(OriginateTlsLayer::new())
        .service(TcpConnector::new(reach.connect_timeout))
}
