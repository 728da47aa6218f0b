//! The address that a redirect sends the client to (Gateway API, `HTTPRequestRedirectFilter`).

use http::{HeaderValue, Uri};

use super::path::replaced;
use crate::{Redirect, RuleAction};

/// The `Location` for a request to `host` (no port), always with scheme and host. `None` if the parts make no valid
/// header value, or the request names no host and the redirect neither.
pub(crate) fn location(
    redirect: &Redirect,
    action: &RuleAction,
    host: &str,
    uri: &Uri,
) -> Option<HeaderValue> {
    let own_scheme = if action.rule.https { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(own_scheme);
    let host = redirect.host.as_deref().unwrap_or(host);
    let path = redirect.path.as_ref().map(|path| replaced(path, action.prefix.as_deref(), uri.path()));
    let path = path.as_deref().unwrap_or(uri.path());
    let port = port(redirect, action, scheme).map(|port| format!(":{port}")).unwrap_or_default();
    let (mark, query) = uri.query().map_or(("", ""), |query| ("?", query));
    let text = [scheme, "://", host, &port, path, mark, query].concat();
    (!host.is_empty()).then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten()
}

// The port given; else the well-known one of a scheme given; else the listener's. Well-known ports are left out.
fn port(redirect: &Redirect, action: &RuleAction, scheme: &str) -> Option<u16> {
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let of_scheme = redirect.scheme.as_ref().and(well_known);
    let port = redirect.port.or(of_scheme).unwrap_or(action.rule.port);
    (Some(port) != well_known).then_some(port)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use towpath_gateway_core::{Policies, RouteName};

    use super::*;
    use crate::{Filters, Hostname, Listener, PathMatch, PathRewrite, Rule};

    fn at(port: u16, https: bool, redirect: &Redirect, uri: &str) -> String {
        let listener =
            Listener { name: "l".into(), hostname: Hostname::Any, port, https, routes: Vec::new() };
        let rule = Rule {
            name: RouteName::new("a/r", "0"),
            matches: Vec::new(),
            filters: Filters::default(),
            backends: Vec::new(),
            policies: Policies::default(),
        };
        let action = RuleAction::of(&rule, &listener).under(&PathMatch::Prefix("/old/".into()));
        let location = location(redirect, &action, "example.com", &uri.parse().unwrap()).unwrap();
        location.to_str().unwrap().to_owned()
    }

    fn redirect(scheme: Option<&str>, port: Option<u16>) -> Redirect {
        Redirect { scheme: scheme.map(Into::into), host: None, port, path: None, status: StatusCode::FOUND }
    }

    #[test]
    fn the_port_follows_scheme_and_listener() {
        for (port, https, scheme, given, wanted) in [
            (80, false, None, None, "http://example.com/"),
            (8080, false, None, None, "http://example.com:8080/"),
            (443, true, None, None, "https://example.com/"),
            (8443, true, None, None, "https://example.com:8443/"),
            (8080, false, Some("https"), None, "https://example.com/"),
            (443, true, Some("http"), None, "http://example.com/"),
            (8080, false, Some("http"), None, "http://example.com/"),
            (80, false, Some("https"), Some(8443), "https://example.com:8443/"),
            (80, false, Some("https"), Some(80), "https://example.com:80/"),
            (8080, false, None, Some(80), "http://example.com/"),
            (80, false, None, Some(443), "http://example.com:443/"),
        ] {
            assert_eq!(at(port, https, &redirect(scheme, given), "/"), wanted);
        }
    }

    #[test]
    fn path_host_and_query_are_kept_unless_given() {
        assert_eq!(at(80, false, &redirect(None, None), "/old/x?a=b"), "http://example.com/old/x?a=b");
        let other = Redirect {
            host: Some("other.example".into()),
            path: Some(PathRewrite::Prefix("/new".into())),
            ..redirect(None, None)
        };
        assert_eq!(at(80, false, &other, "/old/x?a=b"), "http://other.example/new/x?a=b");
    }
}
