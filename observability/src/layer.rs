//! Follows a request to the end of its response, then makes one record.
//!
//! - **reads** everything that the inner layers wrote into the context
//! - **writes** nothing; request and response bodies are counted on their way
//! - **ends a request with** nothing, errors pass through
//! - **settings** the recorder: process, listener, metrics shard, access log
//! - **place** outermost, around rescue, so that it sees every fault and every byte

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Body, Context, Fault, Reason};

use crate::Recorder;
use crate::body::count;
use crate::open::Open;

type BoxError = Box<dyn Error + Send + Sync>;

/// Applies [`Recorded`].
///
/// The inner service is given a [`Body`]: one that is in hand stays in hand (and can be sent again), a stream is
/// counted while it is read.
///
/// ```
/// use axum::{Router, routing::get};
/// use towpath_gateway_core::RescueLayer;
/// use towpath_observability::{AccessLog, Metrics, ProcessFacts, RecordLayer, Recorder};
///
/// let facts = ProcessFacts::new("app", "shop/hello", "home");
/// let recorder = Recorder::new(facts, Metrics::new().shard(), AccessLog::stdout()?);
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(RescueLayer::new())
///     .layer(RecordLayer::new(recorder.listener("public")));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RecordLayer {
    recorder: Recorder,
}

impl RecordLayer {
    /// Records go to `recorder`.
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = Recorded<S>;

    fn layer(&self, inner: S) -> Recorded<S> {
        Recorded { inner, recorder: self.recorder.clone() }
    }
}

/// Makes a record of every request.
#[derive(Debug, Clone)]
pub struct Recorded<S> {
    inner: S,
    recorder: Recorder,
}

impl<S, B, R> Service<Request<B>> for Recorded<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    B: HttpBody<Error: Into<BoxError>> + Send + 'static,
    R: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = RecordFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let context = Context::of(request.extensions_mut());
        // Boxed at once: from here it goes through the futures of all outer layers, and then with the body.
        let mut open = Box::new(Open::new(self.recorder.clone(), context, &request));
        let request = request.map(|body| {
            let (body, bytes) = count(body);
            open.set_bytes_in(bytes);
            body
        });
        RecordFuture { answer: self.inner.call(request), open: Some(open) }
    }
}

pin_project! {
    /// The answer of [`Recorded`].
    pub struct RecordFuture<F> {
        #[pin]
        answer: F,
        open: Option<Box<Open>>,
    }
}

impl<F, R, E> Future for RecordFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        Poll::Ready(match (answer, this.open.take()) {
            (Ok(response), Some(open)) => Ok(follow(response, open)),
            (Ok(response), None) => Ok(response.map(Body::new)),
            (Err(error), open) => {
                if let Some(mut open) = open {
                    let detail = "an error passed the record: there is no rescue inside";
                    open.ended(Err(Fault::new(Reason::Internal).with_detail(detail)));
                }
                Err(error)
            }
        })
    }
}

fn follow<R>(response: Response<R>, mut open: Box<Open>) -> Response<Body>
where
    R: HttpBody<Error: Into<BoxError>> + Send + 'static,
{
    let over = open.answered(response.status());
    response.map(|body| {
        if over || body.is_end_stream() {
            open.ended(Ok(()));
            return if over { Body::new(body) } else { Body::empty() };
        }
        open.announce(body.size_hint().exact());
        Body::new(body).watched(open)
    })
}
