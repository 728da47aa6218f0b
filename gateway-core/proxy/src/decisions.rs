//! What policies decide, held to a table: by `explain`, and by the accept path of a real listener, with mTLS, an
//! application and an authorizer behind it. `TOWPATH_DECISIONS` names a file with further entries of the same form.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceExt, service_fn};
use towpath_config::{GivenWorkload, Options, Role, Source, compile};
use towpath_gateway_core::{
    Accepted, Body, Connected, Connection, Destination, Endpoint, Fault, HttpService, Live, Protocol,
    Request, Response, SpiffeId, TlsVersion, TrustDomain, Workload,
};
use towpath_mesh_mtls::{Credential, Identity, OriginateLayer, Refusals, TrustBundle};
use towpath_observability::{AccessLog, Metrics, ProcessFacts};
use towpath_server::{Drain, Limits, Serve};

use crate::Program;
use crate::explain::decide;
use crate::listener::{LiveSocket, Shared};
use crate::worker::{Supply, WorkerParts};

fn entries() -> Vec<Value> {
    let mut all: Vec<Value> = serde_json::from_str(include_str!("../tests/decisions.json")).unwrap();
    if let Ok(path) = std::env::var("TOWPATH_DECISIONS") {
        let more: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        all.extend(more);
    }
    all
}

fn source(entry: &Value, more: &str) -> Source {
    let policies = entry["policies"].as_array().unwrap().iter();
    let mut files: Vec<_> =
        policies.enumerate().map(|(n, policy)| (format!("{n}.yaml"), policy.to_string())).collect();
    files.push(("more.yaml".to_owned(), more.to_owned()));
    Source::from_files(files)
}

/// What an answer has in common with an entry.
fn differences(entry: &Value, answer: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (told, wanted) in [
        ("decision", "expected"),
        ("status", "status"),
        ("effective_mode", "effective_mode"),
        ("upstream_path", "upstream_path"),
    ] {
        if !entry[wanted].is_null() && !answer[told].is_null() && entry[wanted] != answer[told] {
            found.push(format!("{told}: {} and not {}", answer[told], entry[wanted]));
        }
    }
    for (name, wanted) in entry["upstream_headers"].as_object().into_iter().flatten() {
        if answer["upstream_headers"][name] != *wanted {
            found.push(format!("{name}: {} and not {wanted}", answer["upstream_headers"][name]));
        }
    }
    found
}

#[test]
fn what_is_explained_is_as_the_table_says() {
    let mut wrong = Vec::new();
    for entry in entries() {
        let base = Options::new(Role::Sidecar { inbound: Vec::new() });
        let answer = decide(&source(&entry, ""), &base, vec![entry.clone()]).unwrap().remove(0);
        assert!(!answer["reason"].as_str().unwrap().is_empty(), "{answer}");
        let found = differences(&entry, &answer);
        if !found.is_empty() {
            wrong.push(format!("{}: {found:?}\n{entry}", entry["id"]));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// An authority for every trust domain.
struct Mesh {
    issuer: Issuer<'static, KeyPair>,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Mesh {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn identity(&self, id: &str, aliases: &[TrustDomain]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let domain = id.parse::<SpiffeId>().unwrap().trust_domain().parse().unwrap();
        let bundle = TrustBundle::new(domain, vec![self.root.clone()]).unwrap();
        let bundle = bundle.with_aliases(aliases.iter().cloned());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Identity::new(Credential::new(chain, key, bundle).unwrap())
    }
}

/// Heads of requests that came, or what came instead of one.
type Heads = Arc<Mutex<Vec<String>>>;

/// A server of HTTP/1.1 that answers everything with this status.
async fn backend(status: &'static str) -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heads) = (listener.local_addr().unwrap(), Heads::default());
    let log = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            if !head.is_empty() {
                log.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, heads)
}

/// An authorizer of Envoy's gRPC protocol that says this to everything.
async fn grpc_authorizer(allows: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = service_fn(move |question: Request| async move {
        assert_eq!(question.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
        // A `CheckResponse` in its frame, with the status OK or PERMISSION_DENIED.
        let message: &'static [u8] =
            if allows { &[0, 0, 0, 0, 2, 10, 0] } else { &[0, 0, 0, 0, 4, 10, 2, 8, 7] };
        let trailers =
            [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))].into_iter().collect();
        let trailers = std::future::ready(Some(Ok(trailers)));
        let mut answer =
            Response::new(Body::new(Body::from(Bytes::from_static(message)).with_trailers(trailers)));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Ok::<_, Fault>(answer)
    });
    let serve = Serve::new(HttpService::new(answer), Limits::mesh(), Drain::new(Duration::ZERO));
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let accepted =
                Accepted { io: Box::new(stream), connection: Connection::plaintext(peer, address) };
            tokio::spawn(serve.clone().oneshot(accepted));
        }
    });
    address
}

/// A Service of this name with one address.
fn service(namespace: &str, name: &str, at: SocketAddr) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: [{{port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: {namespace}, labels: \
         {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [{}]}}]\nports: [{{port: {}}}]\n",
        at.ip(),
        at.port()
    )
}

fn mesh(entry: &Value, provider: SocketAddr) -> String {
    let (workload, request) = (&entry["workload"], &entry["request"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let policies = entry["policies"].as_array().unwrap();
    let provider_name = policies.iter().find_map(|policy| policy["spec"]["provider"]["name"].as_str());
    let kind = if request["protocol"] == "tcp" { "envoyExtAuthzGrpc" } else { "envoyExtAuthzHttp" };
    let providers = provider_name
        .map(|name| json!([{"name": name, (kind): {"service": "authorizer.asked", "port": 80}}]));
    let spec = json!({
        "trustDomain": text(&workload["trust_domain"]),
        "trustDomainAliases": workload["trust_domain_aliases"],
        "rootNamespace": text(&workload["root_namespace"]),
        "pathNormalization": {"normalization": text(&workload["path_normalization"])},
        "gatewayTopology": {"numTrustedProxies": request["xff_trusted_hops"].as_u64().unwrap_or_default()},
        "extensionProviders": providers.unwrap_or_else(|| json!([])),
    });
    let mesh = json!({"apiVersion": "towpath.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "m"}, "spec": spec});
    format!("---\n{mesh}\n{}", service("asked", "authorizer", provider))
}

/// A Gateway in the workload's namespace, on the port, with everything routed to the application.
fn gateway(namespace: &str, port: u16, app: SocketAddr) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: {namespace}}}\nspec: \
         {{gatewayClassName: a, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}\n---\napiVersion: \
         gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all, namespace: {namespace}}}\nspec: {{parentRefs: \
         [{{name: edge}}], rules: [{{backendRefs: [{{name: app, port: 80}}]}}]}}\n{}",
        service(namespace, "app", app)
    )
}

/// What its client writes: a request, or bytes that are none.
fn bytes(request: &Value) -> String {
    if request["protocol"] == "tcp" {
        return "\u{1}no request\r\n\r\n".to_owned();
    }
    let text = |name: &str| request[name].as_str().unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", text("method"), text("path"), text("host"));
    for (name, value) in request["headers"].as_object().unwrap() {
        // A list is of lines.
        let lines = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for line in lines {
            head.extend([name, ": ", line.as_str().unwrap(), "\r\n"]);
        }
    }
    head + "connection: close\r\n\r\n"
}

async fn talk(mut io: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    let mut answer = Vec::new();
    let _ = io.write_all(request.as_bytes()).await;
    let _ = io.flush().await;
    let _ = io.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a real listener does with the request of an entry.
async fn served(entry: &Value, authority: &Mesh) -> Value {
    let (workload, request) = (&entry["workload"], &entry["request"]);
    let (app, arrived) = backend("200 OK").await;
    let refuses = request["ext_authz"] == "deny";
    let provider = if request["protocol"] == "tcp" {
        grpc_authorizer(!refuses).await
    } else {
        backend(if refuses { "403 Forbidden" } else { "200 OK" }).await.0
    };
    let port = u16::try_from(request["port"].as_u64().unwrap()).unwrap();
    let namespace = workload["namespace"].as_str().unwrap();
    let edge = !request["xff_trusted_hops"].is_null();
    let mut text = mesh(entry, provider);
    // With a `Mesh` workloads are STRICT by default, and the entries go by Istio's default.
    let settings = {
        let alone = Source::from_files(vec![("mesh.yaml".to_owned(), text.clone())]);
        compile(&alone, &Options::new(Role::Gateway), None).mesh
    };
    if text.contains("authorizer.asked") {
        let permissive = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: \
                          ROOT}\nspec: {mtls: {mode: PERMISSIVE}}\n";
        text.push_str(&permissive.replace("ROOT", &settings.root_namespace));
    } else {
        text.clear();
    }
    let (program, role) = if edge {
        text.push_str(&gateway(namespace, port, app));
        (Program::Gateway, Role::Gateway)
    } else {
        let inbound = vec![format!("{port}=127.0.0.1:1>{app}").parse().unwrap()];
        (Program::Sidecar, Role::Sidecar { inbound })
    };
    let labels: BTreeMap<String, String> = serde_json::from_value(workload["labels"].clone()).unwrap();
    let options = Options {
        given: Some(GivenWorkload { namespace: namespace.into(), labels }),
        mesh: Some(settings),
        has_identity: !edge,
        ..Options::new(role)
    };
    let snapshot = compile(&source(entry, &text), &options, None);
    let listener = snapshot.listeners.first().unwrap_or_else(|| panic!("{:?}", snapshot.problems));
    let principal = request["principal"].as_str().filter(|_| !edge);
    let mut aliases = snapshot.mesh.trust_domain_aliases.clone();
    aliases.extend(principal.map(|id| id.split('/').next().unwrap().parse().unwrap()));
    let server =
        authority.identity(&format!("spiffe://{}/ns/own/sa/app", snapshot.mesh.trust_domain), &aliases);
    let drain = Drain::new(Duration::from_secs(1));
    let shared = Shared {
        program,
        identity: Some(server.clone()),
        refusals: Refusals::new(),
        min_tls_version: Live::new(TlsVersion::Tls12),
        limits: Limits::mesh(),
        drain: drain.clone(),
        patience: Duration::from_secs(1),
    };
    let supply = Supply {
        program,
        facts: ProcessFacts::default(),
        metrics: Metrics::new(),
        log: AccessLog::off(),
        identity: Some(server),
    };
    let LiveSocket::Connections(duty) = LiveSocket::new(listener, Duration::from_secs(1)).unwrap() else {
        panic!("{listener:?}");
    };
    let mut stack = duty.service(&shared, &Arc::new(WorkerParts::new(1, supply)), (0, &listener.name));
    let (near, far) = duplex(64 << 10);
    let peer = SocketAddr::new(request["ip"].as_str().unwrap().parse().unwrap(), 4000);
    let local = SocketAddr::new([127, 0, 0, 1].into(), port);
    let connection = Connection::plaintext(peer, local);
    let serving = tokio::spawn(stack.call(Accepted { io: Box::new(far), connection }));
    let line = bytes(request);
    let answer = match principal {
        None => talk(near, &line).await,
        Some(principal) => {
            let ours: TrustDomain = snapshot.mesh.trust_domain.clone();
            let client = authority.identity(&format!("spiffe://{principal}"), &[ours]);
            let endpoint = endpoint(request, &snapshot.mesh.trust_domain).unwrap();
            match secured(client, endpoint, near).await {
                Ok(connected) => talk(connected.io, &line).await,
                Err(_) => String::new(),
            }
        }
    };
    serving.await.unwrap().unwrap();
    let heads = arrived.lock().unwrap().clone();
    if request["protocol"] == "tcp" {
        // Bytes of nobody's protocol are carried to the application as they are, and its answer back, or nothing is.
        let carried = heads == [line] && answer.starts_with("HTTP/1.1 200");
        assert!(carried || (heads.is_empty() && answer.is_empty()), "{heads:?} {answer}");
        let (decision, status) = if carried { ("allow", "open") } else { ("deny", "reset") };
        return json!({"decision": decision, "status": status});
    }
    told(&answer, &heads)
}

/// What the client takes the sidecar for: an endpoint whose handshake names the server that the entry asks for. `None` if no
/// handshake of the mesh's would.
fn endpoint(request: &Value, domain: &TrustDomain) -> Option<Endpoint> {
    let mut endpoint = Endpoint::plaintext(([127, 0, 0, 1], 1).into());
    if let Some(name) = request["sni"].as_str() {
        let (port, host) = name.strip_prefix("outbound_.")?.split_once("_._.")?;
        let mut labels = host.splitn(3, '.');
        let (name, namespace) = (labels.next()?, labels.next()?);
        endpoint.address.set_port(port.parse().ok()?);
        endpoint.workload =
            Workload { name: format!("{namespace}/{name}").into(), cluster: labels.next()?.into() };
    }
    let id: SpiffeId = format!("spiffe://{domain}/ns/own/sa/app").parse().ok()?;
    let protocol = if request["protocol"] == "tcp" { Protocol::Opaque } else { Protocol::Http1 };
    Some(endpoint.with_mtls([id]).with_protocol(protocol))
}

/// The client's end of a connection, with mesh mTLS.
async fn secured(
    client: Identity,
    endpoint: Endpoint,
    io: tokio::io::DuplexStream,
) -> Result<Connected, Fault> {
    let address = endpoint.address;
    let io = Arc::new(Mutex::new(Some(io)));
    let connector = service_fn(move |_: Destination| {
        let io = io.lock().unwrap().take().unwrap();
        let connection = Arc::new(Connection::plaintext(address, address));
        std::future::ready(Ok::<_, Fault>(Connected { io: Box::new(io), connection }))
    });
    let protocol = endpoint.protocol;
    let to = Destination { endpoint: Arc::new(endpoint), protocol };
    OriginateLayer::new(Some(client)).layer(connector).oneshot(to).await
}

fn told(answer: &str, heads: &[String]) -> Value {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let decision = match (heads.first(), status) {
        (Some(_), _) => "allow",
        (None, Some(401)) => "401",
        (None, _) => "deny",
    };
    let head = heads.first().map(|head| {
        let mut lines = head.lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        (target, headers)
    });
    let (path, headers) = head.unzip();
    json!({
        "decision": decision,
        "status": status.map_or(json!("reset"), Into::into),
        "upstream_path": path,
        "upstream_headers": headers,
    })
}

#[tokio::test]
async fn a_real_listener_does_as_the_table_says() {
    let authority = Mesh::new();
    let mut wrong = Vec::new();
    let domain: TrustDomain = "td.example".parse().unwrap();
    let entries = entries();
    let can_be_sent = |entry: &&Value| endpoint(&entry["request"], &domain).is_some();
    for entry in entries.iter().filter(can_be_sent) {
        let found = differences(entry, &served(entry, &authority).await);
        if !found.is_empty() {
            wrong.push(format!("{}: {found:?}\n{entry}", entry["id"]));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
