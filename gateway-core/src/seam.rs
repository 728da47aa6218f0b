//! The one boxed seam between the parts of a stack.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{Body, Fault};

/// A request as stacks pass it on.
pub type Request = http::Request<Body>;

/// A response as stacks pass it on.
pub type Response = http::Response<Body>;

type BoxFuture = Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>;

/// A service whose type no longer matters. Box at named seams (between routing and resilience, under the server),
/// never per layer: layers boxed one by one cost three to four times as much as unboxed ones.
///
/// ```
/// use towpath_gateway_core::{Body, HttpService, Request, Response};
/// # use std::{convert::Infallible, future::{ready, Ready}, task::{Context, Poll}};
/// # #[derive(Clone)]
/// # struct Hello;
/// # impl tower_service::Service<Request> for Hello {
/// #     type Response = Response; type Error = Infallible; type Future = Ready<Result<Response, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
/// #     fn call(&mut self, _: Request) -> Self::Future { ready(Ok(Response::new(Body::from("hello")))) }
/// # }
/// let service: HttpService = HttpService::new(Hello);
/// ```
pub struct HttpService(Box<dyn CloneService + Send + Sync>);

impl HttpService {
    /// Boxes `service`.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response, Error: Into<Fault>, Future: Send + 'static>,
        S: Clone + Send + Sync + 'static,
    {
        Self(Box::new(Seam(service)))
    }
}

impl Clone for HttpService {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpService")
    }
}

impl Service<Request> for HttpService {
    type Response = Response;
    type Error = Fault;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.0.ready(cx)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        self.0.call(request)
    }
}

trait CloneService {
    fn clone_box(&self) -> Box<dyn CloneService + Send + Sync>;
    fn ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>>;
    fn call(&mut self, request: Request) -> BoxFuture;
}

#[derive(Clone)]
struct Seam<S>(S);

pin_project! {
    // By hand, for an `async` block would hold the service's future twice: as it was given and as it is awaited.
    struct Answer<F> {
        #[pin]
        answer: F,
    }
}

impl<F, E> Future for Answer<F>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<Fault>,
{
    type Output = Result<Response, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx).map_err(Into::into)
    }
}

impl<S> CloneService for Seam<S>
where
    S: Service<Request, Response = Response, Error: Into<Fault>, Future: Send + 'static>,
    S: Clone + Send + Sync + 'static,
{
    fn clone_box(&self) -> Box<dyn CloneService + Send + Sync> {
        Box::new(self.clone())
    }

    fn ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), Fault>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> BoxFuture {
        Box::pin(Answer { answer: self.0.call(request) })
    }
}
