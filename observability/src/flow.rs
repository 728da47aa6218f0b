//! Records flows of layer 4.
//!
//! - **reads** everything that inner layers learn of the flow, and its bytes both ways
//! - **writes** metrics, one line of the access log
//! - **ends a flow with** nothing of its own: a fault of the inner layers ends here
//! - **settings** a [`Recorder`]
//! - **place** outermost in a layer 4 stack, inside TLS

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Task, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_layer::Layer;
use tower_service::Service;
use towpath_gateway_core::{Accepted, BoxDatagrams, BoxIo, Context, Datagrams, Fault, Flow, Reason};

use crate::Recorder;
use crate::flow_record::FlowEnd;

/// Applies [`RecordFlows`].
///
/// ```
/// use std::convert::Infallible;
/// use tower::{Layer, service_fn};
/// use towpath_gateway_core::{BoxIo, Fault, Flow};
/// use towpath_observability::{AccessLog, FlowRecordLayer, Metrics, ProcessFacts, Recorder};
///
/// let recorder = Recorder::new(ProcessFacts::new("gateway", "", ""), Metrics::new().shard(), AccessLog::off());
/// // An accept stack around a stack of flows: it takes connections, and no fault leaves it.
/// let stack = FlowRecordLayer::new(recorder).layer(service_fn(|_: Flow<BoxIo>| async { Ok::<_, Fault>(()) }));
/// # fn accepts<S: tower::Service<towpath_gateway_core::Accepted, Error = Infallible>>(_: S) {}
/// # accepts(stack);
/// ```
#[derive(Debug, Clone)]
pub struct FlowRecordLayer {
    recorder: Recorder,
}

impl FlowRecordLayer {
    /// Gives finished flows to `recorder`.
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }
}

impl<S> Layer<S> for FlowRecordLayer {
    type Service = RecordFlows<S>;

    fn layer(&self, inner: S) -> RecordFlows<S> {
        RecordFlows { inner, recorder: self.recorder.clone() }
    }
}

/// Makes one record of each flow, also of one whose future is dropped.
#[derive(Debug, Clone)]
pub struct RecordFlows<S> {
    inner: S,
    recorder: Recorder,
}

impl<S> Service<Accepted> for RecordFlows<S>
where
    S: Service<Flow<BoxIo>, Response = (), Error = Fault>,
{
    type Response = ();
    type Error = Infallible;
    type Future = RecordFlowFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        // The services of layer 4 are ready for every flow.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> Self::Future {
        let Accepted { io, connection } = accepted;
        let protocol =
            if connection.tls.is_some() || connection.passed_name.is_some() { "TLS" } else { "TCP" };
        let context = Context::on(Arc::new(connection));
        let open = OpenFlow::new(self.recorder.clone(), context.clone(), protocol);
        let io: BoxIo = Box::new(Counted { inner: io, traffic: Arc::clone(&open.traffic) });
        RecordFlowFuture { served: self.inner.call(Flow { context, io }), open }
    }
}

impl<S> Service<Flow<BoxDatagrams>> for RecordFlows<S>
where
    S: Service<Flow<BoxDatagrams>, Response = (), Error = Fault>,
{
    type Response = ();
    type Error = Infallible;
    type Future = RecordFlowFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, flow: Flow<BoxDatagrams>) -> Self::Future {
        let Flow { context, io } = flow;
        let open = OpenFlow::new(self.recorder.clone(), context.clone(), "UDP");
        let io: BoxDatagrams = Box::new(Counted { inner: io, traffic: Arc::clone(&open.traffic) });
        RecordFlowFuture { served: self.inner.call(Flow { context, io }), open }
    }
}

pin_project! {
    /// A flow in [`RecordFlows`].
    pub struct RecordFlowFuture<F> {
        #[pin]
        served: F,
        open: OpenFlow,
    }
}

impl<F: Future<Output = Result<(), Fault>>> Future for RecordFlowFuture<F> {
    type Output = Result<(), Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.open.ended = Some(ready!(this.served.poll(cx)));
        Poll::Ready(Ok(()))
    }
}

/// A flow whose record is not finished; dropping it finishes the record.
struct OpenFlow {
    recorder: Recorder,
    context: Context,
    protocol: &'static str,
    time: SystemTime,
    traffic: Arc<Traffic>,
    ended: Option<Result<(), Fault>>,
}

impl OpenFlow {
    fn new(recorder: Recorder, context: Context, protocol: &'static str) -> Self {
        let (time, traffic) = (SystemTime::now(), Arc::default());
        Self { recorder, context, protocol, time, traffic, ended: None }
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let fault = match self.ended.take() {
            Some(Ok(())) => None,
            Some(Err(fault)) => Some(fault),
            None => Some(Fault::new(Reason::Draining).with_detail("cut off")),
        };
        let end = FlowEnd {
            time: self.time,
            protocol: self.protocol,
            duration: self.context.started().elapsed(),
            bytes_in: self.traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.traffic.bytes_out.load(Ordering::Relaxed),
        };
        self.recorder.finish_flow(&end, &self.context, fault.as_ref());
    }
}

/// Bytes of a flow so far.
#[derive(Debug, Default)]
struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
    fn came(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn went(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The client's side of a flow, counted.
struct Counted<T> {
    inner: T,
    traffic: Arc<Traffic>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.traffic.came(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Task<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.traffic.went(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Datagrams for Counted<BoxDatagrams> {
    fn poll_recv(&mut self, cx: &mut Task<'_>) -> Poll<Option<Bytes>> {
        let received = ready!(self.inner.poll_recv(cx));
        self.traffic.came(received.as_ref().map_or(0, Bytes::len));
        Poll::Ready(received)
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.inner.send(datagram)?;
        self.traffic.went(datagram.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
