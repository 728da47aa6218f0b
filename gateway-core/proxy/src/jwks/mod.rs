//! Fetches the keys of issuers from their URLs, and keeps them fresh. Keys that are there stay in use until others come.

mod address;
mod fetch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use towpath_auth::KeySet;
use towpath_config::RemoteJwks;

use self::fetch::fetch;
use crate::Failure;

/// After how long good keys are fetched again (Istio's default).
const REFRESH: Duration = Duration::from_mins(20);

/// The least time between two fetches, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(10);

/// The most time between two tries after a failure.
const LONGEST: Duration = Duration::from_mins(5);

/// A URL, the issuer if it is of a discovery document, and how long an answer may take.
type Place = (Arc<str>, Option<Arc<str>>, Duration);

fn place(jwks: &RemoteJwks) -> Place {
    (Arc::clone(&jwks.uri), jwks.discovered_for.clone(), jwks.timeout)
}

/// What is being fetched.
#[derive(Default)]
pub(crate) struct Fetchers {
    running: HashMap<Place, AbortHandle>,
    private: bool,
}

impl Fetchers {
    /// Fetches these from now on, and nothing else.
    pub(crate) fn follow(&mut self, wanted: Vec<RemoteJwks>, private: bool) {
        let stays = |at: &Place| wanted.iter().any(|jwks| place(jwks) == *at) && private == self.private;
        self.running.retain(|at, task| {
            let stays = stays(at);
            if !stays {
                task.abort();
            }
            stays
        });
        self.private = private;
        for jwks in wanted {
            self.running
                .entry(place(&jwks))
                .or_insert_with(|| tokio::spawn(keep_fresh(jwks, private)).abort_handle());
        }
    }
}

async fn keep_fresh(jwks: RemoteJwks, private: bool) {
    let mut failures = 0;
    loop {
        let (missed, begun) = (jwks.missed.next(), Instant::now());
        let fetched = timeout(jwks.timeout, keys(&jwks, private)).await;
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

async fn keys(jwks: &RemoteJwks, private: bool) -> Result<KeySet, Failure> {
    let text = fetch(&jwks.uri, private).await?;
    let Some(issuer) = &jwks.discovered_for else { return Ok(KeySet::parse(&text)?) };
    let uri = discovered(&text, issuer, jwks.uri.starts_with("https:"))?;
    let text = fetch(&uri, private).await.map_err(|error| format!("{uri}: {error}"))?;
    Ok(KeySet::parse(&text)?)
}

/// What a discovery document says (OIDC Discovery 1.0 section 3), as far as it matters here.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Where the keys of an issuer are, by its document.
fn discovered(text: &str, issuer: &str, https: bool) -> Result<String, Failure> {
    let Discovery { issuer: found, jwks_uri } =
        serde_json::from_str(text).map_err(|error| format!("no discovery document: {error}"))?;
    // Section 4.3: else one issuer could speak for another.
    if found != issuer {
        return Err(format!("the document is of the issuer `{found}`").into());
    }
    if https && !jwks_uri.starts_with("https:") {
        return Err(format!("its keys are at `{jwks_uri}`, which is not https").into());
    }
    Ok(jwks_uri)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use towpath_gateway_core::{Changes, Live};

    use super::*;

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

    fn jwks(uri: String, discovered_for: Option<&str>) -> RemoteJwks {
        RemoteJwks {
            uri: uri.into(),
            discovered_for: discovered_for.map(Into::into),
            keys: Live::default(),
            missed: Changes::new(),
            timeout: Duration::from_secs(1),
        }
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
            let found = keys(&jwks(format!("http://{address}/keys"), None), true).await;
            assert_eq!(found.is_ok(), message.is_none(), "{status} {body}");
            if let (Err(error), Some(message)) = (found, message) {
                assert!(error.to_string().contains(message), "{error}");
            }
        }
        let (address, asked) = server(vec![answer("200 OK", KEYS)]).await;
        let error = keys(&jwks(format!("http://{address}/keys"), None), false).await.unwrap_err();
        assert!(error.to_string().contains("which is not public"), "{error}");
        assert_eq!(*asked.lock().unwrap(), 0);
    }

    #[tokio::test]
    async fn keys_come_and_stay_when_the_server_fails() {
        let (address, asked) = server(vec![answer("500 Oops", ""), answer("200 OK", KEYS)]).await;
        let jwks = jwks(format!("http://{address}/"), None);
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

    #[tokio::test]
    async fn a_new_limit_of_time_holds_at_once() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let patient =
            RemoteJwks { timeout: Duration::from_hours(1), ..jwks(format!("http://{address}/"), None) };
        let hasty = RemoteJwks { timeout: Duration::from_millis(50), ..patient.clone() };
        let mut fetchers = Fetchers::default();
        fetchers.follow(vec![patient], true);
        let first = silent.accept().await.unwrap();
        fetchers.follow(vec![hasty], true);
        let second = silent.accept().await.unwrap();
        // It was given up, and is tried again.
        let third = silent.accept().await.unwrap();
        drop((first, second, third));
    }

    #[tokio::test]
    async fn keys_are_where_the_issuer_s_own_document_says() {
        let (at_keys, _) = server(vec![answer("200 OK", KEYS)]).await;
        let issuer = "http://issuer.example";
        let document = |issuer: &str, uri: &str| {
            format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{uri}", "scopes": []}}"#)
        };
        let there = format!("http://{at_keys}/");
        for (text, message) in [
            (document(issuer, &there), None),
            (document("http://other.example", &there), Some("`http://other.example`")),
            ("[]".to_owned(), Some("no discovery document")),
        ] {
            let (address, _) = server(vec![answer("200 OK", &text)]).await;
            let jwks = jwks(format!("http://{address}/.well-known/openid-configuration"), Some(issuer));
            let found = keys(&jwks, true).await;
            match message {
                None => assert_eq!(format!("{:?}", found.unwrap()), "{\"a\"}"),
                Some(message) => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(message), "{error}");
                }
            }
        }
    }

    #[test]
    fn an_issuer_of_https_has_its_keys_there_too() {
        let text = |uri: &str| format!(r#"{{"issuer": "i", "jwks_uri": "{uri}"}}"#);
        assert_eq!(discovered(&text("https://a/k"), "i", true).unwrap(), "https://a/k");
        assert!(discovered(&text("http://a/k"), "i", true).unwrap_err().to_string().contains("not https"));
        assert_eq!(discovered(&text("http://a/k"), "i", false).unwrap(), "http://a/k");
    }
}
