//! One try of a request at one endpoint.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::{Connection, Context, Endpoint, Reason, SlotTaken, SpanId};

/// A try: which endpoint, over which connection, under which span, and how it ended. Clones share it.
#[derive(Clone)]
pub struct Attempt {
    endpoint: Arc<Endpoint>,
    context: Context,
    place: usize,
}

/// What is learned of a try. The tries of a record form a list that only grows; the first needs no room of its own.
pub(crate) struct Slots {
    endpoint: Arc<Endpoint>,
    connection: OnceLock<Arc<Connection>>,
    span: OnceLock<SpanId>,
    outcome: OnceLock<(Outcome, Duration)>,
    next: OnceLock<Box<Slots>>,
}

/// The tries of one record, oldest first.
#[derive(Default)]
pub(crate) struct Tries(OnceLock<Slots>);

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status.
    Status(u16),
    /// No answer, for this reason.
    Fault(Reason),
}

impl Slots {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            connection: OnceLock::new(),
            span: OnceLock::new(),
            outcome: OnceLock::new(),
            next: OnceLock::new(),
        }
    }

    /// Puts a try at the end of the list that begins here. Gives how many come before it.
    fn append(&self, endpoint: Arc<Endpoint>) -> usize {
        let (mut last, mut place, mut slots) = (self, 1, Box::new(Self::new(endpoint)));
        loop {
            match last.next.get() {
                Some(next) => (last, place) = (next, place + 1),
                None => match last.next.set(slots) {
                    Ok(()) => return place,
                    Err(back) => slots = back,
                },
            }
        }
    }
}

impl Tries {
    /// Begins a try. Gives how many came before it.
    pub(crate) fn begin(&self, endpoint: Arc<Endpoint>) -> usize {
        match self.0.get() {
            Some(first) => first.append(endpoint),
            None => match self.0.set(Slots::new(endpoint)) {
                Ok(()) => 0,
                Err(back) => self.begin(back.endpoint),
            },
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Slots> {
        std::iter::successors(self.0.get(), |slots| slots.next.get().map(|next| &**next))
    }

    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.iter().map(|slots| &slots.endpoint)
    }

    pub(crate) fn count(&self) -> usize {
        self.iter().count()
    }
}

impl Attempt {
    pub(crate) fn new(endpoint: Arc<Endpoint>, context: Context, place: usize) -> Self {
        Self { endpoint, context, place }
    }

    fn slots(&self) -> Option<&Slots> {
        self.context.tries().iter().nth(self.place)
    }

    fn set<T>(
        &self,
        name: &'static str,
        slot: impl FnOnce(&Slots) -> &OnceLock<T>,
        value: T,
    ) -> Result<(), SlotTaken> {
        let written = self.slots().map(|slots| slot(slots).set(value).is_ok());
        if written == Some(true) { Ok(()) } else { Err(SlotTaken(name)) }
    }

    /// The endpoint that was chosen.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The connection that carried the try, once there is one.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.slots()?.connection.get()
    }

    /// Written by the pool.
    pub fn set_connection(&self, connection: Arc<Connection>) -> Result<(), SlotTaken> {
        self.set("attempt connection", |slots| &slots.connection, connection)
    }

    /// The client span of the try.
    pub fn span(&self) -> Option<SpanId> {
        self.slots()?.span.get().copied()
    }

    /// Written by the tracing layer.
    pub fn set_span(&self, span: SpanId) -> Result<(), SlotTaken> {
        self.set("attempt span", |slots| &slots.span, span)
    }

    /// How the try ended and how long its answer took, once it did.
    pub fn outcome(&self) -> Option<(Outcome, Duration)> {
        self.slots()?.outcome.get().copied()
    }

    /// Written by the balancer when the response head or the fault arrives.
    pub fn set_outcome(&self, outcome: Outcome, took: Duration) -> Result<(), SlotTaken> {
        self.set("attempt outcome", |slots| &slots.outcome, (outcome, took))
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("endpoint", &self.endpoint)
            .field("connection", &self.connection())
            .field("span", &self.span())
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint::plaintext(([127, 0, 0, 1], port).into()))
    }

    #[test]
    fn each_try_has_slots_of_its_own() {
        let context = Context::new();
        assert!(context.attempt().is_none());
        let tries: Vec<_> = (1..=3).map(|port| context.begin_attempt(endpoint(port))).collect();
        tries[1].set_span(SpanId([7; 8])).unwrap();
        tries[2].set_outcome(Outcome::Status(200), Duration::ZERO).unwrap();

        let seen = context.attempts();
        assert_eq!(context.attempt_count(), 3);
        assert_eq!(seen.iter().map(|a| a.endpoint().address.port()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(seen.iter().map(Attempt::span).collect::<Vec<_>>(), [None, Some(SpanId([7; 8])), None]);
        let newest = context.attempt().unwrap();
        assert_eq!((newest.endpoint().address.port(), newest.outcome().is_some()), (3, true));
    }

    #[test]
    fn a_second_write_names_the_slot() {
        let attempt = Context::new().begin_attempt(endpoint(1));
        attempt.set_span(SpanId([1; 8])).unwrap();
        assert!(attempt.set_span(SpanId([2; 8])).unwrap_err().to_string().contains("attempt span"));
        assert_eq!(attempt.span(), Some(SpanId([1; 8])));
    }

    #[test]
    fn tries_begun_at_once_all_get_a_place() {
        let context = Context::new();
        std::thread::scope(|scope| {
            for port in 1..=4 {
                let context = context.clone();
                scope.spawn(move || {
                    let attempt = context.begin_attempt(endpoint(port));
                    let named = context.attempts().get(attempt.place).map(|a| a.endpoint().address.port());
                    assert_eq!(named, Some(port));
                });
            }
        });
        assert_eq!(context.attempt_count(), 4);
    }
}
