//! Which layers the stacks hold, told from their types.
#![allow(clippy::unwrap_used, missing_docs)]

use std::any::type_name_of_val;
use std::sync::Arc;
use std::time::Duration;

use towpath_gateway_core::{HttpService, Live};
use towpath_observability::{AccessLog, Metrics, ProcessFacts, Recorder};
use towpath_rate_limit::Store;
use towpath_routing::Normalization;
use towpath_stacks::{Entry, Parts, Reach, gateway, ingress, sidecar_inbound, sidecar_outbound, upstream};

fn parts() -> Parts {
    let reach = Reach { identity: None, connect_timeout: Duration::from_secs(1) };
    Parts {
        recorder: Recorder::new(ProcessFacts::default(), Metrics::new().shard(), AccessLog::off()),
        limits: Arc::new(Store::new()),
        upstream: HttpService::new(upstream(reach)),
    }
}

fn entry() -> Entry {
    Entry {
        routes: Live::default(),
        normalization: Live::new(Normalization::edge()),
        authentication: Live::default(),
        authorization: Live::default(),
        port: 80,
    }
}

/// The services of layers by whose types a duty is told.
const API_MANAGEMENT: [&str; 2] = ["CheckApiKey<", "LimitRate<"];
const AUTHORIZATION: [&str; 3] = ["CheckTokens<", "CustomAuthorize<", "authorize::Authorize<"];

#[tokio::test]
async fn the_gateway_knows_consumers_and_limits_and_authorizes() {
    let stack = gateway(parts(), entry());
    for layer in API_MANAGEMENT.into_iter().chain(AUTHORIZATION) {
        assert!(type_name_of_val(&stack).contains(layer), "{layer} is missing");
    }
}

#[tokio::test]
async fn the_ingress_authorizes_and_leaves_api_management_to_the_gateway() {
    let stack = ingress(parts(), entry());
    for layer in AUTHORIZATION {
        assert!(type_name_of_val(&stack).contains(layer), "{layer} is missing");
    }
    for layer in API_MANAGEMENT {
        assert!(!type_name_of_val(&stack).contains(layer), "{layer} is the gateway's duty");
    }
}

#[tokio::test]
async fn a_sidecar_authorizes_what_comes_in() {
    let inbound = sidecar_inbound(parts(), entry());
    let outbound = sidecar_outbound(parts(), Live::default(), Live::new(Normalization::mesh()));
    for layer in AUTHORIZATION {
        assert!(type_name_of_val(&inbound).contains(layer), "{layer} is missing");
        assert!(!type_name_of_val(&outbound).contains(layer), "{layer} is the other side's duty");
    }
}
