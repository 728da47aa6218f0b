//! Whether this process should be sent requests, and what it waits for if not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named conditions that must all be done before requests should come. Clones share them. A process without
/// conditions is ready.
///
/// ```
/// use towpath_observability::Readiness;
///
/// let ready = Readiness::new();
/// ready.waiting("identity", "the control plane does not answer; next try in 2 s");
/// assert!(!ready.is_ready());
/// ready.done("identity");
/// assert!(ready.is_ready());
/// ready.draining();
/// assert!(!ready.is_ready());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<String, String>,
    draining: bool,
}

impl Readiness {
    /// No conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process waits for `condition`; `why` says what stands in the way and what happens next. A later word on
    /// the same condition replaces the earlier one.
    pub fn waiting(&self, condition: impl Into<String>, why: impl Into<String>) {
        self.state().waiting.insert(condition.into(), why.into());
    }

    /// The process no longer waits for `condition`.
    pub fn done(&self, condition: &str) {
        self.state().waiting.remove(condition);
    }

    /// The process is shutting down and will not be ready again.
    pub fn draining(&self) {
        self.state().draining = true;
    }

    /// Whether nothing is waited for and the process is not shutting down.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && !state.draining
    }

    /// What stands in the way, as condition and reason, in the order of names.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let state = self.state();
        let draining =
            state.draining.then(|| ("draining".to_owned(), "the process is shutting down".to_owned()));
        let waiting = state.waiting.iter().map(|(condition, why)| (condition.clone(), why.clone()));
        draining.into_iter().chain(waiting).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
