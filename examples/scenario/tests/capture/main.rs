//! Transparent capture, in network namespaces: two machines, each with a workload and its sidecar, and a client that knows
//! nothing of it. Needs root, `ip` and `nft` or `iptables`; says so where they are missing, and passes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

#[allow(unreachable_pub)]
mod machines;

use machines::{Tool, Wire};
use support::{MeshDir, pod, policy, wait_for};

/// The client's machine, the server's, the addresses of its Service, which no machine has, those of the client's own Services,
/// and the networks of such.
const WEB: [&str; 2] = ["10.80.0.1", "fd80::1"];
const APP: [&str; 2] = ["10.80.0.2", "fd80::2"];
const SERVICE: [&str; 2] = ["10.96.0.10", "fd96::10"];
const OWN_SERVICE: [&str; 2] = ["10.96.0.20", "fd96::20"];
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd96::/64"];

/// The port of the application that nobody said anything of.
const UNKNOWN: u16 = 9000;
/// The one that goes past the sidecar.
const EXCLUDED: u16 = 9001;

fn resources() -> String {
    let slice = |family: &str, address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: shop, name: app-{family}, labels: \
             {{kubernetes.io/service-name: app}}}}\naddressType: {family}\nendpoints: [{{addresses: ['{address}'], targetRef: \
             {{kind: Pod, name: app-0}}}}]\nports: [{{name: http, port: 8080}}]\n"
        )
    };
    [
        pod("shop", "web"),
        pod("shop", "app"),
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: app}}\nspec:\n  clusterIP: {}\n  clusterIPs: ['{}', \
             '{}']\n  selector: {{app: app}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n",
            SERVICE[0], SERVICE[0], SERVICE[1]
        ),
        slice("IPv4", APP[0]),
        policy("PeerAuthentication", "shop", "default", "{mtls: {mode: STRICT}}"),
    ]
    .concat()
}

fn mesh(mode: &str) -> String {
    format!(
        "---\napiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{scenario: gateway-api, \
         outboundTrafficPolicy: {{mode: {mode}}}}}\n"
    )
}

fn both_ways(tool: Tool) {
    let Some(wire) = Wire::laid(tool, WEB, APP, SERVICES) else { return };
    let config = MeshDir::new(&resources());
    config.write("mesh.yaml", &mesh("ALLOW_ANY"));
    let (web, app) = (&wire.near, &wire.far);
    let _application = app.service("127.0.0.1:8080");
    let _others = [UNKNOWN, EXCLUDED].map(|port| app.service(&format!("[::]:{port}")));
    let _sidecars = [app.sidecar(&config, "shop/app"), web.sidecar(&config, "shop/web")];

    for machine in [web, app] {
        machine.capture(&["up", "--uid", "0", "--exclude-inbound-ports", &format!("22,{EXCLUDED}")]);
        // Once more is no more than once.
        machine.capture(&["up", "--uid", "0", "--exclude-inbound-ports", &format!("22,{EXCLUDED}")]);
    }
    for address in SERVICE {
        let answer = web.client_get(address, 80);
        assert!(answer.starts_with("HTTP/1.1 200"), "{address}: {answer}");
        let identity = "URI=spiffe://cluster.local/ns/shop/sa/web";
        assert!(answer.contains(identity), "{address}: the application does not know who called: {answer}");
    }
    // Who is not captured comes in plaintext, and the server's machine lets no connection pass its sidecar.
    for address in APP {
        let answer = web.sidecars_user_get(address, 8080);
        assert!(!answer.contains("200"), "{address}: {answer}");
        assert_eq!(web.client_get(address, UNKNOWN), "", "{address}: nobody said who may use this port");
        assert!(web.client_get(address, EXCLUDED).starts_with("HTTP/1.1 200"), "{address}");
    }

    // Only what is a Service, from now on; without a new socket or a new rule.
    config.write("mesh.yaml", &mesh("REGISTRY_ONLY"));
    wait_for("connections to elsewhere to be closed", || web.client_get(APP[0], EXCLUDED).is_empty());
    assert!(web.client_get(SERVICE[0], 80).starts_with("HTTP/1.1 200"));

    for machine in [web, app] {
        assert!(machine.capture(&["down"]).contains("no longer captured"));
        assert!(machine.capture(&["down"]).contains("nothing to remove"));
        assert_eq!(machine.rules(), machine.rules_before, "what was there before is there again");
    }
    let answer = web.client_get(APP[0], 8080);
    assert_eq!(answer, "", "the application listens on its own machine alone: {answer}");
}

#[test]
fn connections_are_captured_by_nftables() {
    both_ways(Tool::Nft);
}

#[test]
fn connections_are_captured_by_iptables() {
    both_ways(Tool::Iptables);
}

#[test]
fn a_change_of_services_needs_no_new_rule() {
    let Some(wire) = Wire::laid(Tool::Nft, WEB, APP, SERVICES) else { return };
    let config = MeshDir::new(&resources());
    config.write("mesh.yaml", &mesh("REGISTRY_ONLY"));
    let (web, app) = (&wire.near, &wire.far);
    let _application = app.service("127.0.0.1:8080");
    let _sidecars = [app.sidecar(&config, "shop/app"), web.sidecar(&config, "shop/web")];
    web.capture(&["up", "--uid", "0"]);
    app.capture(&["up", "--uid", "0"]);
    assert!(web.client_get(SERVICE[0], 80).starts_with("HTTP/1.1 200"));
    // A name for the same pod at another address, and a headless one.
    let more = |name: &str, address: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{clusterIP: '{address}', \
             selector: {{app: app}}, ports: [{{name: http, port: 81, targetPort: 8080}}]}}\n---\napiVersion: \
             discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: shop, name: {name}-1, labels: \
             {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nendpoints: [{{addresses: ['{}'], targetRef: \
             {{kind: Pod, name: app-0}}}}]\nports: [{{name: http, port: 8080}}]\n",
            APP[0]
        )
    };
    config.write("more.yaml", &[more("other", "10.96.0.11"), more("each", "None")].concat());
    wait_for("the new Service", || web.client_get("10.96.0.11", 81).starts_with("HTTP/1.1 200"));
    // Straight to an endpoint, by mTLS all the same.
    wait_for("the headless Service", || web.client_get(APP[0], 8080).starts_with("HTTP/1.1 200"));
    std::fs::remove_file(config.dir.path().join("config/more.yaml")).unwrap();
    wait_for("the Service to go", || web.client_get("10.96.0.11", 81).is_empty());
    assert!(web.client_get(SERVICE[0], 80).starts_with("HTTP/1.1 200"));
}

/// As root, but without the right to change rules.
const WITHOUT_RIGHTS: [&str; 2] = ["setpriv", "--bounding-set=-net_admin"];

#[test]
fn new_rules_take_the_place_of_those_of_before_at_once() {
    for tool in [Tool::Nft, Tool::Iptables] {
        let Some(wire) = Wire::laid(tool, WEB, APP, SERVICES) else { continue };
        let (web, app) = (&wire.near, &wire.far);
        let _application = app.service("[::]:8080");
        // There is no sidecar: whoever gets through was not captured.
        app.capture(&["up"]);
        let mut knocking = APP.map(|address| web.knocking(address, 8080));
        for excluded in 1..=8 {
            app.capture(&["up", "--exclude-inbound-ports", &excluded.to_string()]);
        }
        app.capture(&["up", "--outbound", "0"]);
        for (client, address) in knocking.iter_mut().zip(APP) {
            assert!(client.is_running(), "{tool:?}: a connection to {address} went past the rules");
        }
        // The application is there to be reached, and who knocks is still at it.
        app.capture(&["down"]);
        wait_for("the port to be open", || knocking.iter_mut().all(|client| !client.is_running()));
        assert_eq!(app.rules(), app.rules_before);
    }
}

#[test]
fn an_error_of_iptables_leaves_the_rules_of_before() {
    let Some(wire) = Wire::laid(Tool::Iptables, WEB, APP, SERVICES) else { return };
    let app = &wire.far;
    let broken = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/false", broken.path().join("ip6tables-restore")).unwrap();
    let path = format!("PATH={}:{}", broken.path().display(), std::env::var("PATH").unwrap());
    let up = ["up", "--tool", "iptables", "--exclude-inbound-ports", "7"];
    let failing = || app.capture_under(&["env", &path], &up).unwrap_err();

    assert!(failing().contains("`ip6tables-restore` failed"));
    assert_eq!(app.rules(), app.rules_before, "one family alone would let the other pass by");
    app.capture(&["up"]);
    let rules = app.rules();
    failing();
    assert_eq!(app.rules(), rules);
}

#[test]
fn what_cannot_be_removed_is_not_said_to_be_gone() {
    for tool in [Tool::Nft, Tool::Iptables] {
        let Some(wire) = Wire::laid(tool, WEB, APP, SERVICES) else { continue };
        let app = &wire.far;
        app.capture(&["up"]);
        let rules = app.rules();
        let down = ["down", "--tool", tool.name()];
        for args in [&down[..], &down[..1]] {
            let why = app.capture_under(&WITHOUT_RIGHTS, args).unwrap_err();
            assert!(why.contains("it needs root or CAP_NET_ADMIN"), "{args:?}: {why}");
            let why = app.capture_under(&["env", "PATH=/nonexistent"], args).unwrap_err();
            assert!(why.contains("installed"), "{args:?}: {why}");
        }
        assert_eq!(app.rules(), rules);
    }
}

#[test]
fn rules_of_one_tool_take_over_from_those_of_the_other() {
    let laid = |tool| Wire::laid(tool, WEB, APP, SERVICES);
    let (Some(_), Some(wire)) = (laid(Tool::Nft), laid(Tool::Iptables)) else { return };
    let (web, app) = (&wire.near, &wire.far);
    let _application = app.service("[::]:8080");
    let up = |tool: Tool| app.capture_under(&[], &["up", "--tool", tool.name()]).unwrap();
    up(Tool::Nft);
    let mut knocking = APP.map(|address| web.knocking(address, 8080));
    for tool in [Tool::Iptables, Tool::Nft, Tool::Iptables, Tool::Nft] {
        up(tool);
        let ours = |tool: Tool| match tool {
            Tool::Nft => app.rules_of(tool).contains("table inet towpath"),
            Tool::Iptables => app.rules_of(tool).contains("TOWPATH"),
        };
        assert!(ours(tool) && !ours(tool.other()), "{tool:?}");
    }
    for (client, address) in knocking.iter_mut().zip(APP) {
        assert!(client.is_running(), "a connection to {address} went past the rules");
    }
}

/// A Service of the client itself, with its own address as the only endpoint, by which it is called under a cluster address.
fn own_service(family: usize) -> String {
    let (kind, name) = [("IPv4", "own4"), ("IPv6", "own6")][family];
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{clusterIP: '{}', selector: {{app: \
         web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: \
         EndpointSlice\nmetadata: {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: \
         {kind}\nendpoints: [{{addresses: ['{}'], targetRef: {{kind: Pod, name: web-0}}}}]\nports: [{{name: http, port: 8080}}]\n",
        OWN_SERVICE[family], WEB[family]
    )
}

fn itself(tool: Tool) {
    let Some(wire) = Wire::laid(tool, WEB, APP, SERVICES) else { return };
    let config = MeshDir::new(&[resources(), own_service(0), own_service(1)].concat());
    config.write("mesh.yaml", &mesh("ALLOW_ANY"));
    let (web, app) = (&wire.near, &wire.far);
    let _application = web.service("[::]:8080");
    let sidecar = web.sidecar(&config, "shop/web");
    web.capture(&["up", "--uid", "0"]);
    for (own, address) in OWN_SERVICE.into_iter().zip(WEB) {
        let answer = web.client_get(own, 80);
        assert!(answer.starts_with("HTTP/1.1 200"), "{own}: {answer}");
        assert!(answer.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{own}: {answer}");
        // Of what stays on the machine only the sidecar's own is captured, and not what is for the application.
        assert!(web.client_get(address, 8080).starts_with("HTTP/1.1 200"), "{address}");
        let answer = web.sidecars_user_get(address, 8080);
        assert!(!answer.contains("200"), "{address}: {answer}");
    }
    for address in ["127.0.0.1", "::1"] {
        assert!(web.sidecars_user_get(address, 8080).starts_with("HTTP/1.1 200"), "{address}");
    }

    // An application at an address of the machine that the rules do not know of: no connection may go round.
    drop(sidecar);
    config
        .write("plain.yaml", &policy("PeerAuthentication", "shop", "default", "{mtls: {mode: PERMISSIVE}}"));
    let _sidecar = web.sidecar_before(WEB[0], &config, "shop/web");
    let answer = app.client_get(WEB[0], 8080);
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    web.capture(&["up", "--uid", "0", "--app", WEB[0]]);
    let answer = app.client_get(WEB[0], 8080);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_workload_reaches_its_own_service_by_nftables() {
    itself(Tool::Nft);
}

#[test]
fn a_workload_reaches_its_own_service_by_iptables() {
    itself(Tool::Iptables);
}
