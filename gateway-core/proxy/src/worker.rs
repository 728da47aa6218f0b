//! What each worker owns: its way out and its share of the metrics.

use std::sync::Arc;
use std::time::Duration;

use towpath_gateway_core::HttpService;
use towpath_mesh_mtls::Identity;
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_stacks::{FlowParts, Parts, Reach, Streams, streams, upstream};

use crate::Program;

/// Makes the parts of workers.
#[derive(Debug, Clone)]
pub(crate) struct Supply {
    pub(crate) program: Program,
    pub(crate) facts: ProcessFacts,
    pub(crate) metrics: Metrics,
    pub(crate) log: AccessLog,
    pub(crate) identity: Option<Identity>,
}

/// The parts of every worker, by its number. Made once; the stacks of all listeners take theirs from here.
#[derive(Debug)]
pub(crate) struct WorkerParts {
    supply: Supply,
    limits: Arc<Store>,
    workers: Vec<Own>,
}

#[derive(Debug, Clone)]
struct Own {
    recorder: Recorder,
    upstream: HttpService,
    streams: Streams,
}

impl WorkerParts {
    /// Parts for `count` workers.
    pub(crate) fn new(count: usize, supply: Supply) -> Self {
        let workers = std::iter::repeat_with(|| supply.own()).take(count).collect();
        Self { supply, limits: Arc::new(Store::new()), workers }
    }

    /// The parts of worker `number` for the listener of this name.
    pub(crate) fn of(&self, (number, listener): (usize, &Arc<str>)) -> Parts {
        let Own { recorder, upstream, .. } = self.own(number);
        Parts {
            recorder: recorder.listener(Arc::clone(listener)),
            limits: Arc::clone(&self.limits),
            upstream,
        }
    }

    /// The same for layer 4.
    pub(crate) fn flows_of(&self, (number, listener): (usize, &Arc<str>)) -> FlowParts {
        let Own { recorder, streams, upstream } = self.own(number);
        FlowParts { recorder: recorder.listener(Arc::clone(listener)), streams, upstream }
    }

    fn own(&self, number: usize) -> Own {
        self.workers.get(number).cloned().unwrap_or_else(|| self.supply.own())
    }
}

impl Supply {
    fn own(&self) -> Own {
        let reach = Reach { identity: self.identity.clone(), connect_timeout: connect_timeout(self.program) };
        Own {
            recorder: Recorder::new(self.facts.clone(), self.metrics.shard(), self.log.clone()),
            upstream: HttpService::new(upstream(reach.clone())),
            streams: streams(reach),
        }
    }
}

/// Inside the mesh a connection is made soon or not at all; from the edge it may have to travel.
fn connect_timeout(program: Program) -> Duration {
    match program {
        Program::Sidecar => towpath_upstream::MESH_CONNECT_TIMEOUT,
        Program::Gateway | Program::Ingress => towpath_upstream::EDGE_CONNECT_TIMEOUT,
    }
}
