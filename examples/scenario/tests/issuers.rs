//! Sidecars whose certificates come from an Istio CA, and from agents of the Workload API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../../../mesh-mtls/issuers/tests/support/mod.rs"]
mod issuers;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use issuers::agent::{Agent, X509SvidResponse, svid};
use issuers::grpc::{Answer, framed};
use issuers::istiod::{CertificateResponse, Istiod, signed};
use support::{Running, free, get, pod, policy, service, wait_for, write};
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedSender};
use towpath_ca::Authority;

fn authority() -> Authority {
    Authority::create("cluster.local".parse().unwrap(), Duration::from_hours(240)).unwrap()
}

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// An application that only `web` may call, over mTLS alone; its sidecar and that of `web` are for the test to start.
struct Mesh {
    dir: TempDir,
    inbound: SocketAddr,
    outbound: SocketAddr,
    takes: String,
    sends: String,
    _app: Running,
}

struct Sidecar {
    admin: SocketAddr,
    _process: Running,
}

impl Mesh {
    fn new() -> Self {
        let (app, inbound, outbound) = (free(), free(), free());
        let strict = policy("PeerAuthentication", "istio-system", "mesh", "{mtls: {mode: STRICT}}");
        let only_web = "{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}";
        let resources = [
            pod("shop", "app"),
            pod("shop", "web"),
            service("shop", "app", "{name: http, port: 80, targetPort: 80}", inbound),
            strict,
            policy("AuthorizationPolicy", "shop", "who", only_web),
        ];
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        write(&dir.path().join("config"), "mesh.yaml", &resources.concat());
        let takes = format!("80={inbound}>{app}");
        let sends = format!("shop/app:80={outbound}");
        let app = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
        Self { dir, inbound, outbound, takes, sends, _app: app }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn sidecar(&self, account: &str, environment: &[(&str, &str)], identity: &[&str]) -> Sidecar {
        let (admin, config, workload) = (free(), self.path("config"), format!("shop/{account}-0"));
        let role = if account == "app" { ["--inbound", &self.takes] } else { ["--port-map", &self.sends] };
        let admin_text = admin.to_string();
        let mut args = vec!["sidecar", "--config", &config, "--workload", &workload, "--admin", &admin_text];
        args.extend(["--workers", "1", "--identity"]);
        args.extend(identity);
        args.extend(role);
        Sidecar { admin, _process: Running::start_in(environment, &args) }
    }

    /// A request gets through both sidecars, and none gets in without an identity.
    fn serves_mtls(&self) {
        wait_for("the call", || get(self.outbound, "/page").is_some_and(|answer| answer.status == 200));
        assert!(get(self.inbound, "/page").is_none(), "plaintext was answered");
    }
}

impl Sidecar {
    /// What `/ready` answers.
    fn ready(&self) -> Option<(u16, String)> {
        get(self.admin, "/ready").map(|answer| (answer.status, answer.body))
    }

    fn waits_for(&self, says: &str) {
        wait_for(says, || self.ready().is_some_and(|(status, body)| status == 503 && body.contains(says)));
    }

    fn is_ready(&self) {
        wait_for("readiness", || self.ready().is_some_and(|(status, _)| status == 200));
    }

    /// When its certificate expires, in seconds since the epoch; 0 without one.
    fn expiry(&self) -> u64 {
        let page = get(self.admin, "/metrics").unwrap().body;
        let line = page.lines().find_map(|line| line.strip_prefix("towpath_certificate_expiry_seconds "));
        line.unwrap().trim().parse().unwrap()
    }
}

fn in_seconds(life: Duration) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (since + life).as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_istio_ca_signs_for_whom_the_token_names() {
    let mesh = Mesh::new();
    let authority = authority();
    let roots = mesh.path("root-cert.pem");
    let istiod = Istiod::start(
        free(),
        Path::new(&roots),
        Arc::new(move |head, message| {
            let account = match head.headers["authorization"].as_bytes() {
                b"Bearer token-of-app" => "app",
                b"Bearer token-of-web" => "web",
                _ => return Answer::refusal("16"),
            };
            let id = id(account).parse().unwrap();
            let cert_chain = signed(&authority, message, &id, Duration::from_hours(1));
            Answer::of(framed(&CertificateResponse { cert_chain }))
        }),
    )
    .await;
    let address = format!("istio-ca={}", istiod.address);
    let start = |account: &str, token: &str| {
        write(mesh.dir.path(), account, token);
        let (token, id) = (mesh.path(account), id(account));
        mesh.sidecar(
            account,
            &[],
            &[&address, "--identity-id", &id, "--ca-roots", &roots, "--ca-token", &token],
        )
    };
    let web = start("web", "token-of-web");
    let app = start("app", "an old token");
    app.waits_for("UNAUTHENTICATED");
    assert_eq!(app.expiry(), 0);
    // The token of another workload gives another's certificate, which is none.
    write(mesh.dir.path(), "app", "token-of-web");
    app.waits_for("not for spiffe://cluster.local/ns/shop/sa/app");
    write(mesh.dir.path(), "app", "token-of-app");
    for sidecar in [&web, &app] {
        sidecar.is_ready();
        let end = in_seconds(Duration::from_hours(1));
        assert!((end - 60..=end).contains(&sidecar.expiry()), "{}", sidecar.expiry());
    }
    mesh.serves_mtls();
}

/// An agent with one stream for its one workload, and where the test pushes messages.
fn agent(socket: &str) -> (Agent, UnboundedSender<Bytes>) {
    let (pushes, bytes) = mpsc::unbounded_channel();
    let stream = Mutex::new(Some(bytes));
    let agent = Agent::start(
        Path::new(socket),
        Arc::new(move |head, _| {
            assert_eq!(head.headers["workload.spiffe.io"], "true");
            let stream = stream.lock().unwrap().take();
            stream.map_or_else(|| Answer::refusal("7"), |bytes| Answer { bytes, status: "0" })
        }),
    );
    (agent, pushes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_the_workload_api_push_certificates() {
    let mesh = Mesh::new();
    let authority = authority();
    let message = |account: &str| -> Bytes {
        framed(&X509SvidResponse { svids: vec![svid(&authority, &id(account))], ..Default::default() }).into()
    };
    let sockets = ["app.sock", "web.sock"].map(|name| mesh.path(name));
    let [(_app_agent, app_pushes), (_web_agent, web_pushes)] = [agent(&sockets[0]), agent(&sockets[1])];
    let app = mesh.sidecar("app", &[], &[&format!("workload-api=unix://{}", sockets[0])]);
    let variable = format!("unix://{}", sockets[1]);
    let web = mesh.sidecar("web", &[("SPIFFE_ENDPOINT_SOCKET", &variable)], &["workload-api"]);
    app.waits_for("asking the Workload API");
    app_pushes.send(message("app")).unwrap();
    web_pushes.send(message("web")).unwrap();
    for sidecar in [&app, &web] {
        sidecar.is_ready();
        let end = in_seconds(Authority::DEFAULT_TTL);
        assert!((end - 60..=end).contains(&sidecar.expiry()), "{}", sidecar.expiry());
    }
    mesh.serves_mtls();
    // A certificate that is pushed is in use at once, without a request being lost.
    let before = app.expiry();
    wait_for("a certificate that expires later", || {
        app_pushes.send(message("app")).unwrap();
        assert_eq!(get(mesh.outbound, "/page").unwrap().status, 200);
        app.expiry() > before
    });
    mesh.serves_mtls();
    // The agent takes it back: the stream ends, and the next one is refused.
    drop(app_pushes);
    app.waits_for("PERMISSION_DENIED");
    assert_eq!(app.expiry(), 0);
}
