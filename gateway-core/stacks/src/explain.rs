//! What a stack decides about a request's route, and why.

use std::future::{Future, ready};
use std::pin::pin;
use std::task::{Context as Task, Poll, Waker};

use http::header::HOST;
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use towpath_gateway_core::{Fault, Live, Reason};
use towpath_routing::{Explanation, Normalization, NormalizeLayer, Routes};

/// Which clients a stack is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those from outside: [`gateway`](crate::gateway) and [`ingress`](crate::ingress).
    Edge,
    /// Those of the mesh: [`sidecar_outbound`](crate::sidecar_outbound).
    Mesh,
}

/// What was decided, and about what.
#[derive(Debug)]
pub struct Explained<'t> {
    /// Host in its normal form.
    pub host: String,
    /// Path and query in their normal form.
    pub target: String,
    /// What the table says; an error where it is not asked.
    pub answer: Result<Explanation<'t>, Fault>,
}

impl Side {
    /// What makes the one form of each request that all else sees.
    pub(crate) fn normalize(self, settings: Live<Normalization>) -> NormalizeLayer {
        match self {
            Self::Edge => NormalizeLayer::edge().with(settings),
            Self::Mesh => NormalizeLayer::mesh().with(settings),
        }
    }
}

/// Takes a request through the layers of a stack that choose its rule. An error is what the client gets before the table is
/// asked.
pub fn explain(
    side: Side,
    normalization: Normalization,
    routes: &Routes,
    request: Request<()>,
) -> Result<Explained<'_>, Fault> {
    let mut explained = None;
    let asked = service_fn(|mut request: Request<()>| {
        let answer = routes.explain_request(&mut request);
        let host =
            request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let target = request.uri().path_and_query().map(ToString::to_string);
        explained =
            Some(Explained { host: host.unwrap_or_default(), target: target.unwrap_or_default(), answer });
        ready(Ok::<_, Fault>(Response::new(())))
    });
    let mut service = side.normalize(Live::new(normalization)).layer(asked);
    let answered = pin!(service.call(request)).poll(&mut Task::from_waker(Waker::noop()));
    if let Poll::Ready(Err(fault)) = answered {
        return Err(fault);
    }
    // Nothing in it waits.
    explained.ok_or(Fault::new(Reason::Internal))
}
