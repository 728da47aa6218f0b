//! What one worker counts.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use towpath_gateway_core::{Decision, Fault, RouteName};

use super::recent::{Names, Recent};
use super::series::{FlowKey, Flows, RefusalKey, RequestKey, Requests, Told, ToldKey};
use crate::AccessLog;
use crate::flow_record::FlowEnd;
use crate::record::End;
use crate::recorder::Origin;

/// One worker's part of the metrics. Clones count together: give each worker a shard of its own
/// ([`Metrics::shard`](crate::Metrics::shard)), so that no two workers ever meet at one.
#[derive(Clone)]
pub struct MetricsShard(Arc<Parts>);

struct Parts {
    shared: Arc<Shared>,
    // Only the shard's worker takes these locks; a scrape reads the lists in `shared`.
    requests: Mutex<(Recent, HashMap<RequestKey, Arc<Requests>>)>,
    flows: Mutex<HashMap<FlowKey, Arc<Flows>>>,
    refusals: Mutex<HashMap<RefusalKey, Arc<AtomicU64>>>,
    told: Mutex<HashMap<ToldKey, Arc<AtomicU64>>>,
}

/// Every series of every shard. A worker comes here only when it opens a new series.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) requests: List<RequestKey, Requests>,
    pub(crate) flows: List<FlowKey, Flows>,
    pub(crate) refusals: List<RefusalKey, AtomicU64>,
    pub(crate) told: List<ToldKey, AtomicU64>,
    logs: Mutex<Vec<Arc<AtomicU64>>>,
}

/// A list of series that only grows.
#[derive(Debug)]
pub(crate) struct List<K, V>(Mutex<Vec<(K, Arc<V>)>>);

impl<K, V> Default for List<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone, V: Default> List<K, V> {
    fn open(&self, key: &K) -> Arc<V> {
        let series = Arc::new(V::default());
        lock(&self.0).push((key.clone(), series.clone()));
        series
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&K, &V)) {
        lock(&self.0).iter().for_each(|(key, series)| visit(key, series));
    }
}

impl Shared {
    /// Access log lines that were dropped, in all logs that are watched.
    pub(crate) fn dropped_lines(&self) -> u64 {
        lock(&self.logs).iter().map(|log| log.load(Ordering::Relaxed)).sum()
    }
}

impl MetricsShard {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::new(Parts {
            shared: shared.clone(),
            requests: Mutex::default(),
            flows: Mutex::default(),
            refusals: Mutex::default(),
            told: Mutex::default(),
        }))
    }

    /// Counts what `log` drops, once however often it is given.
    pub(crate) fn watch(&self, log: &AccessLog) {
        let Some(counter) = log.dropped_counter() else { return };
        let mut logs = lock(&self.0.shared.logs);
        if !logs.iter().any(|known| Arc::ptr_eq(known, counter)) {
            logs.push(counter.clone());
        }
    }

    pub(crate) fn observe(
        &self,
        origin: &Origin,
        route: Option<&RouteName>,
        fault: Option<&Fault>,
        end: End,
    ) {
        let reason = fault.map(|fault| fault.reason().label());
        let names =
            Names { origin, route: route.map(|name| &name.route), code: end.status.unwrap_or(0), reason };
        let mut requests = lock(&self.0.requests);
        let (recent, all) = &mut *requests;
        recent.find(&names, |key| series(all, key, &self.0.shared.requests)).observe(end.duration);
        drop(requests);
        self.refused(fault);
    }

    pub(crate) fn observe_flow(
        &self,
        origin: &Origin,
        route: Option<&RouteName>,
        fault: Option<&Fault>,
        end: &FlowEnd,
    ) {
        let key = FlowKey {
            role: Arc::clone(&origin.facts.role),
            listener: Arc::clone(&origin.listener),
            protocol: end.protocol,
            route: route.map(|name| Arc::clone(&name.route)),
            reason: fault.map(|fault| fault.reason().label()),
        };
        let flows = series(&mut lock(&self.0.flows), &key, &self.0.shared.flows);
        flows.count.fetch_add(1, Ordering::Relaxed);
        flows.bytes_in.fetch_add(end.bytes_in, Ordering::Relaxed);
        flows.bytes_out.fetch_add(end.bytes_out, Ordering::Relaxed);
        self.refused(fault);
    }

    /// Counts what policies say that are not enforced.
    pub(crate) fn tell(&self, decision: &Decision) {
        let audit = decision.audit.as_ref().map(|policy| (Some(policy), Told::Audit));
        let dry_run = decision.dry_run.as_ref();
        let tried =
            dry_run.map(|told| (told.policy.as_ref(), if told.allowed { Told::Allow } else { Told::Deny }));
        for (policy, verdict) in audit.into_iter().chain(tried) {
            let key = ToldKey { policy: policy.cloned(), verdict };
            let mut all = lock(&self.0.told);
            series(&mut all, &key, &self.0.shared.told).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a refusal by a policy, if it is one.
    fn refused(&self, fault: Option<&Fault>) {
        if let Some((reason, policy)) =
            fault.and_then(|fault| Some((fault.reason().label(), fault.policy()?)))
        {
            let key = RefusalKey { policy: policy.clone(), reason };
            let mut refusals = lock(&self.0.refusals);
            series(&mut refusals, &key, &self.0.shared.refusals).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for MetricsShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsShard").finish_non_exhaustive()
    }
}

/// The series of `key`; it is opened if it is new.
fn series<K: Clone + Eq + Hash, V: Default>(
    own: &mut HashMap<K, Arc<V>>,
    key: &K,
    shared: &List<K, V>,
) -> Arc<V> {
    if let Some(series) = own.get(key) {
        return series.clone();
    }
    let series = shared.open(key);
    own.insert(key.clone(), series.clone());
    series
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
