//! Towpath: the shipped program with a directory of resources and every default on; the access log is off as for the
//! others.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Ground, Role, Start, prefix, written};
use crate::certificates::TRUST_DOMAIN;
use crate::{Failure, net};

/// Prefixes beside `/` where the table is not what is measured.
const ROUTES: u32 = 100;
/// Rules of an `HTTPRoute`, at most (Gateway API).
const RULES: usize = 16;

pub(super) fn start(role: Role, dir: &Path, ground: &Ground) -> Result<Start, Failure> {
    let plain = if role == Role::Accept { None } else { Some(net::free()?) };
    let tls = if matches!(role, Role::Edge | Role::Accept) { Some(net::free()?) } else { None };
    let config = dir.join("config");
    fs::create_dir_all(&config)?;
    let documents: Vec<_> = resources(role, ground)?.iter().map(Value::to_string).collect();
    // JSON is YAML: one document each.
    written(&config, "bench.yaml", &documents.join("\n---\n"))?;
    let word =
        if matches!(role, Role::Edge | Role::Table(_) | Role::Logging(_)) { "gateway" } else { "sidecar" };
    let (program, mut args) = program(word, ground)?;
    args.extend([
        format!("--config={}", config.display()),
        format!("--admin={}", net::free()?),
        "--workers=1".to_owned(),
        format!("--access-log={}", log(role, dir)),
        "--drain=1".to_owned(),
    ]);
    args.extend(duty(role, ground, plain, tls));
    Ok(Start { program, args, plain, tls })
}

fn log(role: Role, dir: &Path) -> String {
    if role == Role::Logging(true) {
        return dir.join("access.log").display().to_string();
    }
    "off".to_owned()
}

/// This program's own copy, or the one of a directory.
fn program(word: &str, ground: &Ground) -> Result<(PathBuf, Vec<String>), Failure> {
    match &ground.bin_dir {
        Some(dir) => Ok((dir.join(word), Vec::new())),
        None => Ok((std::env::current_exe()?, vec![word.to_owned()])),
    }
}

fn duty(role: Role, ground: &Ground, plain: Option<SocketAddr>, tls: Option<SocketAddr>) -> Vec<String> {
    let mut args = Vec::new();
    let mut map = Vec::new();
    match role {
        Role::Edge | Role::Table(_) | Role::Logging(_) => {
            args.push("--workload=bench/gateway-0".to_owned());
            map.extend(plain.map(|address| format!("bench/gateway:80={address}")));
            map.extend(tls.map(|address| format!("bench/gateway:443={address}")));
        }
        Role::Originate(_) => {
            args.push("--workload=bench/client-0".to_owned());
            args.push(format!("--identity={}", ground.certificates.client.dir.display()));
            map.extend(plain.map(|address| format!("bench/app:80={address}")));
        }
        Role::Accept => {
            args.push("--workload=bench/app-0".to_owned());
            args.push(format!("--identity={}", ground.certificates.server.dir.display()));
            args.extend(tls.map(|address| format!("--inbound=80={address}>{}", ground.backend)));
        }
    }
    if !map.is_empty() {
        args.push(format!("--port-map={}", map.join(",")));
    }
    args
}

fn resources(role: Role, ground: &Ground) -> Result<Vec<Value>, Failure> {
    let in_mesh = matches!(role, Role::Originate(_) | Role::Accept);
    let next = if let Role::Originate(next) = role { next } else { ground.backend };
    let mut all = vec![service(), endpoints(next, in_mesh), deny(if in_mesh { "app" } else { "gateway" })];
    if in_mesh {
        all.extend([mesh(), pod("client-0", "client"), pod("app-0", "server")]);
    } else {
        all.extend(gateway(role, ground)?);
    }
    let parent = if in_mesh {
        json!({"group": "", "kind": "Service", "name": "app"})
    } else {
        json!({"name": "gateway"})
    };
    all.extend(routes(&prefixes(role), &parent));
    Ok(all)
}

fn prefixes(role: Role) -> Vec<String> {
    match role {
        Role::Table(count) => (0..count).map(prefix).collect(),
        _ => (0..ROUTES).map(prefix).chain(["/".to_owned()]).collect(),
    }
}

fn gateway(role: Role, ground: &Ground) -> Result<Vec<Value>, Failure> {
    let mut listeners = vec![json!({"name": "http", "port": 80, "protocol": "HTTP"})];
    let mut all = vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "towpath"},
            "spec": {"controllerName": "towpath.dev/gateway"},
        }),
        pod("gateway-0", "gateway"),
    ];
    if role == Role::Edge {
        listeners.push(json!({
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "gateway"}]},
        }));
        let server = &ground.certificates.server;
        all.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"namespace": "bench", "name": "gateway"},
            "stringData": {
                "tls.crt": fs::read_to_string(&server.certificate)?,
                "tls.key": fs::read_to_string(&server.key)?,
            },
        }));
    }
    all.push(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"namespace": "bench", "name": "gateway"},
        "spec": {"gatewayClassName": "towpath", "listeners": listeners},
    }));
    Ok(all)
}

fn routes(prefixes: &[String], parent: &Value) -> Vec<Value> {
    let rule = |prefix: &String| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "backendRefs": [{"name": "app", "port": 80}],
        })
    };
    let route = |(number, part): (usize, &[String])| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"namespace": "bench", "name": format!("r{number}")},
            "spec": {"parentRefs": [parent], "rules": part.iter().map(rule).collect::<Vec<_>>()},
        })
    };
    prefixes.chunks(RULES).enumerate().map(route).collect()
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "bench", "name": "app"},
        "spec": {"selector": {"app": "app"}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn endpoints(next: SocketAddr, in_mesh: bool) -> Value {
    let mut endpoint = json!({"addresses": [next.ip().to_string()], "conditions": {"ready": true}});
    if let (true, Some(endpoint)) = (in_mesh, endpoint.as_object_mut()) {
        let pod = json!({"kind": "Pod", "namespace": "bench", "name": "app-0"});
        endpoint.insert("targetRef".to_owned(), pod);
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "bench",
            "name": "app-1",
            "labels": {"kubernetes.io/service-name": "app"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": next.port()}],
        "endpoints": [endpoint],
    })
}

fn pod(name: &str, account: &str) -> Value {
    let app = name.trim_end_matches("-0");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "bench",
            "name": name,
            "labels": {"app": app, "security.istio.io/tlsMode": "istio"},
        },
        "spec": {"serviceAccountName": account},
    })
}

/// A policy that looks at method and path of every request.
fn deny(app: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "bench", "name": "no-admin"},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "action": "DENY",
            "rules": [{"to": [{"operation": {"methods": ["DELETE"], "paths": ["/admin*"]}}]}],
        },
    })
}

fn mesh() -> Value {
    json!({
        "apiVersion": "towpath.dev/v1alpha1",
        "kind": "Mesh",
        "metadata": {"name": "bench"},
        "spec": {"scenario": "gateway-api", "trustDomain": TRUST_DOMAIN, "rootNamespace": "bench-system"},
    })
}
