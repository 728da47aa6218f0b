//! Holds the arrows between crates: only these edges are allowed, whatever is convenient.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const CORE: &[&str] = &["gateway-core"];

/// Crate (without the prefix `towpath-`) and the workspace crates that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("gateway-core", &[]),
    ("http1", CORE),
    ("hello", &[]),
    ("forwarded-cert", CORE),
    ("server", &["gateway-core", "http1", "hello", "forwarded-cert"]),
    ("upstream", &["gateway-core", "http1"]),
    ("auth", CORE),
    ("rate-limit", CORE),
    ("routing", CORE),
    ("mesh-mtls", &["gateway-core", "hello", "forwarded-cert"]),
    ("observability", CORE),
    ("trace", CORE),
    ("ca", &["gateway-core", "mesh-mtls"]),
    ("issuers", &["gateway-core", "mesh-mtls", "ca"]),
    ("control", &["gateway-core", "mesh-mtls", "ca"]),
    ("config", &["gateway-core", "auth", "rate-limit", "routing", "upstream", "mesh-mtls"]),
    (
        "stacks",
        &[
            "gateway-core",
            "server",
            "upstream",
            "auth",
            "rate-limit",
            "routing",
            "mesh-mtls",
            "observability",
            "trace",
        ],
    ),
];

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for (name, edges) in edges() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name) else { continue };
        wrong.extend(
            edges
                .iter()
                .filter(|edge| !allowed.contains(&edge.as_str()))
                .map(|edge| format!("{name} -> {edge}")),
        );
    }
    assert!(wrong.is_empty(), "arrows that are not allowed: {wrong:?}");
}

#[test]
fn every_library_below_the_stacks_is_held() {
    let found = edges();
    for (name, _) in ALLOWED {
        assert!(found.contains_key(*name), "{name} is in the table but not in the workspace");
    }
    let programs_and_process = |name: &str| !ALLOWED.iter().any(|(allowed, _)| *allowed == name);
    for (name, edges) in found.iter().filter(|(name, _)| !programs_and_process(name)) {
        assert!(edges.iter().all(|edge| edge != "stacks" && edge != "proxy"), "{name} reaches up");
    }
}

/// Normal (not dev) dependencies among the workspace's crates, by what cargo itself says.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo answers");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let short = |name: &str| name.strip_prefix("towpath-").map(str::to_owned);
    let mut edges = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(name) = package["name"].as_str().and_then(short) else { continue };
        let normal =
            package["dependencies"].as_array().expect("dependencies").iter().filter(|d| d["kind"].is_null());
        edges.insert(name, normal.filter_map(|d| d["name"].as_str().and_then(short)).collect());
    }
    edges
}
