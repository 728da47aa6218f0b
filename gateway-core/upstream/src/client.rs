//! The whole stack in one call, for those who assemble a proxy of their own.

use tower_layer::Layer;

use crate::{Balance, BalanceLayer, Deadline, DeadlineLayer, Pool, PoolSettings, RetryLayer, Retrying};

/// What [`client`] builds: deadline, retries, endpoint choice and pool, outermost first.
pub type Client<C> = Deadline<Retrying<Balance<Pool<C>>>>;

/// Stacks everything between a chosen backend and `connector`, with each layer's defaults.
///
/// A request must carry its backend in its [`Context`](towpath_gateway_core::Context). The pool belongs to the value
/// and its clones: build one per worker thread.
///
/// ```
/// use std::sync::Arc;
///
/// use axum::Router;
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::{Backend, Balance, Body, Context, Endpoint, RescueLayer};
/// use towpath_upstream::{EDGE_CONNECT_TIMEOUT, TcpConnector, client};
///
/// let endpoint = Arc::new(Endpoint::plaintext("127.0.0.1:9000".parse()?));
/// let backend = Arc::new(Backend::new("shop/reviews:9000", Balance::RoundRobin, vec![endpoint]));
///
/// // Whatever no route of the application takes goes to the backend.
/// let forward = ServiceBuilder::new()
///     .layer(RescueLayer::new())
///     .map_request(move |request: axum::extract::Request| {
///         let mut request = request.map(Body::new);
///         let _ = Context::of(request.extensions_mut()).set_backend(Arc::clone(&backend));
///         request
///     })
///     .service(client(TcpConnector::new(EDGE_CONNECT_TIMEOUT)));
/// let app: Router = Router::new().fallback_service(forward);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn client<C>(connector: C) -> Client<C> {
    let pool = Pool::new(connector, PoolSettings::default());
    DeadlineLayer::new().layer(RetryLayer::new().layer(BalanceLayer::new().layer(pool)))
}

#[cfg(test)]
mod tests {
    use towpath_gateway_core::HttpService;

    use super::*;
    use crate::{EDGE_CONNECT_TIMEOUT, TcpConnector};

    #[test]
    fn the_stack_fits_the_seam() {
        let _: HttpService = HttpService::new(client(TcpConnector::new(EDGE_CONNECT_TIMEOUT)));
    }
}
