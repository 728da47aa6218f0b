//! Sends a captured connection to where it was for.
//!
//! - **reads** our side of the flow's connection: the address that its client meant
//! - **writes** the context's route and backend, both named `passthrough`
//! - **ends a flow with** `NoRoute` if it has no connection
//! - **settings** none
//! - **place** in a layer 4 stack for captured connections that no route is for, around what carries the bytes

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use futures_util::future::{Either, ErrInto, Ready, TryFutureExt as _, ready};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{
    Backend, Balance, Context, Endpoint, Fault, Flow, Policies, Protocol, Reason, RouteName,
};

const NAME: &str = "passthrough";

/// Applies [`OriginalDestination`].
///
/// ```
/// use std::sync::Arc;
/// use tower::{Layer, ServiceExt, service_fn};
/// use towpath_gateway_core::{Connection, Context, Fault, Flow};
/// use towpath_routing::OriginalDestinationLayer;
///
/// let (client, meant) = ("10.0.0.5:40000".parse()?, "192.0.2.7:5432".parse()?);
/// let flow = Flow { context: Context::on(Arc::new(Connection::plaintext(client, meant))), io: () };
/// let stack = OriginalDestinationLayer::new().layer(service_fn(move |flow: Flow<()>| async move {
///     let backend = flow.context.backend().unwrap();
///     assert_eq!(backend.endpoints().unwrap()[0].address, meant);
///     Ok::<_, Fault>(())
/// }));
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(stack.oneshot(flow)).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct OriginalDestinationLayer;

impl OriginalDestinationLayer {
    /// The layer.
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for OriginalDestinationLayer {
    type Service = OriginalDestination<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OriginalDestination { inner }
    }
}

/// Passes on flows with the one endpoint that they were for. It is spoken to as the client speaks: nothing is known of it.
#[derive(Debug, Clone)]
pub struct OriginalDestination<S> {
    inner: S,
}

impl<S, T> Service<Flow<T>> for OriginalDestination<S>
where
    S: Service<Flow<T>, Error: Into<Fault>>,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = Either<ErrInto<S::Future, Fault>, Ready<Result<S::Response, Fault>>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, flow: Flow<T>) -> Self::Future {
        match write(&flow.context) {
            Ok(()) => Either::Left(self.inner.call(flow).err_into()),
            Err(fault) => Either::Right(ready(Err(fault))),
        }
    }
}

fn write(context: &Context) -> Result<(), Fault> {
    let Some(connection) = context.connection() else {
        return Err(Fault::new(Reason::NoRoute).with_detail("a flow of no connection was for nowhere"));
    };
    let endpoint = Endpoint::plaintext(connection.local).with_protocol(Protocol::Opaque);
    context.set_route(RouteName::new(NAME, "0"), Policies::default())?;
    Ok(context.set_backend(Arc::new(Backend::new(NAME, Balance::default(), vec![Arc::new(endpoint)])))?)
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_flow_without_connection_ends() {
        let inner = service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) });
        let flow = Flow { context: Context::new(), io: () };
        let ended = OriginalDestinationLayer::new().layer(inner).oneshot(flow).await;
        assert_eq!(ended.unwrap_err().reason(), Reason::NoRoute);
    }
}
