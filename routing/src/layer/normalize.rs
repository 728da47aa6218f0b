//! Makes one form of each request, before anything decides about it.
//!
//! - **reads** the request's target, host and connection headers; the context's connection
//! - **writes** the normal path into the URI, the host into `Host`, cookies into one line; strips headers of one hop on
//!   both ways; at the edge also `X-Forwarded-For` and `X-Forwarded-Proto`, and the client's address into the context where
//!   trusted proxies tell it
//! - **ends a request with** 400 if target, host or connection headers are doubtful; 502 if a 101 was not asked for
//! - **settings** edge or mesh; live [`Normalization`]: how far paths are normalized, and how many proxies are trusted
//! - **place** right inside the rescue, before routing: routing, policies and the backend have to see the same request

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Context, Fault, Live, Reason};

use crate::normalize::{Found, PathNormalization, cookie, edge, hop, host};
use crate::uri;

/// Applies [`Normalize`].
///
/// The host that counts from here on is in the `Host` header, whatever the version of HTTP: a client that speaks to
/// the backend writes `Host` or `:authority` from it.
///
/// A path has to be normal before anything routes by it. In axum that means around the whole router, for
/// `Router::layer` runs after the router has chosen:
///
/// ```
/// use axum::{Router, ServiceExt, extract::Request, routing::get};
/// use tower::ServiceBuilder;
/// use towpath_gateway_core::RescueLayer;
/// use towpath_routing::NormalizeLayer;
///
/// let router = Router::new().route("/a", get(|| async { "hello" }));
/// let app = ServiceBuilder::new().layer(RescueLayer::new()).layer(NormalizeLayer::edge()).service(router);
/// let make = ServiceExt::<Request>::into_make_service(app); // for `axum::serve`
/// # use tower::{Service, ServiceExt as _};
/// # let mut make = make;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let app = make.call(()).await.unwrap();
/// # let request = Request::builder().uri("/x/..//a").header("host", "a.example").body(axum::body::Body::empty());
/// # assert_eq!(app.oneshot(request.unwrap()).await.unwrap().status(), 200);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct NormalizeLayer {
    edge: bool,
    settings: Live<Normalization>,
}

/// What configuration says of normal forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normalization {
    /// How far paths are normalized.
    pub paths: PathNormalization,
    /// At the edge: how many proxies in front are trusted to have appended the address of who called them to
    /// `X-Forwarded-For`. The entry that the outermost of them wrote is the client (Istio, `numTrustedProxies`).
    pub trusted_proxies: u8,
}

impl Normalization {
    /// For clients that are not trusted: [`PathNormalization::Edge`], and no proxy in front.
    pub fn edge() -> Self {
        Self { paths: PathNormalization::Edge, trusted_proxies: 0 }
    }

    /// Inside the mesh: [`PathNormalization::Base`], Istio's default.
    pub fn mesh() -> Self {
        Self { paths: PathNormalization::Base, trusted_proxies: 0 }
    }
}

impl NormalizeLayer {
    /// For clients that are not trusted: [`PathNormalization::Edge`]; header names with an underscore are refused;
    /// `x-forwarded-client-cert`, `x-envoy-*` and `x-towpath-*` are dropped. If the server put the connection into the
    /// context, the peer is appended to `X-Forwarded-For`, `X-Forwarded-Proto` is set, and so is
    /// `X-Forwarded-Client-Cert` where the client's certificate proves something.
    pub fn edge() -> Self {
        Self { edge: true, settings: Live::new(Normalization::edge()) }
    }

    /// Inside the mesh: [`PathNormalization::Base`], Istio's default; forwarding headers are kept as they are.
    pub fn mesh() -> Self {
        Self { edge: false, settings: Live::new(Normalization::mesh()) }
    }

    /// Normalizes as these settings say, for instance those of the mesh, as they are when each request comes.
    #[must_use]
    pub fn with(self, settings: Live<Normalization>) -> Self {
        Self { settings, ..self }
    }
}

impl<S> Layer<S> for NormalizeLayer {
    type Service = Normalize<S>;

    fn layer(&self, inner: S) -> Normalize<S> {
        Normalize { inner, settings: self.clone() }
    }
}

/// Passes requests on in their normal form.
#[derive(Debug, Clone)]
pub struct Normalize<S> {
    inner: S,
    settings: NormalizeLayer,
}

impl<S, B, R> Service<Request<B>> for Normalize<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<Fault>>,
{
    type Response = Response<R>;
    type Error = Fault;
    type Future = NormalizeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let found = Found::among(request.headers());
        let websocket = hop::is_websocket(&request, found.hop);
        let state = match self.settings.normalize(&mut request, found, websocket) {
            Ok(()) => State::Passed { answer: self.inner.call(request) },
            Err(fault) => State::Refused { fault: Some(fault) },
        };
        NormalizeFuture { state, websocket }
    }
}

impl NormalizeLayer {
    fn normalize<B>(&self, request: &mut Request<B>, found: Found, websocket: bool) -> Result<(), Fault> {
        let settings = **self.settings.load();
        host::settle(request, found.hosts)?;
        normalize_path(settings.paths, request)?;
        hop::strip_request(request.headers_mut(), found.hop, websocket)?;
        if found.cookies > 1 {
            cookie::join(request.headers_mut());
        }
        if self.edge {
            secure_edge(request, found.edge, settings.trusted_proxies)?;
        }
        Ok(())
    }
}

fn normalize_path<B>(paths: PathNormalization, request: &mut Request<B>) -> Result<(), Fault> {
    let refused = |why: crate::RefusedPath| Fault::new(Reason::BadRequest).with_detail(why.as_str());
    match paths.apply(request.uri().path()).map_err(refused)? {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(path) => uri::change(request.uri_mut(), Some(&path), None),
    }
}

fn secure_edge<B>(
    request: &mut Request<B>,
    found: edge::EdgeHeaders,
    trusted_proxies: u8,
) -> Result<(), Fault> {
    if found.underscores {
        edge::refuse_underscores(request.headers())?;
    }
    if found.internal {
        edge::drop_internal(request.headers_mut());
    }
    let context = Context::of(request.extensions_mut());
    if let Some(connection) = context.connection() {
        if let Some(client) = edge::told(request.headers(), trusted_proxies) {
            context.set_client(client)?;
        }
        edge::set_forwarded(request.headers_mut(), connection, found.forwarded);
    }
    Ok(())
}

pin_project! {
    /// The answer of [`Normalize`].
    pub struct NormalizeFuture<F> {
        #[pin]
        state: State<F>,
        websocket: bool,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] answer: F },
        Refused { fault: Option<Fault> },
    }
}

impl<F, R, E> Future for NormalizeFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response<R>, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.state.project() {
            StateProjection::Passed { answer } => ready!(answer.poll(cx)),
            StateProjection::Refused { fault } => {
                return Poll::Ready(Err(fault.take().unwrap_or(Fault::new(Reason::Internal))));
            }
        };
        Poll::Ready(answer.map_err(Into::into).and_then(|response| stripped(response, *this.websocket)))
    }
}

// A 101 that nobody asked for would turn the rest of the connection into a tunnel (request smuggling).
fn stripped<R>(mut response: Response<R>, websocket: bool) -> Result<Response<R>, Fault> {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !websocket {
        return Err(Fault::new(Reason::UpstreamInvalid).with_detail("a 101 without an upgrade request"));
    }
    hop::strip_response(response.headers_mut(), switching);
    Ok(response)
}

#[cfg(test)]
mod tests;
