//! What a file of facts says: a workload as policies see it, and a request for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;
use towpath_config::{GivenWorkload, MeshSettings};
use towpath_gateway_core::SpiffeId;
use towpath_routing::PathNormalization;

use crate::explain::{HeaderLine, Line};

/// One entry.
#[derive(Debug, Deserialize)]
pub(super) struct Fact {
    workload: Workload,
    request: Request,
}

#[derive(Debug, Deserialize)]
struct Workload {
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    root_namespace: Option<String>,
    trust_domain: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
    path_normalization: Option<Form>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Form {
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Debug, Deserialize)]
struct Request {
    /// Identity of the peer, with or without `spiffe://`; none on plaintext.
    principal: Option<String>,
    ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    #[serde(default = "http")]
    protocol: Carried,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    port: u16,
    #[serde(default)]
    headers: BTreeMap<String, Lines>,
    sni: Option<String>,
    /// Set at an edge.
    xff_trusted_hops: Option<u8>,
    ext_authz: Option<Provider>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Carried {
    Http,
    Tcp,
}

fn http() -> Carried {
    Carried::Http
}

/// The lines of a header.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a header is a text, or a list of texts: a line each")]
enum Lines {
    One(String),
    Several(Vec<String>),
}

/// What the external authorizers answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Provider {
    Allow,
    Deny,
}

impl Fact {
    /// Reads one entry, and checks that it can be sent. Fields that say nothing here go to `unread`.
    pub(super) fn read(value: Value, unread: &mut BTreeSet<String>) -> Result<Self, String> {
        let mut place = serde_path_to_error::Track::new();
        let reader = serde_path_to_error::Deserializer::new(value, &mut place);
        let read = serde_ignored::deserialize(reader, |field| {
            unread.insert(field.to_string());
        });
        let fact: Self = read.map_err(|error| match place.path() {
            whole if whole.iter().len() == 0 => error.to_string(),
            field => format!("{field}: {error}"),
        })?;
        fact.principal()?;
        let request = &fact.request;
        let lines = request.headers.values().flat_map(Lines::all);
        let parts = lines.chain(request.headers.keys()).chain(&request.method).chain(&request.path);
        if parts.chain(&request.host).any(|text| text.contains(['\r', '\n', '\0'])) {
            return Err("a part of the request holds the end of a line".into());
        }
        for (part, given) in [("method", &request.method), ("path", &request.path)] {
            if request.protocol == Carried::Http && given.as_ref().is_none_or(|text| text.contains(' ')) {
                return Err(format!("an HTTP request has a `{part}`, without spaces"));
            }
        }
        Ok(fact)
    }

    /// A request that is asked about by itself.
    pub(super) fn asked(line: &Line, headers: &[HeaderLine], peer: Option<&SpiffeId>) -> Self {
        let mut given: BTreeMap<String, Lines> = BTreeMap::new();
        for HeaderLine(name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            match given.entry(name.to_string()).or_insert_with(|| Lines::Several(Vec::new())) {
                Lines::Several(lines) => lines.push(value),
                Lines::One(_) => {}
            }
        }
        Self {
            workload: Workload {
                namespace: String::new(),
                labels: BTreeMap::new(),
                root_namespace: None,
                trust_domain: None,
                trust_domain_aliases: None,
                path_normalization: None,
            },
            request: Request {
                principal: peer.map(|id| id.principal().to_owned()),
                ip: None,
                destination_ip: None,
                protocol: Carried::Http,
                method: Some(line.method.to_string()),
                path: Some(line.url.path_and_query().map_or("/", |target| target.as_str()).to_owned()),
                host: line.url.authority().map(ToString::to_string),
                port: line.port,
                headers: given,
                sni: None,
                xff_trusted_hops: None,
                ext_authz: None,
            },
        }
    }

    /// The workload that it is for.
    pub(super) fn workload(&self) -> GivenWorkload {
        let Workload { namespace, labels, .. } = &self.workload;
        GivenWorkload { namespace: namespace.as_str().into(), labels: labels.clone() }
    }

    /// What decides how a sidecar is compiled.
    pub(super) fn sidecar(&self) -> String {
        let providers = self.answers_for_providers();
        format!("{:?} {} {:?} {providers}", self.workload, self.port(), self.trusted_proxies())
    }

    /// The mesh: as the resources have it, and the entry's own word over it.
    pub(super) fn mesh(&self, named: MeshSettings) -> Result<MeshSettings, String> {
        let domain = |name: &String| name.parse().map_err(|error| format!("`{name}`: {error}"));
        let workload = &self.workload;
        let aliases = workload.trust_domain_aliases.as_ref();
        let aliases = aliases.map(|aliases| aliases.iter().map(domain).collect::<Result<_, String>>());
        Ok(MeshSettings {
            trust_domain: workload
                .trust_domain
                .as_ref()
                .map(domain)
                .transpose()?
                .unwrap_or(named.trust_domain),
            trust_domain_aliases: aliases.transpose()?.unwrap_or(named.trust_domain_aliases),
            root_namespace: workload.root_namespace.as_deref().map_or(named.root_namespace, Into::into),
            path_normalization: workload.path_normalization.map(form).or(named.path_normalization),
            ..named
        })
    }

    /// Proxies that are trusted, at an edge.
    pub(super) fn trusted_proxies(&self) -> Option<u8> {
        self.request.xff_trusted_hops
    }

    /// Whether the entry says what external authorizers answer: then it does not matter whether they are there.
    pub(super) fn answers_for_providers(&self) -> bool {
        self.request.ext_authz.is_some()
    }

    pub(super) fn provider(&self) -> Option<Provider> {
        self.request.ext_authz
    }

    pub(super) fn port(&self) -> u16 {
        self.request.port
    }

    /// The identity that the peer proves.
    pub(super) fn principal(&self) -> Result<Option<SpiffeId>, String> {
        let Some(principal) = &self.request.principal else { return Ok(None) };
        let uri = format!("spiffe://{}", principal.strip_prefix("spiffe://").unwrap_or(principal));
        uri.parse().map(Some).map_err(|error| format!("principal `{principal}`: {error}"))
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.request.ip.unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    pub(super) fn destination_ip(&self) -> IpAddr {
        self.request.destination_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        self.request.sni.as_deref()
    }

    pub(super) fn is_http(&self) -> bool {
        self.request.protocol == Carried::Http
    }

    /// The request for a person.
    pub(super) fn line(&self) -> String {
        let request = &self.request;
        let who = request.principal.as_deref().unwrap_or("plaintext");
        if !self.is_http() {
            return format!("TCP {} from {who}", request.port);
        }
        let (method, path) =
            (request.method.as_deref().unwrap_or("-"), request.path.as_deref().unwrap_or("-"));
        format!(
            "{method} {}{path} on port {} from {who}",
            request.host.as_deref().unwrap_or("-"),
            request.port
        )
    }

    /// The head of the request; `None` if it is none of HTTP.
    pub(super) fn head(&self) -> Option<http::Request<()>> {
        let request = &self.request;
        // A fragment is no part of a target, and the URI type would drop it without a word.
        let path = request.path.as_deref().filter(|path| !path.contains('#'))?;
        let head = http::Request::builder().method(request.method.as_deref()?).uri(path);
        let mut head = head.header(http::header::HOST, request.host.as_deref()?);
        for (name, lines) in &request.headers {
            for line in lines.all() {
                head = head.header(name, line);
            }
        }
        head.body(()).ok()
    }

    /// The request as a client of HTTP/1.1 writes it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let request = &self.request;
        let (method, path) =
            (request.method.as_deref().unwrap_or("-"), request.path.as_deref().unwrap_or("-"));
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let own_host = request.headers.keys().any(|name| name.eq_ignore_ascii_case("host"));
        if let Some(host) = request.host.as_ref().filter(|_| !own_host) {
            let _ = write!(text, "host: {host}\r\n");
        }
        for (name, lines) in &request.headers {
            for line in lines.all() {
                let _ = write!(text, "{name}: {line}\r\n");
            }
        }
        text.push_str("connection: close\r\n\r\n");
        text.into_bytes()
    }
}

impl Lines {
    fn all(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Several(lines) => lines,
        }
    }
}

fn form(form: Form) -> PathNormalization {
    match form {
        Form::None => PathNormalization::None,
        Form::Base => PathNormalization::Base,
        Form::MergeSlashes => PathNormalization::MergeSlashes,
        Form::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    }
}
