//! The answer of a layer that lets a request go on or refuses it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use pin_project_lite::pin_project;
use towpath_gateway_core::Fault;

pin_project! {
    /// What comes of a request that a layer of this crate admitted or refused.
    pub struct AdmitFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Admitted {
            #[pin]
            answer: F,
        },
        Refused {
            fault: Option<Fault>,
        },
    }
}

impl<F> AdmitFuture<F> {
    /// The request went on; `answer` is what comes of it.
    pub(crate) fn admitted(answer: F) -> Self {
        Self { state: State::Admitted { answer } }
    }

    /// The request ends here.
    pub(crate) fn refused(fault: Fault) -> Self {
        Self { state: State::Refused { fault: Some(fault) } }
    }
}

impl<F, T, E> Future for AdmitFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Fault>,
{
    type Output = Result<T, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Admitted { answer } => answer.poll(cx).map_err(Into::into),
            // Once it has ended it stays pending, as a future may.
            StateProj::Refused { fault } => {
                fault.take().map_or(Poll::Pending, |fault| Poll::Ready(Err(fault)))
            }
        }
    }
}
