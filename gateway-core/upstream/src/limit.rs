//! Time that one future may take.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use towpath_gateway_core::{Context, Fault, Outcome, Reason};

pin_project! {
    /// Time that a future may take. Its timer is registered when it is first polled.
    pub(crate) struct Limit {
        left: Duration,
        #[pin]
        sleep: Sleep,
    }
}

impl Limit {
    pub(crate) fn new(left: Duration) -> Self {
        Self { left, sleep: sleep(left) }
    }

    /// For whoever knows the moment already: asking for the time costs more than all else here.
    pub(crate) fn until(end: Instant, left: Duration) -> Self {
        Self { left, sleep: sleep_until(end) }
    }

    /// `answer`, or the fault that its time is over. The answer is asked first, so that one that is there at once
    /// costs no timer.
    pub(crate) fn poll_within<F, T, E>(
        limit: Pin<&mut Option<Self>>,
        answer: Pin<&mut F>,
        context: &Context,
        cx: &mut Task<'_>,
    ) -> Poll<Result<T, Fault>>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<Fault>,
    {
        if let Poll::Ready(result) = answer.poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        let Some(limit) = limit.as_pin_mut() else { return Poll::Pending };
        let limit = limit.project();
        ready!(limit.sleep.poll(cx));
        Poll::Ready(Err(timed_out(context, *limit.left)))
    }
}

/// The fault of a request or a try whose time is over, noted on the newest try as well.
fn timed_out(context: &Context, took: Duration) -> Fault {
    if let Some(attempt) = context.attempt() {
        // A try that has ended keeps its own outcome.
        let _ = attempt.set_outcome(Outcome::Fault(Reason::UpstreamTimeout), took);
    }
    Fault::new(Reason::UpstreamTimeout).with_detail(format!("no response head within {took:?}"))
}
