//! One record per request, shared by every layer it passes.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::Extensions;

use crate::attempt::Tries;
use crate::{
    Attempt, Backend, Connection, Consumer, Endpoint, Fault, Policies, Reason, RouteName, Token, TraceContext,
};

/// What one pass of a stack learned about its request.
///
/// Clones share the record, so the outermost layer (log, metrics) sees what inner layers learned. Each slot is
/// written once, by one layer; a second write returns [`SlotTaken`]. It is the only entry that the workspace puts
/// into request extensions. A nested or outbound stack makes a [`Context::child`].
#[derive(Clone)]
pub struct Context(Arc<Slots>);

struct Slots {
    parent: Option<Context>,
    started: Instant,
    /// Known from the start; a cell that is filled later costs a hundred instructions.
    connection: Option<Arc<Connection>>,
    trace: OnceLock<TraceContext>,
    route: OnceLock<(RouteName, Policies)>,
    client: OnceLock<IpAddr>,
    token: OnceLock<Token>,
    consumer: OnceLock<Consumer>,
    decision: OnceLock<Decision>,
    session: OnceLock<Session>,
    backend: OnceLock<Arc<Backend>>,
    deadline: OnceLock<Instant>,
    held: OnceLock<Duration>,
    fault: OnceLock<Fault>,
    tries: Tries,
}

/// What authorization decided, and by which policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub allowed: bool,
    /// `namespace/name` of the policy that decided; `None` if none applied.
    pub policy: Option<Arc<str>>,
    /// The rule of that policy that matched, counted from 0.
    pub rule: Option<usize>,
    /// Why, in a sentence; empty if there is nothing to say.
    pub why: &'static str,
    /// The first AUDIT policy that matches.
    pub audit: Option<Arc<str>>,
    /// What would have been decided if policies in dry-run were in force; `None` if there are none.
    pub dry_run: Option<DryRun>,
}

impl Decision {
    /// A decision by this policy, with nothing else to say.
    pub fn by(allowed: bool, policy: Option<Arc<str>>) -> Self {
        Self { allowed, policy, rule: None, why: "", audit: None, dry_run: None }
    }
}

/// A decision that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DryRun {
    /// Whether the request would have passed.
    pub allowed: bool,
    /// `namespace/name` of the policy that would have decided.
    pub policy: Option<Arc<str>>,
}

/// Where a persistent session is at home: the request goes there, if it still can.
#[derive(Debug, Clone)]
pub struct Session {
    /// The backend, whatever its weight.
    pub backend: Arc<Backend>,
    /// The endpoint, for the first try.
    pub endpoint: Arc<Endpoint>,
}

/// A slot of a record was written a second time: a stack holds two layers with the same duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotTaken(pub(crate) &'static str);

impl fmt::Display for SlotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} of this request was already set: is the layer in the stack twice?", self.0)
    }
}

impl std::error::Error for SlotTaken {}

impl From<SlotTaken> for Fault {
    fn from(taken: SlotTaken) -> Self {
        Fault::new(Reason::Internal).with_source(taken)
    }
}

macro_rules! slots {
    ($($(#[$doc:meta])* $get:ident, $(#[$set_doc:meta])* $set:ident: $type:ty, $name:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $get(&self) -> Option<&$type> {
                self.0.$get.get()
            }

            $(#[$set_doc])*
            pub fn $set(&self, value: $type) -> Result<(), SlotTaken> {
                self.0.$get.set(value).map_err(|_| SlotTaken($name))
            }
        )*
    };
}

impl Context {
    /// An empty record, started now.
    pub fn new() -> Self {
        Self::made(None, None)
    }

    /// The record of a request that arrived on `connection`.
    pub fn on(connection: Arc<Connection>) -> Self {
        Self::made(None, Some(connection))
    }

    /// The record of a nested pass or of a copy of the request: its own slots, linked to this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::made(Some(self.clone()), None)
    }

    /// The record among a request's extensions; made and put there if there is none.
    // Every layer asks: a call more for each would be 1 in 300 of a request's instructions.
    #[inline]
    pub fn of(extensions: &mut Extensions) -> Self {
        // Mostly it is there, and a look costs half of what room for a new one does.
        if let Some(found) = extensions.get::<Self>() {
            return found.clone();
        }
        Self::put(extensions)
    }

    #[cold]
    fn put(extensions: &mut Extensions) -> Self {
        extensions.get_or_insert_with(Self::new).clone()
    }

    /// The record among a request's extensions, if a server or an outer layer put one there.
    pub fn find(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    fn made(parent: Option<Self>, connection: Option<Arc<Connection>>) -> Self {
        Self(Arc::new(Slots {
            parent,
            started: Instant::now(),
            connection,
            trace: OnceLock::new(),
            route: OnceLock::new(),
            client: OnceLock::new(),
            token: OnceLock::new(),
            consumer: OnceLock::new(),
            decision: OnceLock::new(),
            session: OnceLock::new(),
            backend: OnceLock::new(),
            deadline: OnceLock::new(),
            held: OnceLock::new(),
            fault: OnceLock::new(),
            tries: Tries::default(),
        }))
    }

    /// The record of the pass that this one is nested in.
    pub fn parent(&self) -> Option<&Self> {
        self.0.parent.as_ref()
    }

    /// When the pass began.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// The connection that the request came in on, if a server said so with [`Context::on`].
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.connection.as_ref()
    }

    slots! {
        /// Where the request stands in its trace.
        trace,
        /// Written by the tracing layer.
        set_trace: TraceContext, "trace";

        /// Address of the client as trusted proxies tell it; unset where it is that of the connection.
        client,
        /// Written by the layer that knows how many proxies are trusted.
        set_client: IpAddr, "client";

        /// What a verified token says.
        token,
        /// Written by the layer that verified it.
        set_token: Token, "token";

        /// Who uses the API.
        consumer,
        /// Written by the authentication layer that accepted a credential.
        set_consumer: Consumer, "consumer";

        /// What authorization decided.
        decision,
        /// Written by the authorization layer.
        set_decision: Decision, "decision";

        /// Where earlier requests of its session went.
        session,
        /// Written by the layer that keeps sessions.
        set_session: Session, "session";

        /// Where the request goes.
        backend,
        /// Written by the filter layer, or by whoever else chooses the backend.
        set_backend: Arc<Backend>, "backend";

        /// When the whole request must have been answered.
        deadline,
        /// Written by the deadline layer.
        set_deadline: Instant, "deadline";

        /// How long the request was held back on purpose. Its time limit does not count it.
        held,
        /// Written by the layer that injects delays.
        set_held: Duration, "held";

        /// Why the request ended early.
        fault,
        /// Written by the layer that turns a fault into a response.
        set_fault: Fault, "fault";
    }

    /// The rule that took the request.
    pub fn route(&self) -> Option<&RouteName> {
        self.0.route.get().map(|(name, _)| name)
    }

    /// The settings of type `P` that the request's route carries.
    pub fn policy<P: crate::Policy>(&self) -> Option<&P> {
        self.0.route.get()?.1.get()
    }

    /// Written by the routing layer.
    pub fn set_route(&self, name: RouteName, policies: Policies) -> Result<(), SlotTaken> {
        self.0.route.set((name, policies)).map_err(|_| SlotTaken("route"))
    }

    /// Begins a try at `endpoint`. Written by the balancer.
    pub fn begin_attempt(&self, endpoint: Arc<Endpoint>) -> Attempt {
        let place = self.0.tries.begin(Arc::clone(&endpoint));
        Attempt::new(endpoint, self.clone(), place)
    }

    /// The newest try.
    pub fn attempt(&self) -> Option<Attempt> {
        let (place, endpoint) = self.0.tries.endpoints().enumerate().last()?;
        Some(Attempt::new(Arc::clone(endpoint), self.clone(), place))
    }

    /// Every try so far, oldest first.
    pub fn attempts(&self) -> Vec<Attempt> {
        let endpoints = self.0.tries.endpoints().enumerate();
        endpoints.map(|(place, endpoint)| Attempt::new(Arc::clone(endpoint), self.clone(), place)).collect()
    }

    /// How many tries were begun.
    pub fn attempt_count(&self) -> usize {
        self.0.tries.count()
    }

    pub(crate) fn tries(&self) -> &Tries {
        &self.0.tries
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("connection", &self.0.connection)
            .field("trace", &self.0.trace)
            .field("route", &self.route())
            .field("consumer", &self.0.consumer)
            .field("fault", &self.0.fault)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clones_share_what_is_learned() {
        let outer = Context::new();
        let inner = outer.clone();
        inner.set_consumer(Consumer::new("shop/alice")).unwrap();
        assert_eq!(outer.consumer().map(|c| &*c.name), Some("shop/alice"));
    }

    #[test]
    fn a_second_write_is_a_fault_that_names_the_slot() {
        let context = Context::new();
        context.set_fault(Fault::new(Reason::NoRoute)).unwrap();
        let taken = context.set_fault(Fault::new(Reason::Denied)).unwrap_err();
        assert!(taken.to_string().contains("fault"));
        assert_eq!(context.fault().map(Fault::reason), Some(Reason::NoRoute));
        assert_eq!(Fault::from(taken).reason(), Reason::Internal);
    }

    #[test]
    fn a_child_has_slots_of_its_own_and_knows_its_parent() {
        let parent = Context::new();
        let child = parent.child();
        child.set_consumer(Consumer::new("a")).unwrap();
        assert!(parent.consumer().is_none());
        assert!(child.parent().is_some_and(|p| Arc::ptr_eq(&p.0, &parent.0)));
    }

    #[test]
    fn extensions_hold_one_record() {
        let mut extensions = Extensions::new();
        let first = Context::of(&mut extensions);
        let second = Context::of(&mut extensions);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!(extensions.len(), 1);
    }

    #[test]
    fn threads_that_race_for_a_slot_leave_one_winner() {
        let context = Context::new();
        let wins: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let context = context.clone();
                    scope.spawn(move || context.set_consumer(Consumer::new(n.to_string())).is_ok())
                })
                .collect();
            threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }

    proptest! {
        #[test]
        fn only_the_first_of_any_writes_counts(names in proptest::collection::vec("[a-z]{1,4}", 1..6)) {
            let context = Context::new();
            for name in &names {
                let _ = context.set_consumer(Consumer::new(name.as_str()));
            }
            prop_assert_eq!(context.consumer().map(|c| &*c.name), names.first().map(String::as_str));
        }
    }
}
