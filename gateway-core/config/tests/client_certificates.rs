//! Certificates of clients: what listeners ask for, and what a Gateway shows to backends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, authorities, certificate, compiled, condition, gateway, problems, root, route, status};
use serde_json::Value;
use towpath_config::{ClientValidation, ClientValidationMode, Duty, Options, PortMap, Snapshot, StreamTls};
use towpath_gateway_core::{TlsServer, Transport};

/// A Gateway `g` in namespace `edge` with these settings of TLS and these listeners.
fn asking(tls: &str, listeners: &[(&str, u16, &str)]) -> String {
    let listener = |(name, port, protocol): &(&str, u16, &str)| {
        let tls = if *protocol == "HTTP" { "" } else { ", tls: {certificateRefs: [{name: s}]}" };
        format!("    - {{name: {name}, port: {port}, protocol: {protocol}{tls}}}\n")
    };
    let listeners: Vec<_> = listeners.iter().map(listener).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: edge}}\nspec:\n  \
         gatewayClassName: towpath\n  tls: {tls}\n  listeners:\n{}",
        listeners.concat()
    )
}

fn one(name: &str) -> String {
    format!("{{group: '', kind: ConfigMap, name: {name}}}")
}

fn default(references: &str) -> String {
    format!("{{frontend: {{default: {{validation: {{caCertificateRefs: [{references}]}}}}}}}}")
}

/// What the socket at this port asks for.
fn asks(snapshot: &Snapshot, port: u16) -> Option<ClientValidation> {
    let listener = snapshot.listeners.iter().find(|listener| listener.address.port() == port).unwrap();
    let tls = match &listener.duty {
        Duty::Edge { tls, .. } => tls.as_ref(),
        Duty::Stream { tls: StreamTls::Terminate(tls), .. } => Some(tls),
        other => panic!("{other:?}"),
    };
    tls.and_then(|tls| tls.clients.as_ref()).map(|clients| (**clients).clone())
}

/// Accepted, Programmed and `ResolvedRefs` of a listener.
fn listener(snapshot: &Snapshot, name: &str) -> [String; 3] {
    let status = status(snapshot, "Gateway", "g");
    let found = status["listeners"].as_array().unwrap().iter().find(|listener| listener["name"] == name);
    let conditions = &found.unwrap()["conditions"];
    ["Accepted", "Programmed", "ResolvedRefs"].map(|kind| condition(conditions, kind))
}

#[test]
fn a_port_has_its_own_demands_or_those_of_the_gateway() {
    let tls = format!(
        "{{frontend: {{default: {{validation: {{caCertificateRefs: [{}]}}}}, perPort: [\
         {{port: 8443, tls: {{validation: {{mode: AllowInsecureFallback, caCertificateRefs: [{}]}}}}}}, \
         {{port: 9443, tls: {{}}}}]}}}}",
        one("ca"),
        one("two")
    );
    let listeners = [
        ("https", 443, "HTTPS"),
        ("own", 8443, "HTTPS"),
        ("open", 9443, "HTTPS"),
        ("tls", 7443, "TLS"),
        ("http", 80, "HTTP"),
    ];
    let both = format!("{}{}", root(), root());
    let texts = [
        asking(&tls, &listeners),
        certificate("edge", "s"),
        authorities("edge", "ca", &root()),
        authorities("edge", "two", &both),
    ];
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let snapshot = compiled(&texts, &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    let of = |port| asks(&snapshot, port).map(|asked| (asked.mode, asked.roots.len()));
    assert_eq!(of(443), Some((ClientValidationMode::AllowValidOnly, 1)));
    assert_eq!(of(8443), Some((ClientValidationMode::AllowInsecureFallback, 2)));
    // An entry for a port takes the place of the default, also where it asks for nothing.
    assert_eq!(of(9443), None);
    // TLS that ends here is no less closed than HTTPS.
    assert_eq!(of(7443), Some((ClientValidationMode::AllowValidOnly, 1)));
    assert_eq!(of(80), None);
    let conditions = &status(&snapshot, "Gateway", "g")["conditions"];
    assert_eq!(condition(conditions, "InsecureFrontendValidationMode"), "True/ConfigurationChanged");
    let json = snapshot.to_json();
    let socket = json["listeners"].as_array().unwrap().iter().find(|l| l["address"] == "0.0.0.0:8443");
    assert_eq!(socket.unwrap()["clientValidation"]["mode"], "AllowInsecureFallback");
}

#[test]
fn whoever_cannot_ask_for_what_it_has_to_stays_shut() {
    let (secret, ca) = (certificate("edge", "s"), authorities("edge", "ca", &root()));
    let elsewhere = authorities("far", "ca", &root());
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
                 metadata: {name: g, namespace: far}\n\
                 spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}], \
                 to: [{group: '', kind: ConfigMap}]}\n";
    let far = "{group: '', kind: ConfigMap, name: ca, namespace: far}";
    let shut = |reason: &str| ["False/NoValidCACertificate", "False/Invalid", reason].map(str::to_owned);
    let open = |reason: &str| ["True/Accepted", "True/Programmed", reason].map(str::to_owned);
    for (references, texts, expected) in [
        (one("none"), vec![], shut("False/InvalidCACertificateRef")),
        (one("bad"), vec![authorities("edge", "bad", "nonsense")], shut("False/InvalidCACertificateRef")),
        ("{group: '', kind: Service, name: ca}".into(), vec![], shut("False/InvalidCACertificateKind")),
        (
            "{group: x.example, kind: ConfigMap, name: ca}".into(),
            vec![],
            shut("False/InvalidCACertificateKind"),
        ),
        (far.into(), vec![elsewhere.clone()], shut("False/RefNotPermitted")),
        (far.into(), vec![elsewhere.clone(), grant.into()], open("True/ResolvedRefs")),
        // One of several that leads nowhere is reported, and the others hold.
        (format!("{}, {}", one("none"), one("ca")), vec![], open("False/InvalidCACertificateRef")),
    ] {
        let gateway_text = asking(&default(&references), &[("https", 443, "HTTPS"), ("http", 80, "HTTP")]);
        let mut all = vec![gateway_text.as_str(), &secret, &ca];
        all.extend(texts.iter().map(String::as_str));
        let snapshot = compiled(&all, &gateway());
        assert_eq!(listener(&snapshot, "https"), expected, "{references}");
        assert_eq!(listener(&snapshot, "http"), open("True/ResolvedRefs"), "{references}");
        let is_open = snapshot.listeners.iter().any(|listener| listener.address.port() == 443);
        assert_eq!(is_open, expected[0] == "True/Accepted", "{references}");
        assert_eq!(snapshot.has_errors(), expected[2] != "True/ResolvedRefs", "{:?}", problems(&snapshot));
        let conditions = &status(&snapshot, "Gateway", "g")["conditions"];
        assert_eq!(condition(conditions, "InsecureFrontendValidationMode"), "");
    }
}

#[test]
fn what_cannot_be_right_refuses_the_gateway() {
    let validation = |references: &str| format!("validation: {{caCertificateRefs: [{references}]}}");
    let many: Vec<_> = (0..9).map(|n| one(&format!("ca{n}"))).collect();
    for (tls, message) in [
        (default(""), "there are 0 caCertificateRefs, and 1 to 8 are allowed"),
        (default(&many.join(", ")), "there are 9 caCertificateRefs"),
        (
            format!(
                "{{frontend: {{perPort: [{{port: 1, tls: {{{0}}}}}, {{port: 1, tls: {{{0}}}}}]}}}}",
                validation(&one("ca"))
            ),
            "port 1 is in `perPort` twice",
        ),
        ("{frontend: {default: {validation: {mode: Never, caCertificateRefs: []}}}}".into(), "Never"),
        ("{frontend: {defalt: {}}}".into(), "unknown field `defalt`"),
    ] {
        let snapshot = compiled(&[&asking(&tls, &[("http", 80, "HTTP")])], &gateway());
        let said = problems(&snapshot);
        assert!(said.iter().any(|problem| problem.contains(message)), "{said:?}");
        assert!(snapshot.listeners.is_empty());
    }
}

#[test]
fn gateways_that_ask_for_different_things_do_not_share_a_socket() {
    let asks_nothing = asking("{}", &[("https", 443, "HTTPS")]).replace("name: g,", "name: h,");
    let asking = asking(&default(&one("ca")), &[("https", 443, "HTTPS")]);
    let (secret, ca) = (certificate("edge", "s"), authorities("edge", "ca", &root()));
    let map: PortMap = "edge/g:443=127.0.0.1:9000,edge/h:443=127.0.0.1:9000".parse().unwrap();
    let options = Options { port_map: Some(map), ..gateway() };
    let snapshot = compiled(&[&asking, &asks_nothing, &secret, &ca], &options);
    assert_eq!(snapshot.listeners.len(), 1);
    assert!(asks(&snapshot, 9000).is_some());
    let conditions = &status(&snapshot, "Gateway", "h")["listeners"][0]["conditions"];
    assert_eq!(condition(conditions, "Accepted"), "False/PortUnavailable");
    assert_eq!(condition(conditions, "Programmed"), "False/Invalid");
    assert_eq!(listener(&snapshot, "https")[1], "True/Programmed");
    let gateways = ["g", "h"].map(|name| status(&snapshot, "Gateway", name)["conditions"].clone());
    assert_eq!(
        gateways.each_ref().map(|c| condition(c, "Accepted")),
        ["True/Accepted", "False/ListenersNotValid"]
    );
    assert_eq!(gateways.each_ref().map(|c| condition(c, "Programmed")), ["True/Programmed", "False/Invalid"]);
    let said = problems(&snapshot);
    assert!(
        said[0].contains("other demands on certificates of clients: `edge/h/https` has no socket"),
        "{said:?}"
    );
}

/// The server of the first backend of the route on the Gateway of this name.
fn server(snapshot: &Snapshot, gateway: &str) -> TlsServer {
    let found = snapshot.listeners.iter().find(|listener| listener.name.contains(gateway)).unwrap();
    let Duty::Edge { routes, .. } = &found.duty else { panic!("an edge listener") };
    let backend = &routes[0].routes[0].rules[0].backends[0].backend;
    match &backend.endpoints().unwrap()[0].transport {
        Transport::Tls { server } => TlsServer::clone(server),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_shows_its_certificate_to_backends_and_no_other_does() {
    let shows = "{backend: {clientCertificateRef: {group: '', kind: Secret, name: s}}}";
    let shows = asking(shows, &[("http", 8080, "HTTP")]);
    let shows = shows.replace("protocol: HTTP}", "protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}");
    let both = route("web", "[{backendRefs: [{name: plain, port: 80}]}]").replace(
        "[{name: gw, namespace: edge}]",
        "[{name: gw, namespace: edge}, {name: g, namespace: edge}]",
    );
    let policy = "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
                  metadata: {name: p, namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: plain}], \
                  validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], hostname: plain.example}}\n";
    let (ca, secret) = (authorities("shop", "ca", &root()), certificate("edge", "s"));
    let snapshot = compiled(&[WORLD, &shows, &both, policy, &ca, &secret], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    assert!(server(&snapshot, "edge/gw").client().is_none());
    assert_eq!(server(&snapshot, "edge/g:").client().unwrap().chain.len(), 1);
    let resolved =
        |snapshot: &Snapshot| condition(&status(snapshot, "Gateway", "g")["conditions"], "ResolvedRefs");
    assert_eq!(resolved(&snapshot), "True/ResolvedRefs");

    // While the Secret is broken, what was read before is shown.
    let broken = common::secret("edge", "s", "nonsense", "nonsense");
    let texts: [&str; 6] = [WORLD, &shows, &both, policy, &ca, &broken];
    let after = towpath_config::compile(&common::source(&texts), &gateway(), Some(&snapshot));
    assert_eq!(resolved(&after), "False/InvalidClientCertificateRef");
    assert!(server(&after, "edge/g:").client().is_some());
}

#[test]
fn a_certificate_for_backends_that_leads_nowhere_is_said_at_the_gateway() {
    let far = certificate("far", "s");
    let other =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: edge}\ntype: Opaque\ndata: {}\n";
    for (reference, texts, reason) in [
        ("{group: '', kind: Secret, name: none}", vec![], "InvalidClientCertificateRef"),
        ("{group: x.example, kind: Secret, name: s}", vec![], "InvalidClientCertificateRef"),
        ("{group: '', kind: Other, name: s}", vec![], "InvalidClientCertificateRef"),
        ("{group: '', kind: Secret, name: s}", vec![other], "InvalidClientCertificateRef"),
        ("{group: '', kind: Secret, name: s, namespace: far}", vec![far.as_str()], "RefNotPermitted"),
    ] {
        let tls = format!("{{backend: {{clientCertificateRef: {reference}}}}}");
        let text = asking(&tls, &[("http", 80, "HTTP")]);
        let mut all = vec![text.as_str()];
        all.extend(texts);
        let snapshot = compiled(&all, &gateway());
        let conditions: &Value = &status(&snapshot, "Gateway", "g")["conditions"];
        assert_eq!(condition(conditions, "Accepted"), "True/Accepted", "{reference}");
        assert_eq!(condition(conditions, "ResolvedRefs"), format!("False/{reason}"), "{reference}");
        assert!(problems(&snapshot)[0].contains("`tls.backend`"), "{:?}", problems(&snapshot));
        assert_eq!(snapshot.listeners.len(), 1);
    }
}
