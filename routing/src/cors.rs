//! Who may read answers from pages of another origin (Fetch standard, CORS protocol; Gateway API, `HTTPCORSFilter`).
//! The decision, without tower and without a clock.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use http::{Method, Request};
use towpath_gateway_core::Policy;

/// What pages of other origins may do with a route.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    /// Whose pages.
    pub origins: Vec<OriginPattern>,
    /// Methods beyond those that every page may use.
    pub methods: Names,
    /// Request headers beyond those that every page may send.
    pub headers: Names,
    /// Response headers that pages may read.
    pub expose: Names,
    /// Whether requests may carry credentials. Then nothing is answered with `*`.
    pub credentials: bool,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Duration,
}

impl Policy for Cors {}

/// Origins, compared without case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Every origin: `*`.
    Any,
    /// This one, as `scheme://host[:port]`.
    Exact(Arc<str>),
    /// Hosts below a domain: `https://*.example.com` in two parts, `https://` and `.example.com`.
    Below(Arc<str>, Arc<str>),
}

/// A list of names.
#[derive(Debug, Clone, Default)]
pub enum Names {
    /// None is given.
    #[default]
    None,
    /// These, as they go into a header.
    Listed(HeaderValue),
    /// All of them: `*`.
    Any,
}

impl OriginPattern {
    /// Reads a pattern: `*`, an origin, or an origin whose host begins with `*.`. `None` for what is none of them.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host) = text.split_once("://")?;
        let sound = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
        if !sound {
            return None;
        }
        match host.strip_prefix('*') {
            Some(domain) if domain.starts_with('.') && domain.len() > 1 && !domain.contains('*') => {
                Some(Self::Below(format!("{scheme}://").into(), domain.into()))
            }
            None if !host.contains('*') => Some(Self::Exact(text.as_str().into())),
            _ => None,
        }
    }

    fn takes(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Below(scheme, domain) => {
                let origin = origin.to_ascii_lowercase();
                let host = origin.strip_prefix(&**scheme).and_then(|host| host.strip_suffix(&**domain));
                host.is_some_and(|label| !label.is_empty() && !label.contains(['/', '@']))
            }
        }
    }
}

/// What of a request bears on its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    origin: HeaderValue,
    /// The method that is asked about, if the request is a preflight.
    pub(crate) preflight: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

impl Asked {
    /// `None` for a request that comes from no page of another origin.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(ORIGIN)?.clone();
        let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = method.filter(|_| request.method() == Method::OPTIONS).cloned();
        Some(Self { origin, preflight, headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned() })
    }
}

impl Cors {
    fn allows(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str();
        text.is_ok_and(|origin| self.origins.iter().any(|pattern| pattern.takes(origin)))
    }

    /// Writes into an answer what its page may do; a backend's own word on it does not count.
    pub(crate) fn write(&self, asked: &Asked, headers: &mut HeaderMap) {
        for name in
            [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            headers.remove(name);
        }
        let open = !self.credentials && self.origins.contains(&OriginPattern::Any);
        if !open {
            // Caches must not give one origin's answer to another.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        if !self.allows(&asked.origin) {
            return;
        }
        let origin = if open { HeaderValue::from_static("*") } else { asked.origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let all = names(headers);
        self.list(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose, all.as_ref());
        if let Some(method) = &asked.preflight {
            self.list(headers, ACCESS_CONTROL_ALLOW_METHODS, &self.methods, Some(method));
            self.list(headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, asked.headers.as_ref());
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        }
    }

    /// With credentials `*` means nothing to a browser: what was asked for is named in its place.
    fn list(&self, headers: &mut HeaderMap, name: HeaderName, names: &Names, all: Option<&HeaderValue>) {
        let value = match names {
            Names::None => None,
            Names::Listed(list) => Some(list.clone()),
            Names::Any if self.credentials => all.cloned(),
            Names::Any => Some(HeaderValue::from_static("*")),
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// The names of the headers of an answer, as a list.
fn names(headers: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|_| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], names: Names, credentials: bool) -> Cors {
        Cors {
            origins: origins.iter().map(|text| OriginPattern::new(text).expect(text)).collect(),
            methods: names.clone(),
            headers: names,
            credentials,
            max_age: Duration::from_secs(5),
            ..Cors::default()
        }
    }

    fn asked(method: Method, origin: &str) -> Asked {
        let request = Request::builder()
            .method(method)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "PUT")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "x-a");
        Asked::of(&request.body(()).unwrap()).unwrap()
    }

    #[test]
    fn origins_are_compared_whole_and_without_case() {
        for (pattern, origin, takes) in [
            ("*", "null", true),
            ("https://a.example", "https://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://*.a.example", "https://x.a.example", true),
            ("https://*.a.example", "https://x.y.a.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://.a.example", false),
            ("https://*.a.example", "https://evila.example", false),
            ("https://*.a.example", "https://x.a.example.evil", false),
            ("https://*.a.example", "https://evil/x.a.example", false),
            ("https://*.a.example:1", "https://x.a.example:1", true),
        ] {
            assert_eq!(OriginPattern::new(pattern).unwrap().takes(origin), takes, "{pattern} {origin}");
        }
        for bad in ["", "a.example", "https://", "https://a*b", "https://*", "https://a/", "https://*.*.a"] {
            assert_eq!(OriginPattern::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_star_is_never_answered_to_credentials() {
        let preflight = asked(Method::OPTIONS, "https://a.example");
        let mut headers = HeaderMap::new();
        cors(&["*"], Names::Any, true).write(&preflight, &mut headers);
        let of =
            |headers: &HeaderMap, name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(of(&headers, ACCESS_CONTROL_ALLOW_ORIGIN).as_deref(), Some("https://a.example"));
        assert_eq!(of(&headers, ACCESS_CONTROL_ALLOW_METHODS).as_deref(), Some("PUT"));
        assert_eq!(of(&headers, ACCESS_CONTROL_ALLOW_HEADERS).as_deref(), Some("x-a"));
        assert_eq!(of(&headers, VARY).as_deref(), Some("origin"));
        let mut headers = HeaderMap::new();
        cors(&["*"], Names::Any, false).write(&preflight, &mut headers);
        assert_eq!(of(&headers, ACCESS_CONTROL_ALLOW_ORIGIN).as_deref(), Some("*"));
        assert_eq!(of(&headers, ACCESS_CONTROL_ALLOW_CREDENTIALS), None);
        assert_eq!((of(&headers, VARY), of(&headers, ACCESS_CONTROL_MAX_AGE).as_deref()), (None, Some("5")));
    }

    #[test]
    fn other_origins_get_nothing_even_if_the_backend_would_give_it() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let get = asked(Method::GET, "https://evil.example");
        cors(&["https://a.example"], Names::None, false).write(&get, &mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [VARY]);
    }
}
