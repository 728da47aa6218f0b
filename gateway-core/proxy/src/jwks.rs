//! Fetches the keys of issuers from their URLs, and keeps them fresh. Keys that are there stay in use until others come.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use towpath_auth::KeySet;
use towpath_config::RemoteJwks;

use crate::Failure;

/// After how long good keys are fetched again (Istio's default).
const REFRESH: Duration = Duration::from_mins(20);

/// The least time between two fetches, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);

/// The most time between two tries after a failure.
const LONGEST: Duration = Duration::from_mins(5);

/// A set of keys of more bytes than this is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// What is being fetched, by URL.
#[derive(Default)]
pub(crate) struct Fetchers {
    running: HashMap<Arc<str>, AbortHandle>,
    private: bool,
}

impl Fetchers {
    /// Fetches these from now on, and nothing else.
    pub(crate) fn follow(&mut self, wanted: Vec<RemoteJwks>, private: bool) {
        let stays = |uri: &Arc<str>| wanted.iter().any(|jwks| jwks.uri == *uri) && private == self.private;
        self.running.retain(|uri, task| {
            let stays = stays(uri);
            if !stays {
                task.abort();
            }
            stays
        });
        self.private = private;
        for jwks in wanted {
            let uri = Arc::clone(&jwks.uri);
            self.running.entry(uri).or_insert_with(|| tokio::spawn(keep_fresh(jwks, private)).abort_handle());
        }
    }
}

async fn keep_fresh(jwks: RemoteJwks, private: bool) {
    let mut failures = 0;
    loop {
        let (missed, begun) = (jwks.missed.next(), Instant::now());
        let fetched = timeout(jwks.timeout, fetch(&jwks.uri, private)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {:?}", jwks.timeout).into()));
        match fetched {
            Ok(keys) => {
                failures = 0;
                jwks.keys.store(keys);
                tracing::info!("keys of {} in use", jwks.uri);
                tokio::select! {
                    () = sleep(REFRESH) => {}
                    () = missed => sleep_until(begun + PAUSE).await,
                }
            }
            Err(error) => {
                let pause = LONGEST.min(Duration::from_secs(1) * 2_u32.saturating_pow(failures));
                tracing::warn!(
                    "cannot fetch keys from {}: {error}; those that are there stay in use; next try in {pause:?}",
                    jwks.uri
                );
                failures += 1;
                sleep(pause).await;
            }
        }
    }
}

async fn fetch(uri: &str, private: bool) -> Result<KeySet, Failure> {
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
    Ok(KeySet::parse(std::str::from_utf8(&answer)?)?)
}

/// Where a host is. Addresses that only this side can reach are refused: who may write a policy is not thereby let into the
/// network.
async fn addresses(host: &str, port: u16, private: bool) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => lookup_host((bare, port)).await?.collect(),
    };
    let usable: Vec<_> = found.iter().copied().filter(|at| private || is_public(at.ip())).collect();
    if usable.is_empty() {
        let message = format!(
            "{host} is at {}, which is not public: allow it by `remoteJwks: {{allowPrivateAddresses: true}}` in the Mesh",
            found.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(", ")
        );
        return Err(message.into());
    }
    Ok(usable)
}

/// Whether an address is one of the Internet at large (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || first == 0
                || first >= 240
                || (first == 100 && (64..128).contains(&second)))
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local())
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use towpath_gateway_core::{Changes, Live};

    use super::*;

    #[test]
    fn addresses_inside_are_told_from_those_of_the_internet() {
        for (address, public) in [
            ("1.1.1.1", true),
            ("2606:4700::1", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    /// A server that gives these answers, one a connection, and the last again and again.
    async fn server(answers: Vec<String>) -> (SocketAddr, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::default());
        let count: Arc<Mutex<usize>> = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut answers = answers.into_iter().peekable();
            let mut last = String::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                last = answers.next().unwrap_or(last);
                *count.lock().unwrap() += 1;
                let mut bytes = [0; 1024];
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(last.as_bytes()).await;
            }
        });
        (address, asked)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    const KEYS: &str = r#"{"keys": [{"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[tokio::test]
    async fn what_is_wrong_is_told() {
        for (body, status, message) in [
            (KEYS, "200 OK", None),
            (KEYS, "404 Not Found", Some("404")),
            ("{}", "200 OK", Some("no JSON object with a list of `keys`")),
        ] {
            let (address, _) = server(vec![answer(status, body)]).await;
            let found = fetch(&format!("http://{address}/keys"), true).await;
            assert_eq!(found.is_ok(), message.is_none(), "{status} {body}");
            if let (Err(error), Some(message)) = (found, message) {
                assert!(error.to_string().contains(message), "{error}");
            }
        }
        let (address, asked) = server(vec![answer("200 OK", KEYS)]).await;
        let error = fetch(&format!("http://{address}/keys"), false).await.unwrap_err();
        assert!(error.to_string().contains("which is not public"), "{error}");
        assert_eq!(*asked.lock().unwrap(), 0);
    }

    #[tokio::test]
    async fn keys_come_and_stay_when_the_server_fails() {
        let (address, asked) = server(vec![answer("500 Oops", ""), answer("200 OK", KEYS)]).await;
        let jwks = RemoteJwks {
            uri: format!("http://{address}/").into(),
            keys: Live::default(),
            missed: Changes::new(),
            timeout: Duration::from_secs(1),
        };
        let mut fetchers = Fetchers::default();
        fetchers.follow(vec![jwks.clone()], true);
        fetchers.follow(vec![jwks.clone()], true);
        // The first try fails; the second comes a second later.
        while format!("{:?}", jwks.keys.snapshot()) != "{\"a\"}" {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*asked.lock().unwrap(), 2);
        fetchers.follow(Vec::new(), true);
        assert!(fetchers.running.is_empty());
    }
}
