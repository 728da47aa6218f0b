//! Tells the backend whose certificate the client showed, in `X-Forwarded-Client-Cert` (Envoy's form).
//!
//! - **reads** the connection's TLS facts
//! - **writes** the header; what a client sent under its name is dropped, but for what a client of the mesh hands on
//! - **ends a request with** nothing
//! - **settings** whether to set the header or to append to it
//! - **place** after path normalization, before whatever may look at headers

use std::task::{Context as Task, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Connection, Context};

const NAME: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Applies [`ForwardClientCert`].
///
/// ```
/// use axum::{Router, http::{HeaderMap, Request}, body::Body, routing::get};
/// use tower::ServiceExt;
/// use towpath_auth::ForwardClientCertLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let told = |headers: HeaderMap| async move { headers.contains_key("x-forwarded-client-cert").to_string() };
/// let app: Router = Router::new().route("/", get(told)).layer(ForwardClientCertLayer::append());
/// // Nobody proved anything: what the header says is forged.
/// let request = Request::get("/").header("x-forwarded-client-cert", "URI=spiffe://a/b").body(Body::empty());
/// let answer = app.oneshot(request.unwrap()).await.unwrap();
/// assert_eq!(axum::body::to_bytes(answer.into_body(), 10).await.unwrap(), "false");
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ForwardClientCertLayer {
    append: bool,
}

impl ForwardClientCertLayer {
    /// At an edge: what clients send is dropped, whoever they are (Envoy, `SANITIZE_SET`).
    pub fn set() -> Self {
        Self { append: false }
    }

    /// Inside the mesh: the element of this hop is appended to what a client with an identity hands on
    /// (`APPEND_FORWARD`). Only the last element is of this hop's making.
    pub fn append() -> Self {
        Self { append: true }
    }

    fn apply(self, headers: &mut HeaderMap, connection: Option<&Connection>) {
        let tls = connection.and_then(|connection| connection.tls.as_ref());
        let element = tls.and_then(|tls| tls.forwarded_cert.as_deref());
        let proved = tls.is_some_and(|tls| tls.identity.is_some());
        let earlier = if self.append && proved { joined(headers) } else { None };
        let value = match (earlier, element) {
            (Some(mut earlier), Some(element)) => {
                earlier.push(b',');
                earlier.extend_from_slice(element.as_bytes());
                HeaderValue::from_bytes(&earlier).ok()
            }
            (Some(earlier), None) => HeaderValue::from_bytes(&earlier).ok(),
            (None, Some(element)) => HeaderValue::from_str(element).ok(),
            (None, None) => None,
        };
        match value {
            Some(value) => drop(headers.insert(NAME, value)),
            None => drop(headers.remove(NAME)),
        }
    }
}

/// The lines of the header as one; `None` without any.
fn joined(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(NAME).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?.to_vec();
    Some(lines.fold(first, |all, line| [&all, line].join(&b','))).filter(|all| !all.is_empty())
}

impl<S> Layer<S> for ForwardClientCertLayer {
    type Service = ForwardClientCert<S>;

    fn layer(&self, inner: S) -> ForwardClientCert<S> {
        ForwardClientCert { inner, settings: *self }
    }
}

/// Passes requests on with the header as it should be.
#[derive(Debug, Clone)]
pub struct ForwardClientCert<S> {
    inner: S,
    settings: ForwardClientCertLayer,
}

impl<S, B> Service<Request<B>> for ForwardClientCert<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let connection = Context::find(request.extensions()).and_then(Context::connection).cloned();
        self.settings.apply(request.headers_mut(), connection.as_deref());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use towpath_gateway_core::{TlsFacts, TlsVersion};

    use super::*;

    fn connection(identity: bool, element: Option<&str>) -> Connection {
        let at = "127.0.0.1:1".parse().unwrap();
        let identity = identity.then(|| "spiffe://td/a".parse().unwrap());
        let tls = TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: None,
            identity,
            forwarded_cert: element.map(Into::into),
        };
        Connection { tls: Some(tls), ..Connection::plaintext(at, at) }
    }

    #[test]
    fn only_what_was_proved_is_handed_on() {
        let (set, append) = (ForwardClientCertLayer::set(), ForwardClientCertLayer::append());
        let peer = connection(true, Some("URI=a"));
        let plain = Connection::plaintext("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        for (layer, connection, sent, wanted) in [
            (append, Some(&peer), &[][..], Some("URI=a")),
            (append, Some(&peer), &["URI=b"], Some("URI=b,URI=a")),
            (append, Some(&peer), &["URI=b", "URI=c"], Some("URI=b,URI=c,URI=a")),
            (append, Some(&peer), &[""], Some("URI=a")),
            (append, Some(&plain), &["URI=b"], None),
            (append, Some(&connection(false, None)), &["URI=b"], None),
            (append, None, &["URI=b"], None),
            (set, Some(&peer), &["URI=b"], Some("URI=a")),
            (set, Some(&plain), &["URI=b"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(NAME, HeaderValue::from_static(value));
            }
            layer.apply(&mut headers, connection);
            let found: Vec<_> = headers.get_all(NAME).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "{layer:?} {sent:?}");
        }
    }
}
