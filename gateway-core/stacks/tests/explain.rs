//! What `explain` says is what the stack does: over random configurations, compiled as always, and random requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::fmt::Write as _;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tower::{ServiceExt, service_fn};
use towpath_config::{Duty, Options, Role, Source, compile};
use towpath_gateway_core::{
    Body, Connection, Context, Fault, HttpService, Live, Response, TlsFacts, TlsVersion,
};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_routing::{Listener, Normalization, Routes};
use towpath_stacks::{Entry, Parts, Side, explain, gateway};

const HOSTS: [&str; 5] = ["", "a.example", "*.example", "x.a.example", "*.a.example"];

/// A match as YAML.
fn matches() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        3 => Just("PathPrefix, value: /".to_owned()),
        3 => select(vec!["/a", "/a/", "/a/b", "/b"]).prop_map(|path| format!("PathPrefix, value: {path}")),
        2 => select(vec!["/", "/a", "/a/b"]).prop_map(|path| format!("Exact, value: {path}")),
        1 => select(vec!["/a.*", "/[ab]/b"]).prop_map(|path| format!("RegularExpression, value: '{path}'")),
    ];
    let method = prop_oneof![3 => Just(""), 1 => Just(", method: GET"), 1 => Just(", method: PUT")];
    let header = prop_oneof![3 => Just(""), 1 => Just(", headers: [{name: h, value: '1'}]")];
    let query = prop_oneof![3 => Just(""), 1 => Just(", queryParams: [{name: q, value: '1'}]")];
    (path, method, header, query).prop_map(|(path, method, header, query)| {
        format!("{{path: {{type: {path}}}{method}{header}{query}}}")
    })
}

/// Two listeners and some routes, as a directory has them.
fn configurations() -> impl Strategy<Value = String> {
    let route = (vec(select(&HOSTS[1..]), 0..3), vec(vec(matches(), 1..4), 1..4));
    (select(&HOSTS[..]), select(&HOSTS[..]), vec(route, 0..5)).prop_map(|(one, two, routes)| {
        let hostname = |name: &str| if name.is_empty() { String::new() } else { format!(", hostname: '{name}'") };
        let mut text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: n}}\nspec:\n  \
             gatewayClassName: c\n  listeners:\n    - {{name: one, port: 80, protocol: HTTP{}}}\n    - {{name: two, \
             port: 80, protocol: HTTP{}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: n}}\n\
             spec: {{ports: [{{port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: \
             {{name: s, namespace: n, labels: {{kubernetes.io/service-name: s}}}}\naddressType: IPv4\nendpoints: \
             [{{addresses: [127.0.0.1]}}]\nports: [{{name: '', port: 8000}}]\n",
            hostname(one),
            hostname(two)
        );
        for (number, (hostnames, rules)) in routes.iter().enumerate() {
            let hostnames: Vec<_> = hostnames.iter().map(|name| format!("'{name}'")).collect();
            let _ = write!(
                text,
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{number}, \
                 namespace: n}}\nspec:\n  parentRefs: [{{name: g}}]\n  hostnames: [{}]\n  rules:\n",
                hostnames.join(", ")
            );
            for matches in rules {
                let matches = matches.join(", ");
                let _ = writeln!(text, "    - {{matches: [{matches}], backendRefs: [{{name: s, port: 80}}]}}");
            }
        }
        text
    })
}

type Wanted = (&'static str, &'static str, Method, Option<&'static str>, Option<&'static str>);

fn requests() -> impl Strategy<Value = Wanted> {
    (
        select(vec!["a.example", "A.example:80", "x.a.example", "y.example", "b", "a..example"]),
        select(vec![
            "/",
            "/a",
            "/a/",
            "//a/./b",
            "/%61/b?q=1",
            "/a/../b",
            "/b/b?q=2&q=1",
            "/ab",
            "/%00",
            "/a%2fb",
        ]),
        select(vec![Method::GET, Method::PUT]),
        select(vec![None, Some("1"), Some("2")]),
        select(vec![None, None, Some("a.example"), Some("x.a.example")]),
    )
}

fn request<B>((host, target, method, header, server_name): &Wanted, body: B) -> Request<B> {
    let mut request = Request::builder().method(method).uri(*target).header("host", *host);
    if let Some(value) = header {
        request = request.header("h", *value);
    }
    let address = "127.0.0.1:80".parse().unwrap();
    let mut connection = Connection::plaintext(address, address);
    connection.tls = server_name.map(|name| TlsFacts {
        version: TlsVersion::Tls13,
        server_name: Some(name.into()),
        alpn: None,
        identity: None,
        forwarded_cert: None,
    });
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(Context::on(Arc::new(connection)));
    request
}

/// Answers with the rule that was chosen.
async fn named(mut request: towpath_gateway_core::Request) -> Result<Response, Fault> {
    let name = Context::of(request.extensions_mut()).route().map(ToString::to_string);
    let response = http::Response::builder().header("rule", name.unwrap_or_default());
    Ok(response.body(Body::empty()).unwrap())
}

fn compiled(text: &str) -> Vec<Listener> {
    let source = Source::from_files(vec![("all.yaml".to_owned(), text.to_owned())]);
    let snapshot = compile(&source, &Options::new(Role::Gateway), None);
    match snapshot.listeners.into_iter().map(|listener| listener.duty).next() {
        Some(Duty::Edge { routes, .. }) => routes,
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_explained_is_what_happens(text in configurations(), wanted in vec(requests(), 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listeners = compiled(&text);
        let entry = Entry {
            routes: Live::new(Routes::new(listeners.clone())),
            normalization: Live::new(Normalization::edge()),
            authentication: Live::default(),
            authorization: Live::default(),
            port: 80,
        };
        let parts = Parts {
            recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
            limits: Arc::new(Store::new()),
            upstream: HttpService::new(service_fn(named)),
        };
        let stack = HttpService::new(gateway(parts, entry));
        let routes = Routes::new(listeners);
        for wanted in wanted {
            let answer = runtime.block_on(stack.clone().oneshot(request(&wanted, Body::empty()))).unwrap();
            let rule = answer.headers().get("rule").map(|rule| rule.to_str().unwrap().to_owned());
            let told = match explain(Side::Edge, Normalization::edge(), &routes, request(&wanted, ())) {
                Err(fault) => (fault.status(), None),
                Ok(explained) => match explained.answer {
                    Err(fault) => (fault.status(), None),
                    Ok(explanation) => match explanation.winner {
                        Some(winner) => (StatusCode::OK, Some(winner.matched().name.to_string())),
                        None => (StatusCode::NOT_FOUND, None),
                    },
                },
            };
            prop_assert_eq!(told, (answer.status(), rule), "{:?}\n{}", wanted, text);
        }
    }
}
