//! What 10,000 routes cost when configuration is applied: time from typed objects to the table in force, and memory. Times
//! are of an optimized build only:
//!
//! ```sh
//! cargo test --release -p towpath-stacks --test table -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use towpath_config::{Duty, Listener, Options, Role, Source, compile};
use towpath_routing::Routes;

const ROUTES: usize = 10_000;
/// Of the objects as they are in memory, with every reference resolved, to the table in force.
const COMPILED_AND_APPLIED: Duration = Duration::from_millis(150);
/// Bytes of the table for each route of one rule: what was measured when the bound was set, plus a tenth.
const BYTES: usize = 620;

/// Routes of hosts and paths of their own, a hundred in a file, and one Service.
fn files() -> Vec<(String, String)> {
    let mut files = vec![(
        "gateway.yaml".to_owned(),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: n}\nspec: \
         {gatewayClassName: c, listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\napiVersion: v1\nkind: Service\n\
         metadata: {name: s, namespace: n}\nspec: {ports: [{port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\nmetadata: {name: s, namespace: n, labels: {kubernetes.io/service-name: s}}\n\
         addressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\nports: [{name: '', port: 8000}]\n"
            .to_owned(),
    )];
    for file in 0..ROUTES / 100 {
        let mut text = String::new();
        for number in file * 100..(file + 1) * 100 {
            let _ = write!(
                text,
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{number}, namespace: n}}\n\
                 spec: {{parentRefs: [{{name: g}}], hostnames: [h{}.example], rules: [{{matches: [{{path: {{type: PathPrefix, \
                 value: /r{number}}}}}], backendRefs: [{{name: s, port: 80}}]}}]}}\n",
                number % 1000
            );
        }
        files.push((format!("{file:03}.yaml"), text));
    }
    files
}

fn tables(listeners: &[Listener]) -> Vec<towpath_routing::Listener> {
    let Duty::Edge { routes, .. } = &listeners[0].duty else { panic!("an edge listener") };
    routes.clone()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "times are of an optimized build"]
fn ten_thousand_routes_are_in_force_in_no_time() {
    let source = Source::from_files(files());
    let options = Options::new(Role::Gateway);
    let began = Instant::now();
    let first = compile(&source, &options, None);
    let read = began.elapsed();
    assert!(!first.has_errors(), "{:?}", first.problems.first());
    let (mut compiled, mut applied) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        // Of files that did not change the typed objects are at hand.
        let began = Instant::now();
        let snapshot = compile(&source, &options, Some(&first));
        compiled.push(began.elapsed());
        let routes = tables(&snapshot.listeners);
        let began = Instant::now();
        let table = Routes::new(routes);
        applied.push(began.elapsed());
        drop(table);
    }
    let (compiled, applied) = (median(compiled), median(applied));
    println!(
        "{ROUTES} routes: read and compiled {read:?}; from typed objects {compiled:?}, table {applied:?}"
    );
    assert!(compiled + applied <= COMPILED_AND_APPLIED, "{compiled:?} and {applied:?}");
}

#[test]
fn a_route_takes_little_memory() {
    let snapshot = compile(&Source::from_files(files()), &Options::new(Role::Gateway), None);
    let routes = tables(&snapshot.listeners);
    let mut table = None;
    let held = allocation_counter::measure(|| table = Some(Routes::new(routes)));
    // The settings that the table took over are not in it: they are the snapshot's as well.
    let each = usize::try_from(held.bytes_current).unwrap() / ROUTES;
    println!("{each} bytes of the table for each route");
    assert!(each > 100, "nothing was counted");
    assert!(each <= BYTES, "{each} bytes for each route, at most {BYTES} are allowed");
    drop(table);
}
