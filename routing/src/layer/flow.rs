//! Finds the route that takes a flow.
//!
//! - **reads** the server name of the flow's connection
//! - **writes** the context's route and backend
//! - **ends a flow with** `NoRoute` if no route takes it, `Unresolved` if its route has no backend of positive weight
//! - **settings** [`FlowRoutes`], live
//! - **place** in a layer 4 stack, after authorization, around what carries the bytes

use std::sync::Arc;
use std::task::{Context as Task, Poll};

use futures_util::future::{Either, ErrInto, Ready, TryFutureExt as _, ready};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Flow, Live, Policies, Reason};

use super::host::lower;
use crate::{Draw, FlowRoutes};

/// Applies [`RouteFlow`].
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use towpath_gateway_core::{Context, Fault, Flow, Live, Reason};
/// use towpath_routing::{FlowRouteLayer, FlowRoutes};
///
/// // The empty table takes nothing until `store` puts another in its place.
/// let routes = Live::new(FlowRoutes::default());
/// let stack = FlowRouteLayer::new(routes).layer(service_fn(|_: Flow<()>| async { Ok::<_, Fault>(()) }));
/// let ended = stack.oneshot(Flow { context: Context::new(), io: () });
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let ended = runtime.block_on(ended);
/// assert_eq!(ended.unwrap_err().reason(), Reason::NoRoute);
/// ```
#[derive(Debug, Clone)]
pub struct FlowRouteLayer<D = fn(u64) -> u64> {
    routes: Live<FlowRoutes>,
    draw: D,
}

impl FlowRouteLayer {
    /// A layer that asks the table in force when a flow begins.
    pub fn new(routes: Live<FlowRoutes>) -> Self {
        Self { routes, draw: |bound| fastrand::u64(..bound.max(1)) }
    }
}

impl<D: Draw> FlowRouteLayer<D> {
    /// The same layer with another source of random numbers.
    #[must_use]
    pub fn draw<E: Draw>(self, draw: E) -> FlowRouteLayer<E> {
        FlowRouteLayer { routes: self.routes, draw }
    }
}

impl<S, D: Draw> Layer<S> for FlowRouteLayer<D> {
    type Service = RouteFlow<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        RouteFlow { inner, settings: self.clone() }
    }
}

/// Passes on the flows that a route takes.
#[derive(Debug, Clone)]
pub struct RouteFlow<S, D = fn(u64) -> u64> {
    inner: S,
    settings: FlowRouteLayer<D>,
}

impl<S, D: Draw> RouteFlow<S, D> {
    fn find(&self, context: &Context) -> Result<(), Fault> {
        let name = context.connection().and_then(|connection| connection.server_name()).unwrap_or_default();
        let routes = self.settings.routes.load();
        let Some(found) = routes.decide(&lower(name), &self.settings.draw) else {
            let detail = if name.is_empty() {
                "no route, and no server name".into()
            } else {
                format!("no route for {name}")
            };
            return Err(Fault::new(Reason::NoRoute).with_detail(detail));
        };
        context.set_route(found.name.clone(), Policies::default())?;
        let Some(chosen) = found.backend else {
            return Err(
                Fault::new(Reason::Unresolved).with_detail("the route has no backend of positive weight")
            );
        };
        Ok(context.set_backend(Arc::clone(&chosen.backend))?)
    }
}

impl<S, T, D> Service<Flow<T>> for RouteFlow<S, D>
where
    S: Service<Flow<T>, Error: Into<Fault>>,
    D: Draw,
{
    type Response = S::Response;
    type Error = Fault;
    type Future = Either<ErrInto<S::Future, Fault>, Ready<Result<S::Response, Fault>>>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, flow: Flow<T>) -> Self::Future {
        match self.find(&flow.context) {
            Ok(()) => Either::Left(self.inner.call(flow).err_into()),
            Err(fault) => Either::Right(ready(Err(fault))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};
    use towpath_gateway_core::{Backend, Connection, RouteName};

    use super::*;
    use crate::{FlowListener, FlowRoute, Hostname, WeightedBackend};

    fn routes(backends: &[(&str, u32)]) -> Live<FlowRoutes> {
        let backends = backends
            .iter()
            .map(|(name, weight)| WeightedBackend::new(Arc::new(Backend::unresolved(*name)), *weight));
        let route = FlowRoute {
            name: RouteName::new("n/r", "0"),
            created: 0,
            hostnames: vec!["a.example".parse().unwrap()],
            backends: backends.collect(),
        };
        let listener = FlowListener { name: "n/g/l".into(), hostname: Hostname::Any, routes: vec![route] };
        Live::new(FlowRoutes::new(vec![listener]))
    }

    async fn routed(routes: &Live<FlowRoutes>, name: &str, drawn: u64) -> Result<String, Reason> {
        let at = "127.0.0.1:1".parse().unwrap();
        let mut connection = Connection::plaintext(at, at);
        connection.passed_name = Some(name.into());
        let flow = Flow { context: Context::on(Arc::new(connection)), io: () };
        let inner = service_fn(|flow: Flow<()>| async move {
            let (route, backend) = (flow.context.route().unwrap(), flow.context.backend().unwrap());
            Ok::<_, Fault>(format!("{route} {}", backend.name))
        });
        let layer = FlowRouteLayer::new(routes.clone()).draw(move |_| drawn);
        layer.layer(inner).oneshot(flow).await.map_err(|fault| fault.reason())
    }

    #[tokio::test]
    async fn route_and_backend_are_written_or_the_flow_ends() {
        let table = routes(&[("one", 1), ("two", 2), ("none", 0)]);
        assert_eq!(routed(&table, "A.example", 0).await, Ok("n/r#0 one".to_owned()));
        assert_eq!(routed(&table, "a.example", 1).await, Ok("n/r#0 two".to_owned()));
        assert_eq!(routed(&table, "b.example", 0).await, Err(Reason::NoRoute));
        assert_eq!(routed(&routes(&[("none", 0)]), "a.example", 0).await, Err(Reason::Unresolved));
    }
}
