//! External authorizers that CUSTOM policies name: `extensionProviders` of the `Mesh`, as in Istio's `MeshConfig`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use towpath_auth::{ExternalAuth, ExternalAuthProtocol, ExternalHttp, HeaderNames, Pattern};
use towpath_gateway_core::Backend;

use crate::ObjectName;
use crate::backend::Carries;
use crate::compile::Work;
use crate::document::Defect;
use crate::external_auth::check_path;
use crate::resources::Text;
use crate::resources::leaf::{FieldPattern, Span};
use crate::resources::towpath::{ExtAuthzHttpSpec, ExtensionProviderSpec, RequestBodySpec};

/// What is wrong with the providers by themselves.
pub(crate) fn check(specs: &[ExtensionProviderSpec], found: &mut Vec<Defect>) {
    for (place, spec) in specs.iter().enumerate() {
        let (name, at) = (&spec.name.value, spec.name.referenced);
        if specs.iter().take(place).any(|earlier| earlier.name.value == *name) {
            found.push(Defect::new(at, format!("there are two providers `{name}`")));
        }
        if spec.envoy_ext_authz_http.is_some() == spec.envoy_ext_authz_grpc.is_some() {
            let message = format!("provider `{name}` is `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`");
            found.push(Defect::new(at, message));
        }
        let common = Common::of(spec);
        if let Some(service) = common.service
            && let Err(message) = service_name(&service.value)
        {
            found.push(Defect::new(service.referenced, message));
        }
        if let Some(status) = common.status
            && status_code(&status.value).is_none()
        {
            let message = format!("`{}` is not the status of a refusal, such as 403", status.value);
            found.push(Defect::new(status.referenced, message));
        }
        if let Some(http) = &spec.envoy_ext_authz_http {
            if let Some(prefix) = http.path_prefix.as_ref().filter(|prefix| !prefix.value.is_empty()) {
                check_path(prefix, found);
            }
            for (name, value) in &http.include_additional_headers_in_check {
                if let Err(message) = added_header(name, &value.value) {
                    found.push(Defect::new(value.referenced, message));
                }
            }
        }
    }
}

/// What both kinds of providers have.
#[derive(Default)]
struct Common<'a> {
    service: Option<&'a Text>,
    port: u16,
    timeout: Option<&'a Span>,
    fail_open: bool,
    clears_routes: bool,
    status: Option<&'a Text>,
    body: Option<&'a RequestBodySpec>,
}

impl<'a> Common<'a> {
    fn of(spec: &'a ExtensionProviderSpec) -> Self {
        if let Some(http) = &spec.envoy_ext_authz_http {
            return Self {
                service: Some(&http.service),
                port: http.port,
                timeout: http.timeout.as_ref(),
                fail_open: http.fail_open,
                clears_routes: http.clear_route_cache,
                status: http.status_on_error.as_ref(),
                body: http.include_request_body_in_check.as_ref(),
            };
        }
        spec.envoy_ext_authz_grpc.as_ref().map_or_else(Self::default, |grpc| Self {
            service: Some(&grpc.service),
            port: grpc.port,
            timeout: grpc.timeout.as_ref(),
            fail_open: grpc.fail_open,
            clears_routes: grpc.clear_route_cache,
            status: grpc.status_on_error.as_ref(),
            body: grpc.include_request_body_in_check.as_ref(),
        })
    }
}

/// The Service of `NAME.NAMESPACE.svc.DOMAIN`, or of `NAMESPACE/HOST` with such a host.
fn service_name(text: &str) -> Result<ObjectName, String> {
    let wrong = || format!("`{text}` names no Service: write NAME.NAMESPACE.svc.cluster.local");
    let host = text.split_once('/').map_or(text, |(_, host)| host);
    let mut labels = host.split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(name), Some(namespace), None | Some("svc")) if !name.is_empty() && !namespace.is_empty() => {
            Ok(ObjectName { namespace: namespace.into(), name: name.into() })
        }
        _ => Err(wrong()),
    }
}

fn status_code(text: &str) -> Option<StatusCode> {
    let status: StatusCode = text.parse().ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

fn patterns(list: &[FieldPattern]) -> Vec<Pattern> {
    list.iter().map(|pattern| pattern.0.clone()).collect()
}

/// A header of `includeAdditionalHeadersInCheck`. In its value Envoy takes `%` for the beginning of a command.
fn added_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header: Option<HeaderName> = name.parse().ok().filter(ExternalHttp::may_add);
    let header = header.ok_or_else(|| format!("`{name}` is not the name of a header that can be added"))?;
    let literal = value.replace("%%", "");
    if literal.contains('%') {
        return Err(format!("`{name}`: Envoy's commands are not carried out; `%%` stands for a `%`"));
    }
    let value = HeaderValue::from_str(&value.replace("%%", "%"));
    Ok((header, value.map_err(|_| format!("`{name}`: a header value has no control characters"))?))
}

/// What an HTTP provider is sent, and what is taken from it. As in Istio, without a list nothing goes on to the backend, and
/// a client sees the whole of a refusal.
fn by_http(spec: &ExtAuthzHttpSpec, checked_later: &[HeaderName]) -> ExternalHttp {
    let sent = match &spec.include_request_headers_in_check[..] {
        [] => &spec.include_headers_in_check[..],
        sent => sent,
    };
    let added = spec.include_additional_headers_in_check.iter();
    let of_refusal = match &spec.headers_to_downstream_on_deny[..] {
        [] => HeaderNames::All,
        listed => HeaderNames::Listed(patterns(listed)),
    };
    ExternalHttp {
        path_prefix: spec.path_prefix.as_ref().map_or("", |prefix| &prefix.value).into(),
        allowed_headers: patterns(sent),
        added_headers: added.filter_map(|(name, value)| added_header(name, &value.value).ok()).collect(),
        to_backend: HeaderNames::Listed(patterns(&spec.headers_to_upstream_on_allow)),
        checked_later: checked_later.to_vec(),
        to_client: HeaderNames::Listed(patterns(&spec.headers_to_downstream_on_allow)),
        of_refusal,
    }
}

/// Whom a policy asks by this name, in front of checks that look into these headers; `None` if nobody is there.
pub(crate) fn resolve(
    work: &mut Work<'_>,
    provider: &str,
    (policy, checked_later): (&Arc<str>, &[HeaderName]),
) -> Option<ExternalAuth> {
    let spec =
        work.objects.meshes.values().next().into_iter().flat_map(|mesh| &mesh.spec.extension_providers);
    let Some(spec) = spec.clone().find(|spec| spec.name.value == provider) else {
        let assumed = || {
            // One of this kind can be asked about connections, too.
            let protocol = ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() };
            ExternalAuth::new(Arc::clone(policy), Arc::new(Backend::unresolved(provider)), protocol)
        };
        return work.options.assume_providers.then(assumed);
    };
    let common = Common::of(spec);
    let service = service_name(&common.service?.value).ok()?;
    let made = work.backends.service(&service, common.port, Carries::Http, &mut work.problems);
    let backend = match made {
        Ok(backend) => backend,
        Err(refusal) => {
            let mesh = work.objects.meshes.values().next()?;
            let message =
                format!("provider `{provider}`: {}: what is to be asked it is refused", refusal.message);
            work.problems.push(mesh.error(spec.name.referenced, message));
            Arc::new(Backend::unresolved(format!("{service}:{}", common.port)))
        }
    };
    if common.clears_routes {
        let mesh = work.objects.meshes.values().next()?;
        let message = format!(
            "provider `{provider}`: `clearRouteCache` changes nothing: the route is settled before it is asked"
        );
        work.problems.push(mesh.warning(spec.name.referenced, message));
    }
    let protocol = match &spec.envoy_ext_authz_http {
        Some(http) => ExternalAuthProtocol::Http(by_http(http, checked_later)),
        None => ExternalAuthProtocol::Grpc { allowed_headers: Vec::new() },
    };
    let mut auth = ExternalAuth::new(Arc::clone(policy), backend, protocol);
    auth.fail_open = common.fail_open;
    if let Some(body) = common.body {
        auth.max_body = usize::try_from(body.max_request_bytes).unwrap_or(usize::MAX);
        (auth.partial_body, auth.raw_body) = (body.allow_partial_message, body.pack_as_bytes);
    }
    if let Some(timeout) = common.timeout {
        auth.timeout = timeout.0;
    }
    if let Some(status) = common.status.and_then(|status| status_code(&status.value)) {
        auth.status_on_error = status;
    }
    Some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_by_their_hosts() {
        for (text, name) in [
            ("auth.shop.svc.cluster.local", Some("shop/auth")),
            ("auth.shop", Some("shop/auth")),
            ("shop/auth.shop.svc.cluster.local", Some("shop/auth")),
            ("auth", None),
            ("auth.example.com", None),
            (".shop", None),
        ] {
            assert_eq!(service_name(text).ok().map(|name| name.to_string()).as_deref(), name, "{text}");
        }
    }
}
