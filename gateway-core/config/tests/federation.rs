//! Foreign trust domains: which are trusted, and what is told of the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod common;

use common::{WORLD, authorities, compiled, problems, root, sidecar};

#[test]
fn what_cannot_be_trusted_is_told_and_the_rest_holds() {
    let mesh = |federation: &str| {
        format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec:\n  trustDomain: own.example\n  \
             trustDomainAliases: [old.example]\n  federation:\n  - {{trustDomain: good.example, caCertificateRefs: [{{name: good}}]}}\n  \
             - {federation}\n---\n"
        )
    };
    let maps =
        authorities("istio-system", "good", &root()) + "---\n" + &authorities("istio-system", "bad", "junk");
    for (federation, message) in [
        ("{trustDomain: own.example, caCertificateRefs: [{name: good}]}", "is a domain of the mesh itself"),
        ("{trustDomain: old.example, caCertificateRefs: [{name: good}]}", "is a domain of the mesh itself"),
        ("{trustDomain: good.example, caCertificateRefs: [{name: good}]}", "is there twice"),
        ("{trustDomain: a.example, caCertificateRefs: []}", "nobody of `a.example` is trusted"),
        ("{trustDomain: a.example, caCertificateRefs: [{name: none}]}", "istio-system/none is not there"),
        ("{trustDomain: a.example, caCertificateRefs: [{name: bad}]}", "ConfigMap istio-system/bad"),
        ("{trustDomain: a.example, caCertificateRefs: [{name: good, kind: Secret}]}", "not in a `Secret`"),
        ("{trustDomain: 'a/b', caCertificateRefs: [{name: good}]}", "a trust domain is made of"),
    ] {
        let snapshot = compiled(&[WORLD, &mesh(federation), &maps], &sidecar("shop/pages-0", ""));
        let told = problems(&snapshot);
        assert!(told.iter().any(|problem| problem.contains(message)), "{federation}: {told:?}");
        let domains: Vec<_> =
            snapshot.mesh.federation.iter().map(|bundle| bundle.domain().to_string()).collect();
        // A Mesh with what is no trust domain is refused as a whole, as it is with its own.
        let expected: &[&str] = if federation.contains("a/b") { &[] } else { &["good.example"] };
        assert_eq!(domains, expected, "{federation}");
    }
    let two = "{trustDomain: other.example, caCertificateRefs: [{name: good}, {name: none}]}";
    let snapshot = compiled(&[WORLD, &mesh(two), &maps], &sidecar("shop/pages-0", ""));
    assert_eq!(
        snapshot.mesh.federation.len(),
        2,
        "one authority of two can be read: {:?}",
        problems(&snapshot)
    );
}

#[test]
fn a_workload_of_a_domain_that_nobody_vouches_for_is_told_of() {
    let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: mesh}\nspec:\n  trustDomain: own.example\n  federation: [{trustDomain: good.example, caCertificateRefs: [{name: good}]}]\n---\n";
    let maps = authorities("istio-system", "good", &root());
    for (domain, told) in [("own.example", false), ("good.example", false), ("other.example", true)] {
        let label =
            format!("app: pages, towpath.dev/trust-domain: {domain}, security.istio.io/tlsMode: istio");
        let world = WORLD.replace("app: pages, security.istio.io/tlsMode: istio", &label);
        let options = sidecar("shop/ratings-vm", "shop/pages:9080=127.0.0.1:15101");
        let snapshot = compiled(&[&world, mesh, &maps], &options);
        let found = problems(&snapshot);
        let is_there = found.iter().any(|problem| problem.contains("which the Mesh names nowhere"));
        assert_eq!(is_there, told, "{domain}: {found:?}");
        let json = snapshot.to_json().to_string();
        assert!(json.contains(&format!("spiffe://{domain}/ns/shop/sa/pages")), "{json}");
    }
}
