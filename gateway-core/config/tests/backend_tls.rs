//! `BackendTLSPolicy`: which Services are spoken to by TLS, what is refused, and that nothing goes out in plaintext instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;

use common::{
    WORLD, compiled, condition, endpoints, gateway, in_scenario, problems, root, route, rule, status,
};
use towpath_config::{Duty, Options, Scenario, Snapshot};
use towpath_gateway_core::{TlsServer, TlsSubject, Transport};

fn authorities(name: &str, text: &str) -> String {
    common::authorities("shop", name, text)
}

fn policy(name: &str, target: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, {target}}}], validation: {{{validation}}}}}\n"
    )
}

const CA: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], hostname: plain.example";

fn verdict(snapshot: &Snapshot, name: &str) -> (String, String) {
    let conditions = &status(snapshot, "BackendTLSPolicy", name)["ancestors"][0]["conditions"];
    (condition(conditions, "Accepted"), condition(conditions, "ResolvedRefs"))
}

fn plain() -> String {
    route("web", "[{backendRefs: [{name: plain, port: 80}]}]")
}

fn server(snapshot: &Snapshot) -> Option<TlsServer> {
    let Duty::Edge { routes, .. } = &snapshot.listeners[0].duty else { panic!("an edge listener") };
    let backend = &routes[0].routes[0].rules[0].backends[0].backend;
    match &backend.endpoints()?.first()?.transport {
        Transport::Tls { server } => Some((**server).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_with_a_policy_is_spoken_to_by_tls_also_where_it_is_in_the_mesh() {
    let ca = authorities("ca", &root());
    let names = format!(
        "{CA}, subjectAltNames: [{{type: Hostname, hostname: a.example}}, {{type: URI, uri: 'spiffe://x/y'}}]"
    );
    let snapshot = compiled(&[WORLD, &ca, &plain(), &policy("p", "name: plain", &names)], &gateway());
    assert_eq!(problems(&snapshot), Vec::<String>::new());
    assert_eq!(endpoints(&rule(&snapshot, "shop/web#0")), ["10.0.2.1:8000 tls - "]);
    let server = server(&snapshot).unwrap();
    assert_eq!((&**server.name(), server.roots().len()), ("plain.example", 1));
    assert_eq!(
        server.subjects(),
        [TlsSubject::Dns("a.example".into()), TlsSubject::Uri("spiffe://x/y".into())]
    );
    assert!(snapshot.plaintext_hops.is_empty());
    assert_eq!(verdict(&snapshot, "p"), ("True/Accepted".into(), "True/ResolvedRefs".into()));

    let pages = route("web", "[{backendRefs: [{name: pages, port: 9080}]}]");
    let snapshot = compiled(&[WORLD, &ca, &pages, &policy("p", "name: pages", CA)], &gateway());
    assert_eq!(endpoints(&rule(&snapshot, "shop/web#0")), ["10.0.0.1:15006 tls - east"]);
}

#[test]
fn what_cannot_be_proved_is_not_spoken_to_at_all() {
    let (ca, none) = (authorities("ca", &root()), authorities("none", "no certificate"));
    let one = |reference: &str| format!("caCertificateRefs: [{reference}], hostname: plain.example");
    for (validation, reason) in [
        (one("{group: '', kind: ConfigMap, name: missing}"), "InvalidCACertificateRef"),
        (one("{group: '', kind: ConfigMap, name: none}"), "InvalidCACertificateRef"),
        (one("{group: x.example, kind: Authority, name: ca}"), "InvalidKind"),
    ] {
        let snapshot =
            compiled(&[WORLD, &ca, &none, &plain(), &policy("p", "name: plain", &validation)], &gateway());
        assert_eq!(
            verdict(&snapshot, "p"),
            ("False/NoValidCACertificate".into(), format!("False/{reason}")),
            "{validation}"
        );
        assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false, "{validation}");
        // The route itself has nothing wrong with it.
        let conditions = &status(&snapshot, "HTTPRoute", "web")["parents"][0]["conditions"];
        assert_eq!(condition(conditions, "ResolvedRefs"), "True/ResolvedRefs");
    }
    // A policy that cannot be read is for somebody all the same.
    for broken in [policy("p", "name: plain", "hostname: '*.example'"), policy("p", "nam: plain", CA)] {
        let snapshot = compiled(&[WORLD, &ca, &plain(), &broken], &gateway());
        assert!(snapshot.has_errors());
        assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false, "{broken}");
    }
}

#[test]
fn one_authority_that_cannot_be_read_does_not_take_the_others_down() {
    let ca = authorities("ca", &root());
    let both = "caCertificateRefs: [{group: '', kind: ConfigMap, name: none}, {group: '', kind: ConfigMap, name: ca}], \
                hostname: plain.example";
    let snapshot = compiled(&[WORLD, &ca, &plain(), &policy("p", "name: plain", both)], &gateway());
    assert_eq!(verdict(&snapshot, "p"), ("True/Accepted".into(), "False/InvalidCACertificateRef".into()));
    assert_eq!(server(&snapshot).unwrap().roots().len(), 1);
    assert!(problems(&snapshot)[0].contains("shop/none is not there"), "{:?}", problems(&snapshot));
}

#[test]
fn the_authorities_of_the_system_are_read_where_there_are_any() {
    fn one() -> Vec<Arc<[u8]>> {
        let pem = root();
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes());
        let der: rustls_pki_types::CertificateDer<'_> = der.unwrap();
        // What a system has besides is of no use, and does no harm.
        vec![der.as_ref().into(), Arc::from(*b"nonsense")]
    }
    let system = "wellKnownCACertificates: System, hostname: plain.example";
    let with = |read| Options { system_authorities: read, ..gateway() };
    let policy = |validation: &str| policy("p", "name: plain", validation);
    let snapshot = compiled(&[WORLD, &plain(), &policy(system)], &with(Some(one)));
    assert_eq!(verdict(&snapshot, "p"), ("True/Accepted".into(), "True/ResolvedRefs".into()));
    assert_eq!(server(&snapshot).unwrap().roots().len(), 1);
    for (validation, read, verdicts) in [
        (system.to_owned(), None, ("False/Invalid", "True/ResolvedRefs")),
        (system.replace("System", "Other"), Some(one as fn() -> _), ("False/Invalid", "True/ResolvedRefs")),
        (
            system.to_owned(),
            Some(Vec::new as fn() -> _),
            ("False/NoValidCACertificate", "False/InvalidCACertificateRef"),
        ),
    ] {
        let snapshot = compiled(&[WORLD, &plain(), &policy(&validation)], &with(read));
        assert_eq!(verdict(&snapshot, "p"), (verdicts.0.into(), verdicts.1.into()), "{validation}");
        assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false, "{validation}");
        assert_eq!(problems(&snapshot).len(), 1, "{:?}", problems(&snapshot));
    }
}

#[test]
fn a_policy_for_a_port_that_is_not_there_says_so() {
    let ca = authorities("ca", &root());
    let snapshot =
        compiled(&[WORLD, &ca, &plain(), &policy("p", "name: plain, sectionName: https", CA)], &gateway());
    assert_eq!(verdict(&snapshot, "p"), ("False/TargetNotFound".into(), "True/ResolvedRefs".into()));
    let said = problems(&snapshot);
    assert!(said[0].contains("Service shop/plain has no port named `https`"), "{said:?}");
}

#[test]
fn of_two_policies_for_one_thing_the_older_holds() {
    let ca = authorities("ca", &root());
    let named = |name: &str| CA.replace("plain.example", name);
    let older = policy("b", "name: plain", &named("older.example"))
        .replace("namespace: shop}", "namespace: shop, creationTimestamp: '2020-01-01T00:00:00Z'}");
    let newer = policy("a", "name: plain", &named("newer.example"));
    let snapshot = compiled(&[WORLD, &ca, &plain(), &older, &newer], &gateway());
    assert_eq!(verdict(&snapshot, "a").0, "False/Conflicted");
    assert_eq!(verdict(&snapshot, "b").0, "True/Accepted");
    assert_eq!(&**server(&snapshot).unwrap().name(), "older.example");

    // One for a port stands beside one for the Service, and comes before it.
    let world = WORLD.replace("spec: {ports: [{port: 80}]}", "spec: {ports: [{name: web, port: 80}]}");
    let port = policy("a", "name: plain, sectionName: web", &named("port.example"));
    let snapshot = compiled(&[&world, &ca, &plain(), &older, &port], &gateway());
    assert_eq!(verdict(&snapshot, "a").0, "True/Accepted");
    assert_eq!(&**server(&snapshot).unwrap().name(), "port.example");
}

#[test]
fn over_an_attached_sidecar_it_is_refused_rather_than_dropped() {
    let ca = authorities("ca", &root());
    let options = in_scenario(Scenario::Attached, gateway());
    let snapshot = compiled(&[WORLD, &ca, &plain(), &policy("p", "name: plain", CA)], &options);
    assert_eq!(rule(&snapshot, "shop/web#0")["backends"][0]["resolved"], false);
    assert!(problems(&snapshot).iter().any(|problem| problem.contains("does not carry it out")));
}
