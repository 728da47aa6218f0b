//! One short run with real processes, where the tools for it are there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::process::Command;

fn there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

#[test]
fn a_quick_run_measures_towpath_beside_nginx() {
    if !there("wrk") || !there("nginx") {
        eprintln!("skipped: wrk and nginx are needed for this test");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (json, svg) = (dir.path().join("bench.json"), dir.path().join("bench.svg"));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--quick", "--only=h1,mtls", "--peers=nginx", "--json"])
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for (outcome, scenario) in report["outcomes"].as_array().unwrap().iter().zip(["h1", "mtls"]) {
        assert_eq!(outcome["scenario"], scenario);
        let rows = outcome["rows"].as_array().unwrap();
        assert_eq!(
            rows.iter().map(|row| &row["proxy"]).collect::<Vec<_>>(),
            ["towpath", "nginx"],
            "{outcome}"
        );
        for row in rows {
            let round = &row["rounds"][0];
            assert!(round["requests"].as_u64().unwrap() > 100, "{row}");
            assert_eq!(round["failed"], 0, "{row}");
            assert!(round["cpu_us"].as_f64().unwrap() > 1.0, "{row}");
            assert!(round["p99_ms"].as_f64().is_some(), "{row}");
        }
    }
    assert!(said.contains("| towpath | "), "{said}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("towpath"));
}
