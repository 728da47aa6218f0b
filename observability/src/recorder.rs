//! Where finished records go.

use std::sync::Arc;

use towpath_gateway_core::{Context, Decision, Fault};

use crate::flow_record::{self, FlowEnd};
use crate::record::{End, Head, Record};
use crate::{AccessLog, MetricsShard};

/// What a process is, as every record and metric of it says. Empty texts are left out of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessFacts {
    /// `gateway`, `ingress`, `sidecar`, or a name of your own.
    pub role: Arc<str>,
    /// `namespace/name` of the workload.
    pub workload: Arc<str>,
    /// Cluster it belongs to.
    pub cluster: Arc<str>,
}

impl ProcessFacts {
    /// Facts from their three parts.
    pub fn new(
        role: impl Into<Arc<str>>,
        workload: impl Into<Arc<str>>,
        cluster: impl Into<Arc<str>>,
    ) -> Self {
        Self { role: role.into(), workload: workload.into(), cluster: cluster.into() }
    }
}

/// Who speaks in a record: the process and one of its listeners.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) facts: ProcessFacts,
    pub(crate) pid: u32,
    pub(crate) listener: Arc<str>,
}

/// Takes finished records: counts them in one shard of the metrics and writes them to the access log. Clones share
/// both; give each worker a recorder with a shard of its own.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    origin: Origin,
    metrics: MetricsShard,
    log: AccessLog,
}

impl Recorder {
    /// A recorder of one worker. The lines that `log` has to drop are counted in the metrics of `metrics`.
    pub fn new(facts: ProcessFacts, metrics: MetricsShard, log: AccessLog) -> Self {
        metrics.watch(&log);
        let origin = Origin { facts, pid: std::process::id(), listener: "".into() };
        Self(Arc::new(Parts { origin, metrics, log }))
    }

    /// The same recorder for the requests of the listener of this name.
    #[must_use]
    pub fn listener(&self, name: impl Into<Arc<str>>) -> Self {
        let Parts { origin, metrics, log } = &*self.0;
        let origin = Origin { facts: origin.facts.clone(), pid: origin.pid, listener: name.into() };
        Self(Arc::new(Parts { origin, metrics: metrics.clone(), log: log.clone() }))
    }

    /// Whether records are written somewhere, beyond being counted.
    pub(crate) fn logs(&self) -> bool {
        self.0.log.is_on()
    }

    /// Counts a request; with its head, writes it to the access log too.
    pub(crate) fn finish(&self, head: Option<Head<'_>>, end: End, context: &Context, fault: Option<&Fault>) {
        let Parts { origin, metrics, log } = &*self.0;
        metrics.observe(origin, context.route(), fault, end);
        tell(metrics, context);
        if let Some(head) = head {
            let attempts = context.attempts();
            log.write(&Record::new(origin, head, end, context, fault, &attempts));
        }
    }

    /// Counts a flow of layer 4 and writes it to the access log.
    pub(crate) fn finish_flow(&self, end: &FlowEnd, context: &Context, fault: Option<&Fault>) {
        let Parts { origin, metrics, log } = &*self.0;
        metrics.observe_flow(origin, context.route(), fault, end);
        tell(metrics, context);
        log.write_line(|line| flow_record::write_json(line, origin, end, context, fault));
    }
}

fn tell(metrics: &MetricsShard, context: &Context) {
    let told = |decision: &&Decision| decision.audit.is_some() || decision.dry_run.is_some();
    if let Some(decision) = context.decision().filter(told) {
        metrics.tell(decision);
    }
}
