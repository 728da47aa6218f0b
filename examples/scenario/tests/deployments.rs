//! The four deployments, whole: every part a real process, the traffic real, the findings the processes' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

/// One run at a time: each is fifteen processes.
static MACHINE: Mutex<()> = Mutex::new(());

fn report(word: &str) -> Value {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = tempfile::NamedTempFile::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args([word, "--short", "--report"])
        .arg(file.path())
        .arg("--keep-logs")
        .arg(logs.path())
        .output()
        .unwrap();
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let no_panic = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(!text.contains("panicked at"), "{}: {text}", path.display());
    };
    std::fs::read_dir(logs.path()).unwrap().for_each(no_panic);
    serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap())
        .unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check is named {name}"))
}

/// What holds in every deployment, whatever its shape.
fn common(report: &Value) {
    assert_eq!(report["passed"], true, "{report:#}");
    assert!(report["checks"].as_array().unwrap().len() >= 19);
    for name in ["a wrong identity", "plaintext to a STRICT service", "TLS without an identity", "no API key"]
    {
        assert_eq!(check(report, name)["ok"], true);
    }
    // Hops and identities are those of the logs: the first service proved its id to whoever came before it, unless
    // that hop is open.
    let chain = report["chain"].as_array().unwrap();
    assert_eq!(chain[0]["from"], "client");
    assert_eq!(chain[0]["tls"], "TLSv1.3");
    let reviews = chain.iter().find(|leg| leg["to"].as_str().unwrap().starts_with("reviews-")).unwrap();
    assert_eq!(reviews["tls"], "TLSv1.3");
    assert_eq!(reviews["client_identity"], "spiffe://bookshop.example/ns/bookshop/sa/productpage");
    assert_eq!(reviews["server_identity"], "spiffe://bookshop.example/ns/bookshop/sa/reviews");
}

fn edge_leg(report: &Value) -> &Value {
    let chain = report["chain"].as_array().unwrap();
    chain.iter().find(|leg| leg["from"] != "client" && leg["local"] == false).expect("a leg between hosts")
}

#[test]
fn ingress() {
    let report = report("ingress");
    common(&report);
    let leg = edge_leg(&report);
    assert_eq!((&leg["from"], &leg["to"], &leg["tls"]), (&"gateway".into(), &"ingress".into(), &Value::Null));
    assert_eq!(report["plaintext_hops"].as_array().unwrap().len(), 1);
    assert_eq!(check(&report, "open sockets of the cluster")["ok"], true);
}

#[test]
fn in_cluster() {
    let report = report("in-cluster");
    common(&report);
    let leg = edge_leg(&report);
    assert_eq!((&leg["to"], &leg["tls"]), (&"productpage-0-sidecar".into(), &Value::Null));
    assert_eq!(report["plaintext_hops"].as_array().unwrap().len(), 1);
}

#[test]
fn attached() {
    let report = report("attached");
    common(&report);
    let leg = edge_leg(&report);
    assert_eq!((&leg["from"], &leg["tls"]), (&"gateway-sidecar".into(), &"TLSv1.3".into()));
    assert_eq!(leg["client_identity"], "spiffe://bookshop.example/ns/edge/sa/gateway");
    assert_eq!(report["plaintext_hops"].as_array().unwrap().len(), 0);
    assert!(report["mesh_lines"].as_u64().unwrap() <= 15);
}

#[test]
fn gateway_api() {
    let report = report("gateway-api");
    common(&report);
    let leg = edge_leg(&report);
    assert_eq!((&leg["from"], &leg["tls"]), (&"gateway".into(), &"TLSv1.3".into()));
    assert_eq!(leg["client_identity"], "spiffe://bookshop.example/ns/edge/sa/gateway");
    assert_eq!(report["plaintext_hops"].as_array().unwrap().len(), 0);
}
