//! W3C trace context as layers: a request keeps the trace of its caller, and every try upstream has a span of its own.
//!
//! | layer | what it does |
//! |---|---|
//! | [`TraceLayer`] | continues the caller's trace or starts one; our pass gets a span |
//! | [`SpanLayer`] | gives one try upstream a client span and tells it to the other side |
//!
//! [`Traceparent`] reads and writes the header and can be used without any layer. Spans are not exported here: the
//! access log of `towpath-observability` shows them.

mod ids;
mod span;
mod trace;
mod traceparent;

pub use ids::{random, span_id, trace_id};
pub use span::{Span, SpanFuture, SpanLayer};
pub use trace::{Trace, TraceLayer};
pub use traceparent::{InvalidTraceparent, TRACEPARENT, TRACESTATE, Traceparent};
