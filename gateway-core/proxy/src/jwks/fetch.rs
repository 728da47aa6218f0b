//! One small document from a server of an issuer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::addresses;
use crate::Failure;

/// A document of more bytes than this is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// The text at a URL of `http` or `https`. Redirections are not followed: where they lead nobody has agreed to.
pub(super) async fn fetch(uri: &str, private: bool) -> Result<String, Failure> {
    let uri: Uri = uri.parse()?;
    let https = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("the URL names no host")?;
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = TcpStream::connect(&*addresses(host, port, private).await?).await?;
    let answer = if https {
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())?;
        let stream = TlsConnector::from(tls()?).connect(name, stream).await?;
        get(&uri, stream).await?
    } else {
        get(&uri, stream).await?
    };
    Ok(std::str::from_utf8(&answer)?.to_owned())
}

async fn get(
    uri: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Bytes, Failure> {
    let (mut send, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target).header(HOST, host).header(ACCEPT, "application/json");
    let answer = send.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the server answered {}", answer.status()).into());
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await?.to_bytes();
    driver.abort();
    Ok(body)
}

/// By the authorities that the system trusts.
fn tls() -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
