//! `externalAuth` filters, checked by themselves and as a rule carries them out.

use std::sync::Arc;

use serde_saphyr::Location;
use towpath_auth::{ExternalAuth, ExternalAuthProtocol, ExternalHttp, HeaderNames, Pattern};
use towpath_gateway_core::Backend;

use crate::document::Defect;
use crate::resources::Text;
use crate::resources::filter::{AuthProtocol, ExternalAuthSpec};
use crate::resources::leaf::FieldName;

/// What is wrong with a filter by itself.
pub(crate) fn check(spec: &ExternalAuthSpec, at: Location, found: &mut Vec<Defect>) {
    let (given, other, field) = match spec.protocol.value {
        AuthProtocol::Http => (spec.http.is_some(), spec.grpc.is_some(), "http"),
        AuthProtocol::Grpc => (spec.grpc.is_some(), spec.http.is_some(), "grpc"),
    };
    if !given || other {
        let message = format!("this protocol needs `{field}`, be it empty, and no settings of the other");
        found.push(Defect::new(spec.protocol.referenced, message));
    }
    if let Some(path) = spec.http.as_ref().and_then(|http| http.path.as_ref()) {
        check_path(path, found);
    }
    if !spec.backend_ref.filters.is_empty() || spec.backend_ref.weight.is_some() {
        found.push(Defect::new(at, "the backend of `externalAuth` has neither filters nor a weight"));
    }
}

/// The characters of a path (RFC 3986 section 3.3), as the resource's definition has them.
pub(crate) fn check_path(path: &Text, found: &mut Vec<Defect>) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if !path.value.starts_with('/') || !path.value.bytes().all(allowed) {
        let message = format!("`{}` is not a path that begins with `/`", path.value);
        found.push(Defect::new(path.referenced, message));
    }
}

/// Without a list of headers that are taken, all are.
pub(crate) fn compile(spec: &ExternalAuthSpec, route: &str, backend: Arc<Backend>) -> ExternalAuth {
    let protocol = match (spec.protocol.value, &spec.http, &spec.grpc) {
        (AuthProtocol::Grpc, _, grpc) => {
            let allowed = grpc.as_ref().map_or(&[][..], |grpc| &grpc.allowed_headers);
            ExternalAuthProtocol::Grpc {
                allowed_headers: allowed.iter().map(|name| name.0.clone()).collect(),
            }
        }
        (AuthProtocol::Http, http, _) => {
            let (path, sent, taken) = http.as_ref().map_or((None, &[][..], &[][..]), |http| {
                (http.path.as_ref(), &http.allowed_headers[..], &http.allowed_response_headers[..])
            });
            let listed = || HeaderNames::Listed(exactly(taken));
            ExternalAuthProtocol::Http(ExternalHttp {
                path_prefix: path.map_or("", |path| path.value.as_str()).into(),
                allowed_headers: exactly(sent),
                to_backend: if taken.is_empty() { HeaderNames::All } else { listed() },
                ..ExternalHttp::default()
            })
        }
    };
    let max_body = spec.forward_body.as_ref().map_or(0, |forward| forward.max_size.into());
    ExternalAuth { max_body, ..ExternalAuth::new(route, backend, protocol) }
}

fn exactly(names: &[FieldName]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::Exact(name.0.as_str().into())).collect()
}
