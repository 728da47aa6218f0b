//! Persistent sessions: tokens, and what they lead to. No tower, no clock: `now` is an argument, in seconds since the epoch.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use towpath_gateway_core::{Backend, Endpoint, Policy};

use crate::PathMatch;

/// A token that is longer is none of ours.
const MAX_TOKEN: usize = 128;
/// How far another gateway's clock may be ahead, in seconds.
const SKEW: u64 = 60;

/// Keeps the requests of one client together (Gateway API, `SessionPersistence`, GEP-1619).
///
/// The token names an endpoint by a tag that is worked out when configuration is applied. It can lead to an endpoint of the
/// rule and nowhere else, whatever a client writes into it; with no endpoint of that tag the session begins anew. The times
/// in it are the client's word: who changes them prolongs a session of its own. No secret is needed, so that every gateway
/// knows the tokens of every other.
#[derive(Debug, Clone)]
pub struct SessionPersistence {
    /// How the token travels.
    pub carrier: SessionCarrier,
    /// How long a session lives at most.
    pub absolute_timeout: Option<Duration>,
    /// How long a session may be without a request.
    pub idle_timeout: Option<Duration>,
    /// Whether browsers keep the cookie for the time of `absolute_timeout`, rather than until they are closed.
    pub permanent: bool,
    homes: HashMap<Arc<str>, SessionHome>,
    tags: HashMap<(Arc<str>, SocketAddr), Arc<str>>,
}

impl Policy for SessionPersistence {}

/// How a session's token travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCarrier {
    /// In a cookie of this name.
    Cookie(Arc<str>),
    /// In a header of requests and responses.
    Header(HeaderName),
}

/// Where a session may be at home.
#[derive(Debug, Clone)]
pub struct SessionHome {
    /// Names it in tokens: letters, digits, `-` and `_`.
    pub tag: Arc<str>,
    /// The backend.
    pub backend: Arc<Backend>,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

/// A session that goes on.
#[derive(Debug)]
pub(crate) struct Going<'a> {
    pub(crate) home: &'a SessionHome,
    pub(crate) created: u64,
    pub(crate) seen: u64,
}

impl SessionPersistence {
    /// Sessions over these homes, without time limits.
    pub fn new(carrier: SessionCarrier, homes: Vec<SessionHome>) -> Self {
        let key = |home: &SessionHome| (Arc::clone(&home.backend.name), home.endpoint.address);
        let tags = homes.iter().map(|home| (key(home), Arc::clone(&home.tag))).collect();
        let homes = homes.into_iter().map(|home| (Arc::clone(&home.tag), home)).collect();
        Self { carrier, absolute_timeout: None, idle_timeout: None, permanent: false, homes, tags }
    }

    /// The session that a request belongs to, if its token leads somewhere and its time is not over.
    pub(crate) fn going(&self, headers: &HeaderMap, now: u64) -> Option<Going<'_>> {
        match &self.carrier {
            SessionCarrier::Header(name) => self.known(headers.get(name)?.to_str().ok()?, now),
            SessionCarrier::Cookie(name) => {
                let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
                let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
                let mut tokens = pairs.filter(|(key, _)| key.trim() == &**name);
                tokens.find_map(|(_, token)| self.known(token.trim(), now))
            }
        }
    }

    fn known(&self, token: &str, now: u64) -> Option<Going<'_>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut parts = token.split('.');
        let home = self.homes.get(parts.next()?)?;
        if !self.is_timed() {
            return Some(Going { home, created: now, seen: now });
        }
        let (created, seen) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let within = |since: u64, limit: Option<Duration>| {
            since <= now.saturating_add(SKEW)
                && limit.is_none_or(|limit| now.saturating_sub(since) < limit.as_secs().max(1))
        };
        let alive = within(created, self.absolute_timeout) && within(seen, self.idle_timeout);
        (alive && parts.next().is_none()).then_some(Going { home, created, seen })
    }

    fn is_timed(&self) -> bool {
        self.absolute_timeout.is_some() || self.idle_timeout.is_some()
    }

    /// The token to send with an answer from this endpoint; `None` if the client has it already.
    pub(crate) fn token(
        &self,
        before: Option<(&SessionHome, u64, u64)>,
        (backend, endpoint): (&Backend, &Endpoint),
        now: u64,
    ) -> Option<Token> {
        let tag = self.tags.get(&(Arc::clone(&backend.name), endpoint.address))?;
        let stays = before.filter(|(home, ..)| home.tag == *tag);
        let fresh = self.idle_timeout.is_none() || stays.is_some_and(|(_, _, seen)| seen == now);
        if stays.is_some() && fresh {
            return None;
        }
        let created = stays.map_or(now, |(_, created, _)| created);
        let mut text = tag.to_string();
        if self.is_timed() {
            let _ = write!(text, ".{created}.{now}");
        }
        Some(Token { text, created })
    }

    /// The header that carries a token to the client.
    pub(crate) fn carried(
        &self,
        token: &Token,
        scope: &str,
        secure: bool,
        now: u64,
    ) -> Option<(HeaderName, HeaderValue)> {
        let name = match &self.carrier {
            SessionCarrier::Header(name) => {
                return Some((name.clone(), HeaderValue::from_str(&token.text).ok()?));
            }
            SessionCarrier::Cookie(name) => name,
        };
        let mut cookie = format!("{name}={}; Path={scope}; HttpOnly; SameSite=Lax", token.text);
        if secure {
            cookie.push_str("; Secure");
        }
        if let (true, Some(limit)) = (self.permanent, self.absolute_timeout) {
            let left = limit.as_secs().saturating_sub(now.saturating_sub(token.created));
            let _ = write!(cookie, "; Max-Age={left}");
        }
        Some((http::header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
    }
}

/// A token that is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    created: u64,
}

/// The `Path` of cookies for requests that a match takes: its path, and of an expression what is literal at its front,
/// up to the last slash (GEP-1619, Path).
pub(crate) fn scope(path: &PathMatch) -> Arc<str> {
    let text = match path {
        PathMatch::Exact(path) => path,
        PathMatch::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
        PathMatch::Regex(regex) => literal(regex.as_str()),
    };
    // What would end the attribute, or browsers would not send back.
    let sound = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
    if sound { text.into() } else { "/".into() }
}

fn literal(expression: &str) -> &str {
    let expression = expression.trim_start_matches(['^', '(', '?', ':']);
    if expression.contains('|') {
        return "/";
    }
    let end = expression.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_~".contains(c)));
    let front = end.and_then(|end| expression.get(..end)).unwrap_or(expression);
    front.rfind('/').and_then(|slash| front.get(..slash)).filter(|path| !path.is_empty()).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use towpath_gateway_core::Balance;

    use super::*;

    fn homes() -> Vec<SessionHome> {
        let endpoint = |port| Arc::new(Endpoint::plaintext(([127, 0, 0, 1], port).into()));
        let (a, b) = (endpoint(1), endpoint(2));
        let backend = |name, endpoints| Arc::new(Backend::new(name, Balance::default(), endpoints));
        let (one, two) =
            (backend("n/one:80", vec![a.clone(), b.clone()]), backend("n/two:80", vec![a.clone()]));
        let home = |tag: &str, backend: &Arc<Backend>, endpoint: &Arc<Endpoint>| SessionHome {
            tag: tag.into(),
            backend: backend.clone(),
            endpoint: endpoint.clone(),
        };
        vec![home("A", &one, &a), home("B", &one, &b), home("C", &two, &a)]
    }

    fn cookies(absolute: Option<u64>, idle: Option<u64>) -> SessionPersistence {
        SessionPersistence {
            absolute_timeout: absolute.map(Duration::from_secs),
            idle_timeout: idle.map(Duration::from_secs),
            ..SessionPersistence::new(SessionCarrier::Cookie("s".into()), homes())
        }
    }

    fn at(policy: &SessionPersistence, cookie: &str, now: u64) -> Option<String> {
        let headers = [(COOKIE, cookie.parse().unwrap())].into_iter().collect();
        policy.going(&headers, now).map(|going| going.home.tag.to_string())
    }

    #[test]
    fn a_token_leads_to_its_endpoint_or_nowhere() {
        let policy = cookies(None, None);
        for (cookie, home) in [
            ("s=A", Some("A")),
            ("a=1; s=B ;c=3", Some("B")),
            ("s=gone; s=C", Some("C")),
            ("s=", None),
            ("s=127.0.0.1:1", None),
            ("xs=A", None),
            ("s", None),
            ("", None),
        ] {
            assert_eq!(at(&policy, cookie, 0).as_deref(), home, "{cookie}");
        }
        let header = SessionPersistence { carrier: SessionCarrier::Header("x-s".parse().unwrap()), ..policy };
        let headers = [("x-s".parse().unwrap(), "A".parse().unwrap())].into_iter().collect();
        assert_eq!(header.going(&headers, 0).map(|going| &*going.home.tag), Some("A"));
    }

    #[test]
    fn sessions_end_by_age_and_by_silence() {
        for (absolute, idle, token, now, goes) in [
            (Some(10), None, "A.100.100", 109, true),
            (Some(10), None, "A.100.109", 110, false),
            (None, Some(5), "A.100.100", 104, true),
            (None, Some(5), "A.100.100", 105, false),
            (None, Some(5), "A.0.1000", 1004, true),
            (Some(10), Some(5), "A.100.107", 109, true),
            (Some(10), Some(5), "A.100.104", 109, false),
            (Some(10), None, "A", 100, false),
            (Some(10), None, "A.100", 100, false),
            (Some(10), None, "A.100.100.1", 100, false),
            (Some(10), None, "A.999.100", 100, false),
            (Some(10), None, "A.x.y", 100, false),
            (None, None, "A.1.2", 100, true),
        ] {
            let policy = cookies(absolute, idle);
            assert_eq!(
                at(&policy, &format!("s={token}"), now).is_some(),
                goes,
                "{absolute:?} {idle:?} {token} {now}"
            );
        }
    }

    #[test]
    fn a_token_is_sent_where_something_changed() {
        let all = homes();
        let (first, second) = (&all[0], &all[1]);
        let sent = |policy: &SessionPersistence, before: Option<(u64, u64)>, home: &SessionHome, now| {
            let before = before.map(|(created, seen)| (first, created, seen));
            policy.token(before, (&home.backend, &home.endpoint), now).map(|token| token.text)
        };
        let plain = cookies(None, None);
        assert_eq!(sent(&plain, None, first, 7).as_deref(), Some("A"));
        assert_eq!(sent(&plain, Some((1, 1)), first, 7), None);
        assert_eq!(sent(&plain, Some((1, 1)), second, 7).as_deref(), Some("B"), "a retry went elsewhere");
        let aged = cookies(Some(100), None);
        assert_eq!(sent(&aged, Some((1, 1)), first, 7), None);
        assert_eq!(sent(&aged, Some((1, 1)), second, 7).as_deref(), Some("B.7.7"));
        let idle = cookies(Some(100), Some(10));
        assert_eq!(sent(&idle, Some((1, 5)), first, 7).as_deref(), Some("A.1.7"));
        assert_eq!(sent(&idle, Some((1, 7)), first, 7), None);
    }

    #[test]
    fn the_cookie_has_its_attributes() {
        let token = || Token { text: "A.100.100".into(), created: 100 };
        let value = |policy: &SessionPersistence, secure| {
            let (name, value) = policy.carried(&token(), "/p", secure, 130).unwrap();
            assert_eq!(name, "set-cookie");
            value.to_str().unwrap().to_owned()
        };
        let policy = cookies(Some(100), None);
        assert_eq!(value(&policy, false), "s=A.100.100; Path=/p; HttpOnly; SameSite=Lax");
        let permanent = SessionPersistence { permanent: true, ..policy };
        assert_eq!(
            value(&permanent, true),
            "s=A.100.100; Path=/p; HttpOnly; SameSite=Lax; Secure; Max-Age=70"
        );
    }

    #[test]
    fn a_cookie_is_for_the_path_of_its_match() {
        let regex = |text: &str| PathMatch::Regex(Regex::new(text).unwrap());
        for (path, expected) in [
            (PathMatch::Prefix("/".into()), "/"),
            (PathMatch::Prefix("/a/".into()), "/a"),
            (PathMatch::Exact("/a/b".into()), "/a/b"),
            (PathMatch::Exact("/a;b".into()), "/"),
            (regex("^(?:/p1/p2/.*/p3)$"), "/p1/p2"),
            (regex("^(?:/p1/p[23])$"), "/p1"),
            (regex("^(?:/a/.*|/b/.*)$"), "/"),
            (regex(".*"), "/"),
        ] {
            assert_eq!(&*scope(&path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_leads_to_an_endpoint_of_the_rule(cookie in "[ -~]{0,80}", now in 0u64..3) {
            for policy in [cookies(None, None), cookies(Some(1), Some(1))] {
                let home = at(&policy, &format!("s={cookie}"), now);
                prop_assert!(home.is_none_or(|tag| ["A", "B", "C"].contains(&tag.as_str())));
            }
        }

        #[test]
        fn a_token_that_was_sent_comes_home(which in 0usize..3, now in 0u64..1_000_000, later in 0u64..9) {
            let policy = cookies(Some(10), Some(10));
            let all = homes();
            let home = &all[which];
            let token = policy.token(None, (&home.backend, &home.endpoint), now).unwrap();
            let found = at(&policy, &format!("s={}", token.text), now + later);
            prop_assert_eq!(found.as_deref(), Some(&*home.tag));
        }
    }
}
