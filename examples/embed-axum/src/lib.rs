//! Towpath layers inside an axum application: API keys, a rate limit, traces, an access log and metrics around
//! handlers that know nothing of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, connect_info::Connected};
use axum::http::HeaderName;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use towpath_auth::{ApiKeyDigest, ApiKeyLayer, ApiKeyLocation, ApiKeys};
use towpath_gateway_core::{Connection, Consumer, Context, RescueLayer};
use towpath_observability::{RecordLayer, Recorder};
use towpath_rate_limit::{RateLimit, RateLimitKey, RateLimitLayer, Store};
use towpath_trace::TraceLayer;

/// The application. Records of its requests go to `recorder`.
pub fn app(recorder: Recorder) -> Router {
    // Top to bottom is the way in: the record sees everything, rescue turns refusals into responses, and the limit
    // knows the consumer because the key was checked before it.
    let layers = ServiceBuilder::new()
        .layer(from_fn(with_connection))
        .layer(TraceLayer::new())
        .layer(RecordLayer::new(recorder))
        .layer(RescueLayer::new())
        .layer(ApiKeyLayer::with(keys()))
        .layer(RateLimitLayer::new(Arc::new(Store::new())).default_limit(five_an_hour()));
    Router::new().route("/", get(greet)).layer(layers)
}

/// A handler reads what the layers learned from the request's context.
async fn greet(Extension(context): Extension<Context>) -> String {
    let name = context.consumer().map_or("stranger", |consumer| &*consumer.name);
    format!("hello {name}\n")
}

/// Who may come in. Only digests are kept: whoever reads the settings cannot use them as keys.
fn keys() -> ApiKeys {
    ApiKeys {
        name: "demo/keys".into(),
        locations: vec![ApiKeyLocation::Header(HeaderName::from_static("x-api-key"))],
        keys: [(ApiKeyDigest::of("alice-demo-key"), Consumer::new("demo/alice"))].into(),
        hide_credential: true,
    }
}

fn five_an_hour() -> RateLimit {
    let five = NonZeroU32::MIN.saturating_add(4);
    let period = Duration::from_hours(1);
    RateLimit { name: "demo/limit".into(), requests: five, period, burst: five, key: RateLimitKey::Consumer }
}

/// The facts of a connection, in the form in which axum hands them to requests: serve the application with
/// `into_make_service_with_connect_info::<Arrived>()`, and the log names the peer of each request.
#[derive(Debug, Clone)]
pub struct Arrived(Option<Arc<Connection>>);

impl Connected<IncomingStream<'_, TcpListener>> for Arrived {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let local = stream.io().local_addr().ok();
        Self(local.map(|local| Arc::new(Connection::plaintext(*stream.remote_addr(), local))))
    }
}

/// Starts the request's context with the connection that it came in on.
async fn with_connection(mut request: Request, next: Next) -> Response {
    let arrived = request.extensions().get::<ConnectInfo<Arrived>>();
    if let Some(connection) = arrived.and_then(|ConnectInfo(Arrived(connection))| connection.clone()) {
        request.extensions_mut().insert(Context::on(connection));
    }
    next.run(request).await
}
