//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

use towpath_gateway_core::{SpiffeId, TrustDomain};

/// An id that is read is the text that was read, made of its parts, and of characters that no reader takes two ways.
pub(crate) fn spiffe_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_str(), text);
        assert!(format!("spiffe://{text}").parse::<SpiffeId>().is_ok());
    }
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    assert_eq!(id.as_str(), text);
    assert_eq!(format!("spiffe://{}", id.principal()), text);
    assert_eq!(format!("{}{}", id.trust_domain(), id.path()), id.principal());
    assert!(id.trust_domain().parse::<TrustDomain>().is_ok());
    assert!(!text.contains(['?', '#', '%', '@', ',', ';', ' ', '\r', '\n', '\\']));
    assert!(id.path().split('/').skip(1).all(|segment| !matches!(segment, "" | "." | "..")));
    if let (Some(namespace), Some(account)) = (id.namespace(), id.service_account()) {
        assert_eq!(id.path(), format!("/ns/{namespace}/sa/{account}"));
    }
}
