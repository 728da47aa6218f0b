//! `explain --facts` and `explain --from`, by the program: the table of decisions, what every policy says, and what is wrong
//! with a question.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn explain(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args(["sidecar", "explain", "--config"])
        .arg(dir.join("policies"))
        .arg("--facts")
        .arg(dir.join("facts.json"))
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn write(dir: &Path, policies: &Value, facts: &str) {
    let _ = fs::remove_dir_all(dir.join("policies"));
    fs::create_dir(dir.join("policies")).unwrap();
    for (number, policy) in policies.as_array().unwrap().iter().enumerate() {
        fs::write(dir.join("policies").join(format!("{number}.json")), policy.to_string()).unwrap();
    }
    fs::write(dir.join("facts.json"), facts).unwrap();
}

/// The first entries of every group of the table.
fn table() -> Vec<Value> {
    let entries: Vec<Value> =
        serde_json::from_str(include_str!("../../../gateway-core/proxy/tests/decisions.json")).unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut first = Vec::new();
    for entry in entries {
        let count = seen.entry(entry["group"].as_str().unwrap().to_owned()).or_default();
        *count += 1;
        if *count <= 3 {
            first.push(entry);
        }
    }
    first
}

#[test]
fn the_program_decides_as_the_table_says() {
    let dir = TempDir::new().unwrap();
    let entries = table();
    assert!(entries.len() >= 30);
    for entry in entries {
        // An answer for each fact, in order.
        let facts = serde_json::json!([entry, entry]).to_string();
        write(dir.path(), &entry["policies"], &facts);
        let (code, out, err) = explain(dir.path(), &["-o", "json"]);
        assert_eq!(code, Some(0), "{err}");
        let answers: Vec<Value> = serde_json::from_str(&out).unwrap();
        assert_eq!(answers.len(), 2);
        for answer in answers {
            assert_eq!(answer["decision"], entry["expected"], "{entry}\n{answer}");
            assert_eq!(answer["status"], entry["status"], "{entry}\n{answer}");
        }
    }
}

#[test]
fn a_person_reads_a_line_a_fact() {
    let dir = TempDir::new().unwrap();
    let policies = serde_json::json!([{
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-gets", "namespace": "shop"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
    }]);
    let fact = r#"{"workload": {"namespace": "shop"}, "request": {"method": "M", "path": "/a", "host": "b", "port": 80}}"#;
    let facts = format!("[{}, {}]", fact.replace("\"M\"", "\"GET\""), fact.replace("\"M\"", "\"PUT\""));
    write(dir.path(), &policies, &facts);
    let (code, out, err) = explain(dir.path(), &[]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "deny  403   GET b/a on port 80 from plaintext: a DENY policy matches (shop/no-gets, rule 0)",
            "allow 200   PUT b/a on port 80 from plaintext: no DENY policy matches, and there is no ALLOW policy",
        ]
    );
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let dir = TempDir::new().unwrap();
    let good = r#"{"workload": {"namespace": "a"}, "request": {"method": "GET", "path": "/", "port": 1}}"#;
    for (facts, message) in [
        ("[", "facts.json: EOF"),
        ("{}", "it holds a list"),
        (r#"[{"request": {}}]"#, "entry 0: request: missing field `port`"),
        ("[{}]", "entry 0: missing field `workload`"),
        (
            &*format!("[{}]", good.replace("\"port\": 1", "\"port\": 70000")),
            "entry 0: request.port: invalid value",
        ),
        (
            &*format!("[{}]", good.replace("\"port\": 1", "\"port\": 1, \"headers\": {\"x\": 1}")),
            "entry 0: request.headers.x: a header is a text",
        ),
        (
            &*format!("[{good}, {}]", good.replace("\"/\"", "\"/\\r\\n\"")),
            "entry 1: a part of the request holds the end",
        ),
        (
            &*format!("[{}]", good.replace("\"port\": 1", "\"port\": 1, \"principal\": \"a b\"")),
            "principal `a b`",
        ),
        (&*format!("[{}]", good.replace("\"GET\"", "\"G T\"")), "an HTTP request has a `method`"),
        (&*format!("[{}]", good.replace("\"a\"}", "\"a\", \"trust_domain\": \"A\"}")), "`A`: a trust domain"),
    ] {
        write(dir.path(), &serde_json::json!([]), facts);
        fs::write(dir.path().join("policies/empty.yaml"), "").unwrap();
        let (code, out, err) = explain(dir.path(), &["-o", "json"]);
        assert!(code != Some(0) && out.is_empty() && err.contains(message), "{facts}: {code:?} {out} {err}");
    }
    let misspelt = good.replace("\"port\": 1", "\"port\": 1, \"prinicpal\": \"a\"");
    write(dir.path(), &serde_json::json!([]), &format!("[{good}, {misspelt}]"));
    fs::write(dir.path().join("policies/empty.yaml"), "").unwrap();
    let (code, _, err) = explain(dir.path(), &[]);
    assert!(code == Some(0) && err.contains("were not read: request.prinicpal"), "{code:?} {err}");
    fs::remove_file(dir.path().join("facts.json")).unwrap();
    let (code, _, err) = explain(dir.path(), &[]);
    assert!(code != Some(0) && err.contains("cannot read"), "{err}");
}

/// A workload with a policy, as resources.
const BOOKS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: books-0, labels: {app: books}}
spec: {serviceAccountName: books}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {namespace: shop, name: books}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: callers}
spec: {rules: [{from: [{source: {principals: ["*/sa/web"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: no-admin}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}
"#;

#[test]
fn a_caller_is_told_what_every_policy_says() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("books.yaml"), BOOKS).unwrap();
    let ask = |workload: &str, from: &str, request: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
            .args(["sidecar", "explain", "--config"])
            .arg(dir.path())
            .args(["--workload", workload, "--from", from, "--request", request])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    for (from, request, expected) in [
        (
            web,
            "GET http://books/1",
            &[
                "allow 200   GET books/1 on port 80 from cluster.local/ns/shop/sa/web: an ALLOW policy matches (shop/callers, rule 0)",
                "  DENY   shop/no-admin: no rule matches",
                "  ALLOW  shop/callers: rule 0 matches",
            ][..],
        ),
        (
            web,
            "GET http://books/admin/1",
            &[
                "deny  403   GET books/admin/1 on port 80 from cluster.local/ns/shop/sa/web: a DENY policy matches (shop/no-admin, rule 0)",
                "  DENY   shop/no-admin: rule 0 matches",
                "  ALLOW  shop/callers: rule 0 matches",
            ],
        ),
        (
            "plaintext",
            "GET http://books/1",
            &[
                "deny  reset GET books/1 on port 80 from plaintext: the mode is STRICT, and the peer speaks plaintext",
                "  no policy is asked: the connection is refused",
            ],
        ),
    ] {
        let (success, told) = ask("shop/books-0", from, request);
        assert!(success, "{told}");
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    }
    let (success, told) = ask("shop/nobody", web, "GET http://books/1");
    assert!(!success && told.contains("there is no Pod and no WorkloadEntry shop/nobody"), "{told}");
    let (success, told) = ask("shop/books-0", "web", "GET http://books/1");
    assert!(!success && told.contains("a SPIFFE id begins with spiffe://"), "{told}");
}
