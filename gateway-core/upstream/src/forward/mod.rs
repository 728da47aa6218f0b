//! Layer 4: carries the bytes of a flow to an endpoint of its backend and back.

mod datagrams;
mod idle;
mod streams;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

pub use datagrams::ForwardDatagrams;
pub use streams::ForwardStreams;
use towpath_gateway_core::{Attempt, Context, Fault, Outcome, Reason};

use crate::Random;
use crate::balance::choose;

/// How many endpoints are tried for one flow: nothing was sent to those that could not be connected to.
const TRIES: usize = 3;

/// A flow on its way; it resolves when the flow has ended. Boxed: once for a flow.
pub struct ForwardFuture(Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>);

impl Future for ForwardFuture {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Begins a try at an endpoint of the flow's backend, as the balancer does for requests.
fn begin(context: &Context, random: Random) -> Result<Attempt, Fault> {
    let Some(backend) = context.backend() else {
        return Err(Fault::new(Reason::Internal).with_detail("no backend: does a layer outside set one?"));
    };
    Ok(context.begin_attempt(choose(backend, None, &context.attempts(), random)?))
}

/// Notes that a try failed, and says whether another endpoint is worth one.
fn failed(attempt: &Attempt, context: &Context, fault: &Fault) -> Result<bool, Fault> {
    attempt.set_outcome(Outcome::Fault(fault.reason()), context.started().elapsed())?;
    let backend = context.backend().map(Arc::clone);
    let others = backend.and_then(|backend| backend.endpoints().map(<[_]>::len)).unwrap_or_default();
    let tries = context.attempt_count();
    Ok(fault.replay() == towpath_gateway_core::Replay::Always && tries < TRIES.min(others))
}
