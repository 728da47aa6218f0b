//! The layers of this crate.

pub(crate) mod cors;
pub(crate) mod filter;
pub(crate) mod flow;
mod host;
pub(crate) mod inject;
pub(crate) mod mirror;
pub(crate) mod normalize;
pub(crate) mod original_destination;
pub(crate) mod persist;
pub(crate) mod respond;
pub(crate) mod route;

#[cfg(test)]
mod tests {
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use towpath_gateway_core::{Body, Fault, HttpService, Live, Reason, Request, Response};

    use crate::{FilterLayer, NormalizeLayer, RouteLayer, Routes};

    #[tokio::test]
    async fn the_three_layers_fit_behind_the_seam() {
        let stack = ServiceBuilder::new()
            .layer(NormalizeLayer::edge())
            .layer(RouteLayer::new(Live::new(Routes::default())))
            .layer(FilterLayer::new())
            .service(service_fn(|_: Request| async { Ok::<_, Fault>(Response::new(Body::empty())) }));
        let request = http::Request::builder().uri("/").header("host", "a").body(Body::empty()).unwrap();
        let fault = HttpService::new(stack).oneshot(request).await.unwrap_err();
        assert_eq!(fault.reason(), Reason::NoRoute);
    }
}
