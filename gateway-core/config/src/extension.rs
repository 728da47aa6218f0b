//! `extensionRef` filters: what an `HTTPRouteFilter` says, checked by itself, and as a rule carries it out.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde_saphyr::{Location, Spanned};
use towpath_gateway_core::{GrpcStatus, Policies};
use towpath_routing::{Abort, AbortStatus, Delay, DirectResponse, FaultInjection, Share};

use crate::ObjectName;
use crate::document::Defect;
use crate::objects::Objects;
use crate::resources::filter::{
    AbortSpec, DelaySpec, DirectResponseSpec, ExtensionRef, FaultSpec, HttpRouteFilterSpec,
};
use crate::status::Refusal;
use crate::suggest::nearest;

/// Bytes of a direct response's body at most (Istio refuses more, too).
const MAX_BODY: usize = 1 << 20;

const GROUP: &str = "towpath.dev";
const KIND: &str = "HTTPRouteFilter";

/// What `extensionRef` filters of one rule add to it.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    pub(crate) fault: Option<FaultInjection>,
    pub(crate) direct: Option<DirectResponse>,
}

impl Extension {
    /// Adds what the reference leads to.
    pub(crate) fn add(
        &mut self,
        objects: &Objects,
        namespace: &str,
        reference: &ExtensionRef,
    ) -> Result<(), Refusal> {
        let spec = find(objects, namespace, reference)?;
        let twice = |what| {
            let message = format!("a second `extensionRef` of the rule has a `{what}`");
            Err(Refusal::new("IncompatibleFilters", message))
        };
        if let Some(fault) = &spec.fault {
            if self.fault.is_some() {
                return twice("fault");
            }
            self.fault = Some(self::fault(fault, &mut Vec::new()));
        }
        if let Some(direct) = &spec.direct_response {
            if self.direct.is_some() {
                return twice("directResponse");
            }
            self.direct = Some(self::direct(direct, &mut Vec::new()));
        }
        Ok(())
    }

    /// As settings of the rule.
    pub(crate) fn policies(self) -> Policies {
        let mut policies = Policies::builder();
        if let Some(fault) = self.fault {
            policies = policies.with(fault);
        }
        if let Some(direct) = self.direct {
            policies = policies.with(direct);
        }
        policies.build()
    }
}

fn find<'a>(
    objects: &'a Objects,
    namespace: &str,
    reference: &ExtensionRef,
) -> Result<&'a HttpRouteFilterSpec, Refusal> {
    let ExtensionRef { group, kind, name } = reference;
    if (group.as_str(), kind.value.as_str()) != (GROUP, KIND) {
        let mut message =
            format!("an `extensionRef` names a {KIND} of {GROUP}, not a `{}` of `{group}`", kind.value);
        if kind.value != KIND && nearest(&kind.value, [KIND]).is_some() {
            let _ = write!(message, ": did you mean `{KIND}`?");
        }
        return Err(Refusal::new("InvalidKind", message));
    }
    let name = ObjectName { namespace: namespace.into(), name: name.value.as_str().into() };
    if let Some(filter) = objects.http_route_filters.get(&name) {
        return Ok(&filter.spec);
    }
    let broken = objects.refused.iter().any(|refused| refused.kind == KIND && refused.name == name);
    let message = if broken {
        format!("{KIND} {name} could not be read")
    } else {
        format!("there is no {KIND} {name}")
    };
    Err(Refusal::new("BackendNotFound", message))
}

/// What is wrong with a filter by itself.
pub(crate) fn check(spec: &HttpRouteFilterSpec, found: &mut Vec<Defect>) {
    if spec.fault.is_none() && spec.direct_response.is_none() {
        found.push(nowhere("it has neither `fault` nor `directResponse`"));
    }
    if let Some(fault) = &spec.fault {
        self::fault(fault, found);
    }
    if let Some(direct) = &spec.direct_response {
        self::direct(direct, found);
    }
}

fn nowhere(message: &str) -> Defect {
    Defect { location: None, message: message.into(), suggestion: None }
}

fn fault(spec: &FaultSpec, found: &mut Vec<Defect>) -> FaultInjection {
    if spec.delay.is_none() && spec.abort.is_none() {
        found.push(nowhere("`fault` has neither `delay` nor `abort`"));
    }
    FaultInjection {
        delay: spec.delay.as_ref().map(|spec| delay(spec, found)),
        abort: spec.abort.as_ref().and_then(|spec| abort(spec, found)),
    }
}

fn delay(spec: &DelaySpec, found: &mut Vec<Defect>) -> Delay {
    let fixed = spec.fixed_delay.value.0;
    if fixed < Duration::from_millis(1) {
        found.push(Defect::new(spec.fixed_delay.referenced, "a delay is 1ms at least"));
    }
    Delay { fixed, share: share(spec.percentage.as_ref(), found) }
}

fn abort(spec: &AbortSpec, found: &mut Vec<Defect>) -> Option<Abort> {
    let share = share(spec.percentage.as_ref(), found);
    let status = match (&spec.http_status, &spec.grpc_status) {
        (Some(status), None) => {
            check_status(status.value.0, status.referenced, found);
            AbortStatus::Http(status.value.0)
        }
        (None, Some(name)) => match name.value.parse::<GrpcStatus>() {
            Ok(status) => AbortStatus::Grpc(status),
            Err(message) => {
                let defect = Defect::new(name.referenced, message);
                let meant = nearest(&name.value, GrpcStatus::names());
                let known = || format!("known: {}", GrpcStatus::names().collect::<Vec<_>>().join(", "));
                found
                    .push(defect.suggest(meant.map_or_else(known, |name| format!("did you mean `{name}`?"))));
                return None;
            }
        },
        _ => {
            found.push(nowhere("`abort` has one of `httpStatus` and `grpcStatus`"));
            return None;
        }
    };
    Some(Abort { status, share })
}

fn check_status(status: StatusCode, at: Location, found: &mut Vec<Defect>) {
    if !(200..600).contains(&status.as_u16()) {
        let message = format!("{} does not end a request: a status is 200 to 599", status.as_u16());
        found.push(Defect::new(at, message));
    }
}

fn share(percentage: Option<&Spanned<f64>>, found: &mut Vec<Defect>) -> Share {
    let Some(percentage) = percentage else { return Share::ALL };
    Share::percent(percentage.value).unwrap_or_else(|| {
        found.push(Defect::new(percentage.referenced, "a percentage is 0 to 100"));
        Share::ALL
    })
}

fn direct(spec: &DirectResponseSpec, found: &mut Vec<Defect>) -> DirectResponse {
    let status = spec.status.value.0;
    check_status(status, spec.status.referenced, found);
    let body = spec.body.as_ref().filter(|body| !body.value.is_empty());
    if let (Some(body), 204 | 205 | 304) = (body, status.as_u16()) {
        let message = format!("an answer of status {} has no body (RFC 9110 section 6.4.1)", status.as_u16());
        found.push(Defect::new(body.referenced, message));
    }
    if let Some(body) = body.filter(|body| body.value.len() > MAX_BODY) {
        found.push(Defect::new(body.referenced, format!("a body has at most {MAX_BODY} bytes")));
    }
    let given = spec.content_type.as_ref().map(|kind| (kind, HeaderValue::from_str(&kind.value)));
    if let Some((kind, Err(_))) = &given {
        found.push(Defect::new(kind.referenced, format!("`{}` is not a media type", kind.value)));
    }
    let kind = match given {
        Some((_, kind)) => kind.ok(),
        None => body.map(|_| HeaderValue::from_static("text/plain")),
    };
    DirectResponse {
        status,
        body: body.map(|body| body.value.clone().into()).unwrap_or_default(),
        content_type: kind,
    }
}
