//! Which layers the stacks hold, told from their types.
#![allow(clippy::unwrap_used, missing_docs)]

use std::any::type_name_of_val;
use std::sync::Arc;
use std::time::Duration;

use towpath_gateway_core::{HttpService, Live};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_routing::Routes;
use towpath_stacks::{Parts, Reach, gateway, ingress, upstream};

fn parts() -> Parts {
    let reach = Reach { identity: None, connect_timeout: Duration::from_secs(1) };
    Parts {
        recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
        limits: Arc::new(Store::new()),
        upstream: HttpService::new(upstream(reach)),
    }
}

const API_MANAGEMENT: [&str; 2] = ["towpath_auth::", "towpath_rate_limit::"];

#[tokio::test]
async fn the_gateway_knows_consumers_and_limits() {
    let stack = gateway(parts(), Live::new(Routes::default()));
    for layer in API_MANAGEMENT {
        assert!(type_name_of_val(&stack).contains(layer), "{layer} is missing");
    }
}

#[tokio::test]
async fn the_ingress_contains_neither() {
    let stack = ingress(parts(), Live::new(Routes::default()));
    assert!(type_name_of_val(&stack).contains("towpath_routing::"));
    for layer in API_MANAGEMENT {
        assert!(!type_name_of_val(&stack).contains(layer), "{layer} is the gateway's duty");
    }
}
