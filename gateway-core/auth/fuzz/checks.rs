//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

#![allow(dead_code)] // each target uses its part

use std::time::{Duration, SystemTime};

use http::Request;
use towpath_auth::{JwtRule, KeySet, PathTemplate, Pattern, RequestAuthentications, RequestPrincipal};
use towpath_gateway_core::Live;

/// The public key of RFC 8037 appendix A.2, whose private half is in that document.
const KEYS: &str =
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// No bytes pass for a token of the issuer: none in the corpus is signed. Whatever stands in a request is read or refused.
pub(crate) fn jwt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = KeySet::parse(text);
    let rule = JwtRule::new("a/b", "https://i", Live::new(KeySet::parse(KEYS).unwrap()));
    let rules = RequestAuthentications::new(vec![rule]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for request in [
        Request::get("/").header("authorization", format!("Bearer {text}")).body(()),
        Request::get(format!("/?access_token={text}")).body(()),
    ] {
        let Ok(request) = request else { continue };
        assert!(!matches!(rules.authenticate(&mut request.into_parts().0, now), Ok(Some(_))), "{text}");
    }
}

/// Values of policies are read or refused, and what is read is looked for without harm: the first half in the second.
pub(crate) fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (value, path) = text.split_once('\n').unwrap_or((text, text));
    let _ = RequestPrincipal::new(value);
    let pattern = Pattern::new(value);
    assert!(!value.is_ascii() || pattern.matches(path) <= pattern.matches_ignoring_case(path));
    if let Ok(template) = value.parse::<PathTemplate>()
        && template.matches(path)
    {
        // RFC 3986, `pchar`.
        let of_a_path = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:@".contains(c);
        assert!(path.starts_with('/') && path.chars().all(of_a_path), "{value} {path}");
    }
}
