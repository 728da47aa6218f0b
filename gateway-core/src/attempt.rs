//! One try of a request at one endpoint.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::{Connection, Endpoint, Reason, SlotTaken, SpanId};

/// A try: which endpoint, over which connection, under which span, and how it ended. Clones share it.
#[derive(Debug, Clone)]
pub struct Attempt(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    endpoint: Arc<Endpoint>,
    connection: OnceLock<Arc<Connection>>,
    span: OnceLock<SpanId>,
    outcome: OnceLock<(Outcome, Duration)>,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status.
    Status(u16),
    /// No answer, for this reason.
    Fault(Reason),
}

impl Attempt {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self(Arc::new(Slots {
            endpoint,
            connection: OnceLock::new(),
            span: OnceLock::new(),
            outcome: OnceLock::new(),
        }))
    }

    /// The endpoint that was chosen.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// The connection that carried the try, once there is one.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.connection.get()
    }

    /// Written by the pool.
    pub fn set_connection(&self, connection: Arc<Connection>) -> Result<(), SlotTaken> {
        self.0.connection.set(connection).map_err(|_| SlotTaken("attempt connection"))
    }

    /// The client span of the try.
    pub fn span(&self) -> Option<SpanId> {
        self.0.span.get().copied()
    }

    /// Written by the tracing layer.
    pub fn set_span(&self, span: SpanId) -> Result<(), SlotTaken> {
        self.0.span.set(span).map_err(|_| SlotTaken("attempt span"))
    }

    /// How the try ended and how long its answer took, once it did.
    pub fn outcome(&self) -> Option<(Outcome, Duration)> {
        self.0.outcome.get().copied()
    }

    /// Written by the balancer when the response head or the fault arrives.
    pub fn set_outcome(&self, outcome: Outcome, took: Duration) -> Result<(), SlotTaken> {
        self.0.outcome.set((outcome, took)).map_err(|_| SlotTaken("attempt outcome"))
    }
}
