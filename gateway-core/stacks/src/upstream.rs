//! Below the seam: from a chosen backend to its answer.

use std::time::Duration;

use tower::ServiceBuilder;
use towpath_mesh_mtls::{Identity, OriginateLayer};
use towpath_trace::SpanLayer;
use towpath_upstream::{BalanceLayer, DeadlineLayer, Pool, PoolSettings, RetryLayer, TcpConnector};

use crate::HttpStack;

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
    let connector = ServiceBuilder::new()
        .layer(OriginateLayer::new(reach.identity))
        .service(TcpConnector::new(reach.connect_timeout));
    ServiceBuilder::new()
        .layer(DeadlineLayer::new())
        .layer(RetryLayer::new())
        .layer(BalanceLayer::new())
        .layer(SpanLayer::new())
        .service(Pool::new(connector, PoolSettings::default()))
}
