//! Who asks: the holder of a workload certificate, or the bearer of a join token.

use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::request::Parts;
use towpath_ca::TokenKey;
use towpath_gateway_core::{Context, SpiffeId};

use crate::refusal::Refusal;

/// The id of the caller. A certificate that the TLS handshake verified counts before a token: it is the stronger
/// proof, and it must still do when the token with which the workload once began has expired.
pub(crate) fn identify(parts: &Parts, tokens: &TokenKey, now: SystemTime) -> Result<SpiffeId, Refusal> {
    let connection = Context::find(&parts.extensions).and_then(Context::connection);
    if let Some(id) = connection.and_then(|connection| connection.identity()) {
        return Ok(id.clone());
    }
    let token = bearer(parts)?;
    tokens.verify(token, now).map_err(|why| Refusal::unauthenticated(why.to_string()))
}

fn bearer(parts: &Parts) -> Result<&str, Refusal> {
    let missing =
        "give a join token (`Authorization: Bearer`, see `control-plane token`) or a client certificate";
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::unauthenticated(missing));
    };
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    // Schemes compare without regard to case (RFC 9110 section 11.1).
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(Refusal::unauthenticated(missing))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, Request, StatusCode};
    use towpath_ca::Fingerprint;
    use towpath_gateway_core::{Connection, TlsFacts, TlsVersion};

    use super::*;

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn parts(authorization: &[&str], identity: Option<SpiffeId>) -> Parts {
        let mut request = Request::new(());
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        *request.headers_mut() = headers;
        let address = "127.0.0.1:1".parse().unwrap();
        let mut connection = Connection::plaintext(address, address);
        connection.tls = Some(TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: None,
            identity,
            forwarded_cert: None,
        });
        request.extensions_mut().insert(Context::on(Arc::new(connection)));
        request.into_parts().0
    }

    #[test]
    fn a_token_or_a_certificate_names_the_caller() {
        let (tokens, now) = (TokenKey::generate().unwrap(), SystemTime::now());
        let token = tokens.mint(&id("token"), Fingerprint::of(b""), Duration::from_mins(1), now);
        let (bearer, small) = (format!("Bearer {token}"), format!("bearer  {token}"));
        for (authorization, certificate, wanted) in [
            (vec![bearer.as_str()], None, Ok("token")),
            (vec![small.as_str()], None, Ok("token")),
            (vec![], Some("certificate"), Ok("certificate")),
            (vec![bearer.as_str()], Some("certificate"), Ok("certificate")),
            (vec![], None, Err(StatusCode::UNAUTHORIZED)),
            (vec!["Basic eA=="], None, Err(StatusCode::UNAUTHORIZED)),
            (vec!["Bearer"], None, Err(StatusCode::UNAUTHORIZED)),
            (vec!["Bearer nonsense"], None, Err(StatusCode::UNAUTHORIZED)),
            (vec![bearer.as_str(), bearer.as_str()], None, Err(StatusCode::UNAUTHORIZED)),
        ] {
            let caller = identify(&parts(&authorization, certificate.map(id)), &tokens, now);
            let caller = caller.map_err(|refusal| refusal.into_response().status());
            assert_eq!(caller, wanted.map(id), "{authorization:?} {certificate:?}");
        }
    }

    #[test]
    fn an_expired_token_is_told_so() {
        let (tokens, now) = (TokenKey::generate().unwrap(), SystemTime::now());
        let token = tokens.mint(&id("a"), Fingerprint::of(b""), Duration::from_mins(1), now);
        let late = now + Duration::from_secs(90);
        let refusal = identify(&parts(&[&format!("Bearer {token}")], None), &tokens, late).unwrap_err();
        assert!(format!("{refusal:?}").contains("expired"), "{refusal:?}");
    }
}
