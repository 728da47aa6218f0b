//! Envoy: without access log, request id and service-mesh filters.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Ground, Role, Start, prefix, written};
use crate::certificates::{NAME, Pair};
use crate::{Failure, net, tools};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

pub(super) fn start(role: Role, dir: &Path, ground: &Ground) -> Result<Start, Failure> {
    let plain = if role == Role::Accept { None } else { Some(net::free()?) };
    let tls = if matches!(role, Role::Edge | Role::Accept) { Some(net::free()?) } else { None };
    let mut listeners = Vec::new();
    if let Some(address) = plain {
        listeners.push(listener("plain", address, role, None));
    }
    if let Some(address) = tls {
        listeners.push(listener("tls", address, role, Some(&ending(role, ground))));
    }
    let text = json!({"static_resources": {"listeners": listeners, "clusters": [cluster(role, ground)]}});
    let file = written(dir, "envoy.json", &text.to_string())?;
    let args = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    Ok(Start { program: tools::ENVOY.need()?, args: args.map(str::to_owned).to_vec(), plain, tls })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn pair(pair: &Pair) -> Value {
    json!([{
        "certificate_chain": {"filename": pair.certificate},
        "private_key": {"filename": pair.key},
    }])
}

fn version() -> Value {
    json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"})
}

fn listener(name: &str, address: SocketAddr, role: Role, ending: Option<&Value>) -> Value {
    let prefixes = match role {
        Role::Table(count) => (0..count).map(prefix).collect(),
        _ => vec!["/".to_owned()],
    };
    let routes: Vec<_> = prefixes
        .iter()
        .map(|prefix| json!({"match": {"prefix": prefix}, "route": {"cluster": "u", "timeout": "0s"}}))
        .collect();
    let http = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{http}.HttpConnectionManager"),
            "stat_prefix": "h",
            "codec_type": "AUTO",
            "generate_request_id": false,
            "use_remote_address": true,
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": router, "suppress_envoy_headers": true},
            }],
        },
    }]});
    if let (Some(ending), Some(chain)) = (ending, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), ending.clone());
    }
    json!({"name": name, "address": socket(address), "filter_chains": [chain]})
}

fn ending(role: Role, ground: &Ground) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TLS}.DownstreamTlsContext"),
        "require_client_certificate": role == Role::Accept,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": pair(&ground.certificates.server),
            "tls_params": version(),
            "validation_context": if role == Role::Accept {
                json!({"trusted_ca": {"filename": ground.certificates.root}})
            } else {
                Value::Null
            },
        },
    }})
}

fn cluster(role: Role, ground: &Ground) -> Value {
    let many = json!({"max_connections": 100_000, "max_requests": 100_000, "max_pending_requests": 100_000});
    let next = if let Role::Originate(next) = role { next } else { ground.backend };
    let originate = matches!(role, Role::Originate(_)).then(|| originating(ground));
    json!({
        "name": "u",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [many]},
        "transport_socket": originate,
        "load_assignment": {
            "cluster_name": "u",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(next)}}]}],
        },
    })
}

fn originating(ground: &Ground) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TLS}.UpstreamTlsContext"),
        "sni": NAME,
        "common_tls_context": {
            "tls_certificates": pair(&ground.certificates.client),
            "tls_params": version(),
            "validation_context": {
                "trusted_ca": {"filename": ground.certificates.root},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
            },
        },
    }})
}
