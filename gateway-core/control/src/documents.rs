//! Which documents of a configuration file are for whom. A Secret is for callers of its own namespace; all else is for
//! everybody. Pure: text in, verdict out.

use serde::Deserialize;

/// Who may see a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every caller.
    Everyone,
    /// Callers whose id is of this namespace.
    Namespace(String),
    /// No caller: it may hold a Secret, and of which namespace cannot be told.
    Nobody,
}

/// A part of a file, from one document marker to the next, with its line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) audience: Audience,
}

impl Document {
    /// The text as a caller of `namespace` gets it. What is withheld leaves empty lines, so that the line numbers in
    /// what the caller reports stay those of the file.
    pub(crate) fn seen_from(&self, namespace: Option<&str>) -> String {
        let shown = match &self.audience {
            Audience::Everyone => true,
            Audience::Namespace(own) => namespace == Some(own),
            Audience::Nobody => false,
        };
        if shown { self.text.clone() } else { blank(&self.text) }
    }
}

/// Splits a file into its documents. Joined again, they are the file (without a byte order mark).
pub(crate) fn split(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut current = String::new();
    for line in text.split_inclusive('\n') {
        if is_marker(line) && !current.is_empty() {
            documents.push(std::mem::take(&mut current));
        }
        current.push_str(line);
    }
    documents.push(current);
    documents.into_iter().map(|text| Document { audience: audience(&text), text }).collect()
}

/// Whether a line begins or ends a document (YAML 1.2 section 9.1.2: `---` or `...` at the start of a line, then white
/// space). What follows an end is a document of its own.
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .or_else(|| line.strip_prefix("..."))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// What counts of a document here; what is well-formed is decided by whoever compiles the configuration.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Lenient {
    kind: Option<String>,
    metadata: Option<Metadata>,
    items: Option<Vec<Lenient>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    namespace: Option<String>,
}

fn audience(text: &str) -> Audience {
    // Most documents have none of these marks; they need not be parsed. An escape can spell any word.
    if !["Secret", "stringData", "PRIVATE KEY", "\\"].iter().any(|mark| text.contains(mark)) {
        return Audience::Everyone;
    }
    // To YAML a carriage return alone ends a line, so that it may hide a marker.
    let hidden = text.replace("\r\n", "\n").contains('\r');
    match serde_saphyr::from_str::<Option<Lenient>>(text) {
        _ if hidden => Audience::Nobody,
        Ok(document) => audience_of(&document.unwrap_or_default()),
        // Broken documents must reach the proxies, which report them; unless they may hold a Secret.
        Err(_) if mentions_secret(text) => Audience::Nobody,
        Err(_) => Audience::Everyone,
    }
}

fn audience_of(document: &Lenient) -> Audience {
    if document.kind.as_deref() == Some("Secret") {
        let namespace = document.metadata.as_ref().and_then(|metadata| metadata.namespace.as_deref());
        // As Kubernetes has it.
        return Audience::Namespace(namespace.unwrap_or("default").to_owned());
    }
    let items = document.items.iter().flatten().map(audience_of);
    items.fold(Audience::Everyone, |both, one| match (both, one) {
        (Audience::Everyone, other) | (other, Audience::Everyone) => other,
        (a, b) if a == b => a,
        _ => Audience::Nobody,
    })
}

/// Whether a text that cannot be parsed may hold a Secret: `kind: Secret` in any quoting, escapes, or the field that
/// only Secrets have.
fn mentions_secret(text: &str) -> bool {
    let bare: String =
        text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | ',')).collect();
    bare.contains("kind:Secret")
        || bare.contains("stringData:")
        || text.contains("PRIVATE KEY")
        || (text.contains("Secret") && text.contains(['&', '!', '*', '\\', '\r', '?']))
}

fn blank(text: &str) -> String {
    "\n".repeat(text.matches('\n').count())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Vec<Audience> {
        split(text).into_iter().map(|document| document.audience).collect()
    }

    fn namespace(name: &str) -> Audience {
        Audience::Namespace(name.to_owned())
    }

    #[test]
    fn a_secret_is_for_its_namespace_however_it_is_written() {
        for text in [
            "kind: Secret\nmetadata: {namespace: shop, name: a}\n",
            "metadata:\n  namespace: shop\nkind: \"Secret\"\nstringData: {a: b}\n",
            "{\"kind\": \"Secret\", \"metadata\": {\"namespace\": \"shop\"}}",
            "kind: &k Secret\nmetadata: {namespace: shop}\n",
            "kind: \"\\x53ecret\"\nmetadata: {namespace: shop}\n",
            "\"kin\\x64\": Secret\nmetadata: {namespace: shop}\n",
            "--- {kind: Secret, metadata: {namespace: shop}}\n",
            "# c\n...\nkind: Secret\nmetadata: {namespace: shop}\n",
            "kind: ConfigMap\n...\nkind: Secret\nmetadata: {namespace: shop}\n",
            "\u{feff}kind: Secret\nmetadata: {namespace: shop}\n",
            "\u{feff}---\nkind: Secret\nmetadata: {namespace: shop}\n",
            "kind: List\nitems:\n- kind: Secret\n  metadata: {namespace: shop}\n- kind: Service\n",
            "# a comment\r\n---\r\nkind: Secret\r\nmetadata:\r\n  namespace: shop\r\n",
        ] {
            let audiences = of(text);
            assert!(audiences.contains(&namespace("shop")), "{text}: {audiences:?}");
        }
    }

    #[test]
    fn a_secret_without_a_namespace_is_in_default() {
        assert_eq!(of("kind: Secret\nmetadata: {name: a}\n"), [namespace("default")]);
        assert_eq!(of("kind: Secret\n"), [namespace("default")]);
    }

    #[test]
    fn what_is_no_secret_is_for_everyone() {
        for text in [
            "",
            "# only a comment about a Secret\n",
            "kind: HTTPRoute\nmetadata: {namespace: shop}\n",
            "kind: Gateway\nspec: {tls: {certificateRefs: [{kind: Secret, name: a}]}}\n",
            "kind: ConfigMap\ndata: {text: \"kind: Secret\"}\n",
            "kind: HTTPRoute\n  broken: [\n",
            "kind: [Secret]\nspec: {\n",
            "- a\n- b\n",
        ] {
            assert_eq!(of(text), [Audience::Everyone], "{text}");
        }
    }

    #[test]
    fn what_may_be_a_secret_but_cannot_be_read_is_for_nobody() {
        for text in [
            "kind: Secret\nmetadata: {namespace: shop\n",
            "kind: ConfigMap\nkind: Secret\n",
            "{\"kind\": \"Secret\", \"metadata\"",
            "{\"kind\"\n:\n\"Secret\", ",
            "kind: &a Secret\nb: [\n",
            "kind: !!str Secret\nb: [\n",
            "~\r---\rkind: Secret\r",
            "# c\r...\rkind: Secret\rmetadata: {namespace: shop}\r",
            "a: b\r---\rkind: Secret\rmetadata: {namespace: shop}\r",
            "stringData: {key: value\n",
            "kind: Secret\nmetadata: [namespace]\n",
            "kind: List\nitems:\n- {kind: Secret, metadata: {namespace: a}}\n- {kind: Secret, metadata: {namespace: b}}\n",
        ] {
            assert_eq!(of(text), [Audience::Nobody], "{text}");
        }
    }

    #[test]
    fn deep_and_explosive_documents_are_survived() {
        let deep = format!("kind: Secret\nspec: {}", "[".repeat(100_000));
        let nested = format!("kind: Secret\n{}", "items: [{".repeat(50_000));
        let closed = format!("Secret: {}{}", "[".repeat(50_000), "]".repeat(50_000));
        let doubled: String =
            (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect::<Vec<_>>().concat();
        let bomb = format!("kind: Secret\na0: &a0 [x, x]\n{doubled}");
        for text in [deep, nested, bomb] {
            assert_ne!(of(&text), [Audience::Everyone]);
        }
        assert_eq!(of(&closed), [Audience::Everyone]);
    }

    #[test]
    fn line_numbers_stay_when_a_document_is_withheld() {
        let text = "kind: Service\n---\nkind: Secret\nmetadata: {namespace: shop}\n---\nkind: HTTPRoute\n";
        let seen: String = split(text).iter().map(|document| document.seen_from(Some("edge"))).collect();
        assert_eq!(seen, "kind: Service\n\n\n\n---\nkind: HTTPRoute\n");
        let own: String = split(text).iter().map(|document| document.seen_from(Some("shop"))).collect();
        assert_eq!(own, text);
    }

    proptest! {
        #[test]
        fn parts_joined_are_the_file_and_nothing_panics(text in "(---|\\.\\.\\.|\n|kind: Secret|[ -~\n\r]{0,8}){0,20}") {
            let documents = split(&text);
            let whole: String = documents.iter().map(|document| document.text.as_str()).collect();
            prop_assert_eq!(&whole, &text);
            for document in documents {
                let seen = document.seen_from(None);
                prop_assert_eq!(seen.matches('\n').count(), document.text.matches('\n').count());
            }
        }

        #[test]
        fn a_secret_among_anything_is_never_shown_to_others(
            before in "[ -~\n]{0,40}", after in "[ -~\n]{0,40}", quote in "[\"']?",
        ) {
            let text = format!(
                "{before}\n---\nkind: {quote}Secret{quote}\nmetadata: {{namespace: shop}}\nstringData: {{key: hunter2}}\n---\n{after}"
            );
            let seen: String = split(&text).iter().map(|document| document.seen_from(Some("edge"))).collect();
            prop_assert!(!seen.contains("hunter2"), "{}", seen);
        }
    }
}
