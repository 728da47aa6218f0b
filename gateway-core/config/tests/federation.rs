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
