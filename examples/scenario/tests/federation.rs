//! Two meshes of different trust domains, whose workloads call each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::{MeshDir, Running, free, get, pod, policy, service, wait_for};

const PORT: &str = "{name: http, port: 80, targetPort: 80}";

/// The `Mesh` of a domain that trusts another by these roots; by none if there are none.
fn mesh(own: &str, foreign: &str, roots: &str) -> String {
    let map = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: istio-system, name: foreign}}\ndata:\n  ca.crt: |\n    {}\n",
        roots.replace('\n', "\n    ")
    );
    let federation = format!("[{{trustDomain: {foreign}, caCertificateRefs: [{{name: foreign}}]}}]");
    let (federation, map) =
        if roots.is_empty() { ("[]".to_owned(), String::new()) } else { (federation, map) };
    format!(
        "---\napiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{trustDomain: {own}, federation: \
         {federation}}}\n{map}"
    )
}

/// A sidecar of `domain`, once it is ready.
fn sidecar(of: &MeshDir, domain: &str, account: &str, more: &[&str]) -> Running {
    let dir = of.dir.path().join(account);
    of.identities.write_of(domain, &dir, account, &of.identities.root());
    let (identity, admin) = (dir.display().to_string(), free());
    let (workload, config, at) = (format!("{account}-0"), of.config(), admin.to_string());
    let mut args = vec!["sidecar", "--config", &config, "--workload", &workload, "--identity", &identity];
    args.extend(["--admin", &at, "--workers", "1"]);
    args.extend(more);
    let process = Running::start(&args);
    wait_for("the sidecar", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    process
}

fn status(at: SocketAddr) -> u16 {
    get(at, "/headers").map_or(0, |answer| answer.status)
}

#[test]
fn workloads_of_two_trust_domains_call_each_other_for_as_long_as_they_are_trusted() {
    let (at, application, near) = (free(), free(), free());
    let _application = Running::start(&["service", "--listen", &application.to_string()]);
    wait_for("the application", || get(application, "/").is_some());

    let partner = MeshDir::new(
        &[
            pod("shop", "app"),
            policy("PeerAuthentication", "shop", "strict", "{mtls: {mode: STRICT}}"),
            policy(
                "AuthorizationPolicy",
                "shop",
                "who",
                "{rules: [{from: [{source: {principals: [home.example/ns/shop/sa/web]}}]}]}",
            ),
        ]
        .concat(),
    );
    let foreign_pod =
        pod("shop", "app").replace("app: app,", "app: app, towpath.dev/trust-domain: partner.example,");
    let own = MeshDir::new(&[pod("shop", "web"), foreign_pod, service("shop", "app", PORT, at)].concat());
    let roots = own.identities.root();
    partner.write("mesh.yaml", &mesh("partner.example", "home.example", &roots));
    own.write("mesh.yaml", &mesh("home.example", "partner.example", &partner.identities.root()));

    let takes = format!("80={at}>{application}");
    let _server = sidecar(&partner, "partner.example", "shop/app", &["--inbound", &takes]);
    let sends = format!("shop/app:80={near}");
    let _client = sidecar(&own, "home.example", "shop/web", &["--port-map", &sends]);

    let answer = get(near, "/headers").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    for id in ["By=spiffe://partner.example/ns/shop/sa/app", "URI=spiffe://home.example/ns/shop/sa/web"] {
        assert!(answer.body.contains(id), "{}", answer.body);
    }

    // An answer is under way when the partner no longer trusts us: the connection ends, and no other is made.
    let mut stream = TcpStream::connect(near).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::spawn({
        let (config, text) = (partner.config(), mesh("partner.example", "home.example", ""));
        move || support::write(std::path::Path::new(&config), "mesh.yaml", &text)
    });
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    wait_for("new connections to be refused", || status(near) == 503);

    // Trust comes back without a restart, and goes from this side, too.
    partner.write("mesh.yaml", &mesh("partner.example", "home.example", &roots));
    wait_for("requests to be answered again", || status(near) == 200);
    own.write("mesh.yaml", &mesh("home.example", "partner.example", &roots));
    wait_for("the server not to be trusted", || status(near) == 503);
}
