use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Signs what tokens say.
type Signer = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// An algorithm, a key, and who signs with it.
struct Made {
    algorithm: &'static str,
    key: Value,
    sign: Signer,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ec() -> Made {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref().to_vec();
    let key = json!({"kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..])});
    let sign = move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    Made { algorithm: "ES256", key, sign: Box::new(sign) }
}

fn ed25519() -> Made {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key())});
    Made { algorithm: "EdDSA", key, sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()) }
}

fn rsa(algorithm: &'static str) -> Made {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // SEQUENCE, INTEGER with a nought in front, then e = 65537 (RFC 8017 appendix A.1.1).
    let n = pair.public_key().as_ref()[9..265].to_vec();
    let key = json!({"kty": "RSA", "n": base64(n), "e": "AQAB"});
    let sign = move |message: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        let padding: &'static dyn aws_lc_rs::signature::RsaEncoding =
            if algorithm == "RS256" { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
        pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    };
    Made { algorithm, key, sign: Box::new(sign) }
}

fn oct(secret: &'static [u8]) -> Made {
    let key = json!({"kty": "oct", "k": base64(secret)});
    let sign = move |message: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
    };
    Made { algorithm: "HS256", key, sign: Box::new(sign) }
}

impl Made {
    fn token(&self, header: Value, claims: &Value) -> String {
        let mut header = header;
        header.as_object_mut().unwrap().entry("alg").or_insert(self.algorithm.into());
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        format!("{message}.{}", base64((self.sign)(message.as_bytes())))
    }

    fn keys(&self, more: Value) -> Live<KeySet> {
        let mut key = self.key.clone();
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Live::new(KeySet::parse(&json!({"keys": [key]}).to_string()).unwrap())
    }
}

const NOW: u64 = 1_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn rule(keys: Live<KeySet>) -> JwtRule {
    JwtRule::new("shop/tokens", "https://i", keys)
}

fn bearer(token: &str) -> Parts {
    Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap().into_parts().0
}

fn judged(rule: &JwtRule, parts: &mut Parts) -> Result<Option<Token>, TokenRefusal> {
    let rules = RequestAuthentications::new(vec![rule.clone()]);
    rules.authenticate(parts, now()).map_err(|refused| refused.refusal)
}

fn outcome(rule: &JwtRule, token: &str) -> Result<(), TokenRefusal> {
    judged(rule, &mut bearer(token)).map(|token| assert!(token.is_some()))
}

#[test]
fn every_kind_of_key_signs_and_no_other_is_taken_for_it() {
    let claims = json!({"iss": "https://i", "sub": "a"});
    let made = [ec(), ed25519(), rsa("RS256"), rsa("PS256"), oct(&[7; 32])];
    for (at, one) in made.iter().enumerate() {
        let token = one.token(json!({}), &claims);
        for (other_at, other) in made.iter().enumerate() {
            let expected = if at == other_at { Ok(()) } else { Err(TokenRefusal::Signature) };
            assert_eq!(outcome(&rule(other.keys(json!({}))), &token), expected, "{}", other.algorithm);
        }
        for (key, taken) in [
            (json!({"alg": one.algorithm}), true),
            (json!({"alg": "ES384"}), false),
            (json!({"kid": "k"}), true),
            (json!({"use": "sig", "key_ops": ["sign", "verify"]}), true),
        ] {
            let expected = if taken { Ok(()) } else { Err(TokenRefusal::Signature) };
            assert_eq!(outcome(&rule(one.keys(key.clone())), &token), expected, "{} {key}", one.algorithm);
        }
    }
}

#[test]
fn the_public_key_is_no_secret_of_hmac() {
    let public = rsa("RS256");
    let text = public.key.to_string();
    for secret in [text.as_bytes(), public.key["n"].as_str().unwrap().as_bytes()] {
        let header = base64(json!({"alg": "HS256"}).to_string());
        let message = format!("{header}.{}", base64(json!({"iss": "https://i"}).to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", base64(tag));
        assert_eq!(outcome(&rule(public.keys(json!({}))), &token), Err(TokenRefusal::Signature));
    }
}

#[test]
fn a_named_key_is_the_one_that_counts() {
    let (one, other) = (ec(), ec());
    let claims = json!({"iss": "https://i"});
    let token = one.token(json!({"kid": "1"}), &claims);
    assert_eq!(outcome(&rule(one.keys(json!({"kid": "1"}))), &token), Ok(()));
    assert_eq!(outcome(&rule(one.keys(json!({"kid": "2"}))), &token), Err(TokenRefusal::Signature));
    assert_eq!(outcome(&rule(other.keys(json!({"kid": "1"}))), &token), Err(TokenRefusal::Signature));
    let keys = json!({"keys": [other.key, one.key]}).to_string();
    let several = rule(Live::new(KeySet::parse(&keys).unwrap()));
    assert_eq!(outcome(&several, &one.token(json!({}), &claims)), Ok(()));
}

#[tokio::test]
async fn a_key_that_is_not_there_is_asked_for_once_a_token_names_it() {
    use futures_util::FutureExt;
    let made = ec();
    let missed = Changes::new();
    let rule = JwtRule { missed: Some(missed.clone()), ..rule(made.keys(json!({"kid": "1"}))) };
    for (kid, claims, asked) in [
        (json!({"kid": "1"}), json!({"iss": "https://i"}), false),
        (json!({}), json!({"iss": "https://i"}), false),
        (json!({"kid": "2"}), json!({"iss": "https://i"}), true),
        (json!({"kid": "2"}), json!({"iss": "https://other"}), false),
    ] {
        let next = missed.next();
        let _ = outcome(&rule, &made.token(kid.clone(), &claims));
        assert_eq!(next.now_or_never().is_some(), asked, "{kid} {claims}");
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told() {
    use TokenRefusal::{Audience, Critical, Expired, Malformed, NotYetValid, Signature, UnknownIssuer};
    let made = ec();
    let mut for_a = rule(made.keys(json!({})));
    for_a.audiences = vec!["a".into(), "https://b.example".into()];
    let with = |more: Value| {
        let mut claims = json!({"iss": "https://i", "aud": "a"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        made.token(json!({}), &claims)
    };
    for (claims, expected) in [
        (json!({}), Ok(())),
        (json!({"exp": NOW - 59}), Ok(())),
        (json!({"exp": NOW - 61}), Err(Expired)),
        (json!({"exp": 1e300}), Ok(())),
        (json!({"exp": -1}), Err(Malformed)),
        (json!({"exp": "soon"}), Err(Malformed)),
        (json!({"nbf": NOW + 59}), Ok(())),
        (json!({"nbf": 1_000_061.5}), Err(NotYetValid)),
        (json!({"iss": "https://other"}), Err(UnknownIssuer)),
        (json!({"iss": 1}), Err(Malformed)),
        (json!({"sub": 1}), Err(Malformed)),
        (json!({"jti": null}), Err(Malformed)),
        (json!({"iat": "x"}), Err(Malformed)),
        (json!({"iat": 1.5}), Ok(())),
        (json!({"aud": ["x", "a"]}), Ok(())),
        (json!({"aud": "http://b.example/"}), Ok(())),
        (json!({"aud": "x"}), Err(Audience)),
        (json!({"aud": []}), Err(Audience)),
        (json!({"aud": null}), Err(Malformed)),
        (json!({"aud": 1}), Err(Malformed)),
        (json!({"aud": ["a", 1]}), Err(Malformed)),
    ] {
        assert_eq!(outcome(&for_a, &with(claims.clone())), expected, "{claims}");
    }
    let good = with(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let claims = base64(r#"{"iss":"https://i","aud":"a","aud":"x"}"#);
    for (token, expected) in [
        ("x".to_owned(), Malformed),
        (format!("{good}.x"), Malformed),
        (format!("{}.{}", parts[0], parts[1]), Malformed),
        (format!("{}.{}.", parts[0], parts[1]), Signature),
        (format!("{}.{claims}.{}", parts[0], parts[2]), Malformed),
        (format!("{}.{}.{}", base64(r#"{"alg":"none"}"#), parts[1], parts[2]), Malformed),
        (format!("{}.{}.", base64(r#"{"alg":"none"}"#), parts[1]), Malformed),
        (format!("{}.{}.{}", base64(r#"{"alg":"es256"}"#), parts[1], parts[2]), Malformed),
        (format!("{}.{}.{}", base64(r#"{"alg":"ES256","kid":1}"#), parts[1], parts[2]), Malformed),
        (format!("{}.{}.{}", base64(r#"{"alg":"RS256"}"#), parts[1], parts[2]), Signature),
        (format!("{}.{}.{}", base64(r#"{"alg":"ES256","alg":"none"}"#), parts[1], parts[2]), Malformed),
        (made.token(json!({"crit": ["exp"], "exp": 1}), &json!({"iss": "https://i", "aud": "a"})), Critical),
        // All bits of an ES256 signature are nought: r and s of 0 prove nothing (CVE-2022-21449).
        (format!("{}.{}.{}", parts[0], parts[1], base64([0; 64])), Signature),
        ("x".repeat(40_000), Malformed),
    ] {
        assert_eq!(outcome(&for_a, &token), Err(expected), "{token}");
    }
}

#[test]
fn tokens_stand_where_rules_look() {
    let made = ec();
    let token = made.token(json!({}), &json!({"iss": "https://i", "sub": "a"}));
    let header = |name: &'static str, prefix: &str| TokenLocation::Header {
        name: HeaderName::from_static(name),
        prefix: prefix.into(),
    };
    let request = |uri: &str, header: Option<(&str, String)>| {
        let mut request = Request::get(uri);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    };
    let query = format!("/?a=1&access_token={token}&b=%20");
    for (locations, mut parts, taken, left) in [
        (TokenLocation::defaults(), request("/", None), false, None),
        (
            TokenLocation::defaults(),
            request("/", Some(("authorization", format!("bearer {token}")))),
            false,
            None,
        ),
        (
            TokenLocation::defaults(),
            request("/", Some(("authorization", format!("Basic YTpi, Bearer {token}")))),
            true,
            None,
        ),
        (TokenLocation::defaults(), request(&query, None), true, Some("/?a=1&b=%20")),
        (TokenLocation::defaults(), request("/", Some(("authorization", "Basic YTpi".into()))), false, None),
        (
            vec![header("x-jwt", "Token ")],
            request("/", Some(("x-jwt", format!("Token {token}")))),
            true,
            None,
        ),
        (
            vec![header("x-jwt", "Token ")],
            request("/", Some(("x-jwt", format!("token {token}")))),
            false,
            None,
        ),
        (vec![header("x-jwt", "")], request("/", Some(("x-jwt", token.clone()))), true, None),
        (vec![TokenLocation::Param("t".into())], request(&query, None), false, Some(&*query)),
        (
            vec![TokenLocation::Cookie("session".into())],
            request("/", Some(("cookie", format!("a=b; session={token}; c=d")))),
            true,
            None,
        ),
    ] {
        let rule = JwtRule { locations: locations.clone(), ..rule(made.keys(json!({}))) };
        let before = format!("{:?}", parts.headers);
        let found = judged(&rule, &mut parts).unwrap();
        assert_eq!(found.is_some(), taken, "{locations:?} {before}");
        assert_eq!(parts.uri, left.unwrap_or("/"), "{locations:?}");
        if taken {
            assert!(!format!("{:?}", parts.headers).contains(&token), "{locations:?}");
        }
        let kept = JwtRule { forward: true, ..rule };
        assert!(judged(&kept, &mut bearer(&token)).is_ok());
    }
    // A target without a query gets none.
    let mut parts = bearer(&token);
    judged(&rule(made.keys(json!({}))), &mut parts).unwrap();
    assert_eq!(parts.uri.path_and_query().unwrap().as_str(), "/");
    let cookie = vec![TokenLocation::Cookie("session".into())];
    let mut parts = request("/", Some(("cookie", format!("a=b; session={token}; c=d"))));
    let taken = JwtRule { locations: cookie, ..rule(made.keys(json!({}))) };
    judged(&taken, &mut parts).unwrap();
    assert_eq!(parts.headers["cookie"], "a=b; c=d");
}

#[test]
fn every_token_in_the_places_of_a_rule_must_be_good() {
    let made = ec();
    let good = made.token(json!({}), &json!({"iss": "https://i"}));
    let mut parts = bearer(&good);
    parts.uri = "/?access_token=x".parse().unwrap();
    assert_eq!(judged(&rule(made.keys(json!({}))), &mut parts), Err(TokenRefusal::Malformed));
}

#[test]
fn any_rule_that_takes_the_token_is_enough() {
    let (one, two) = (ec(), ec());
    let second = JwtRule::new("shop/second", "https://two", two.keys(json!({})));
    let rules = RequestAuthentications::new(vec![rule(one.keys(json!({}))), second]);
    let send = |token: &str| rules.authenticate(&mut bearer(token), now());
    let by = |made: &Made, issuer: &str| made.token(json!({}), &json!({"iss": issuer, "sub": issuer}));
    assert_eq!(send(&by(&one, "https://i")).unwrap().unwrap().subject(), Some("https://i"));
    assert_eq!(send(&by(&two, "https://two")).unwrap().unwrap().subject(), Some("https://two"));
    // The rule of the issuer says what is wrong, whatever its place.
    for (token, name, refusal) in [
        (by(&one, "https://two"), "shop/second", TokenRefusal::Signature),
        (by(&two, "https://i"), "shop/tokens", TokenRefusal::Signature),
        (by(&two, "https://three"), "shop/tokens", TokenRefusal::UnknownIssuer),
    ] {
        let refused = send(&token).unwrap_err();
        assert_eq!((&*refused.name, refused.refusal), (name, refusal));
    }
}

#[test]
fn claims_and_payload_go_on_in_headers_that_no_client_writes() {
    let made = ec();
    let claims = json!({
        "iss": "https://i", "sub": "alice", "n": 7, "ok": true, "none": null, "scope": "read write", "bad": "a\nb",
        "org": {"name": "acme"}, "list": ["a", "<b>"], "part": 3.5, "below": -7, "huge": 1e21, "empty": "",
    });
    let token = made.token(json!({}), &claims);
    let header = |name: &'static str| HeaderName::from_static(name);
    let wanted = [
        ("x-sub", "sub", Some("alice")),
        ("x-n", "n", Some("7")),
        ("x-ok", "ok", Some("true")),
        ("x-part", "part", Some("3.500000")),
        ("x-below", "below", Some("-7.000000")),
        ("x-huge", "huge", Some("1000000000000000000000.000000")),
        ("x-empty", "empty", None),
        ("x-none", "none", None),
        ("x-scope", "scope", Some("read write")),
        ("x-bad", "bad", None),
        ("x-org", "org.name", Some("acme")),
        ("x-list", "list", Some("WyJhIiwiXHUwMDNjYlx1MDAzZSJd")),
        ("x-gone", "gone", None),
    ];
    let rule = JwtRule {
        payload_header: Some(header("x-payload")),
        claim_headers: wanted
            .iter()
            .map(|(name, path, _)| (header(name), path.split('.').map(Into::into).collect()))
            .collect(),
        ..rule(made.keys(json!({})))
    };
    let forged = |parts: &mut Parts| {
        for (name, ..) in wanted {
            parts.headers.insert(name, HeaderValue::from_static("forged"));
        }
        parts.headers.insert("x-payload", HeaderValue::from_static("forged"));
    };
    let mut parts = bearer(&token);
    forged(&mut parts);
    judged(&rule, &mut parts).unwrap();
    for (name, _, value) in wanted {
        let found = parts.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(found, value, "{name}");
    }
    assert_eq!(parts.headers["x-payload"], token.split('.').nth(1).unwrap());
    let mut parts = Request::get("/").body(()).unwrap().into_parts().0;
    forged(&mut parts);
    assert_eq!(judged(&rule, &mut parts), Ok(None));
    assert!(parts.headers.is_empty(), "{:?}", parts.headers);
}

#[test]
fn a_place_that_holds_no_token_holds_one_that_is_malformed() {
    let made = ec();
    let places = [
        ("/", "authorization", "Bearer "),
        ("/", "authorization", "Bearer \u{e9}"),
        ("/?access_token", "x", "y"),
        ("/?access_token=&a=1", "x", "y"),
        ("/", "cookie", "a=b; session="),
    ];
    for (uri, name, value) in places {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let mut parts = Request::get(uri).header(name, value).body(()).unwrap().into_parts().0;
        let locations = [TokenLocation::defaults(), vec![TokenLocation::Cookie("session".into())]].concat();
        let rule = JwtRule { locations, ..rule(made.keys(json!({}))) };
        assert_eq!(judged(&rule, &mut parts).unwrap_err(), TokenRefusal::Malformed, "{uri} {name}");
    }
}

#[test]
fn lists_of_words_are_claims_of_several_values() {
    let made = ec();
    let token =
        made.token(json!({}), &json!({"iss": "https://i", "scope": "a b", "roles": "a b", "groups": "a b"}));
    let rule = JwtRule { words: vec!["groups".into()], ..rule(made.keys(json!({}))) };
    let token = judged(&rule, &mut bearer(&token)).unwrap().unwrap();
    for (name, several) in [("scope", true), ("groups", true), ("roles", false)] {
        assert_eq!(token.claim([name]).unwrap().any_text(|word| word == "b"), several, "{name}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_no_keys() {
    let good = ec().key;
    for (set, expected) in [
        (json!({"keys": []}), Err(InvalidKeySet::NoKey)),
        (json!([good]), Err(InvalidKeySet::Json)),
        (json!({}), Err(InvalidKeySet::Json)),
        (json!({"keys": [{"kty": "oct", "k": base64([1; 16])}]}), Err(InvalidKeySet::NoKey)),
        (json!({"keys": [{"kty": "RSA", "n": base64([255; 128]), "e": "AQAB"}]}), Err(InvalidKeySet::NoKey)),
        (json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}), Err(InvalidKeySet::NoKey)),
        (json!({"keys": [{"kty": "OKP", "crv": "X25519", "x": base64([1; 32])}]}), Err(InvalidKeySet::NoKey)),
        (json!({"keys": [{"kty": "new"}, good]}), Ok(())),
    ] {
        assert_eq!(KeySet::parse(&set.to_string()).map(drop), expected, "{set}");
    }
    for unusable in [json!({"use": "enc"}), json!({"key_ops": ["sign"]})] {
        let mut key = good.clone();
        key.as_object_mut().unwrap().extend(unusable.as_object().unwrap().clone());
        assert_eq!(KeySet::parse(&json!({"keys": [key]}).to_string()).map(drop), Err(InvalidKeySet::NoKey));
    }
}

#[test]
fn secrets_are_not_shown() {
    let keys = oct(b"0123456789abcdef0123456789abcdef").keys(json!({"kid": "one"}));
    assert_eq!(format!("{:?}", keys.snapshot()), "{\"one\"}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(token in "[ -~]{0,80}", cookie in "[ -~]{0,40}", query in "[!-~]{0,40}") {
        let rule = JwtRule {
            locations: vec![
                TokenLocation::Header { name: HeaderName::from_static("authorization"), prefix: "Bearer ".into() },
                TokenLocation::Param("a".into()),
                TokenLocation::Cookie("a".into()),
            ],
            ..rule(Live::default())
        };
        if let Ok(request) = Request::get(format!("/?{query}"))
            .header("authorization", format!("Bearer {token}")).header("cookie", cookie).body(())
        {
            let _ = judged(&rule, &mut request.into_parts().0);
        }
    }

    #[test]
    fn a_token_that_was_changed_is_refused(at in 0_usize..400, bit in 0_u8..7) {
        let made = oct(&[7; 32]);
        let token = made.token(json!({}), &json!({"iss": "https://i", "sub": "alice"}));
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assume!(bytes[at].is_ascii_graphic());
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_ne!(outcome(&rule(made.keys(json!({}))), &changed), Ok(()));
    }
}
