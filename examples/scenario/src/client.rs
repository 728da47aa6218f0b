//! The client of the checks: HTTPS to the edge as any user of the shop would speak it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The host that the shop is published under.
pub(crate) const HOST: &str = "shop.example.com";

/// Whatever went wrong; checks only report it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A request body of the client.
pub(crate) type Body = BoxBody<Bytes, Failure>;

const PATIENCE: Duration = Duration::from_secs(20);

/// Speaks to one edge.
#[derive(Clone)]
pub(crate) struct Client {
    http: SocketAddr,
    https: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Client {
    /// A client that trusts `roots` for the edge's certificate.
    pub(crate) fn new(
        http: SocketAddr,
        https: SocketAddr,
        roots: rustls::RootCertStore,
    ) -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { http, https, tls: Arc::new(tls) })
    }

    /// A GET of the shop over HTTPS with headers.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.connection().await?.send(get(path, HOST, headers)?).await
    }

    /// A GET over HTTPS for another host.
    pub(crate) async fn get_host(&self, host: &str, path: &str) -> Result<Answer, Failure> {
        self.connection().await?.send(get(path, host, &[])?).await
    }

    /// A GET over plaintext HTTP.
    pub(crate) async fn get_plain(&self, path: &str) -> Result<Answer, Failure> {
        let io = TcpStream::connect(self.http).await?;
        Connection::over(io).await?.send(get(path, HOST, &[])?).await
    }

    /// A kept HTTP/1.1 connection to the edge.
    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        Connection::over(self.secure(b"http/1.1").await?).await
    }

    /// An HTTP/2 connection to the edge.
    pub(crate) async fn http2(&self) -> Result<http2::SendRequest<Body>, Failure> {
        let io = TokioIo::new(self.secure(b"h2").await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A TLS stream to the edge.
    pub(crate) async fn secure(&self, alpn: &[u8]) -> Result<TlsStream<TcpStream>, Failure> {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.https).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(HOST)?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }
}

/// A kept HTTP/1.1 connection.
pub(crate) struct Connection(http1::SendRequest<Body>);

impl Connection {
    /// Over any stream.
    pub(crate) async fn over<T>(io: T) -> Result<Self, Failure>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Answer, Failure> {
        tokio::time::timeout(PATIENCE, async {
            self.0.ready().await?;
            read(self.0.send_request(request).await?).await
        })
        .await?
    }
}

/// A GET in origin form.
pub(crate) fn get(path: &str, host: &str, headers: &[(&str, &str)]) -> Result<Request<Body>, Failure> {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.body(Empty::new().map_err(|never| match never {}).boxed())?)
}

/// A body in hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
}
