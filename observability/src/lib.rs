//! What happened: one record per request, written as an access log line and counted in metrics; and the admin
//! endpoints that show readiness, metrics and configuration.
//!
//! | part | what it is |
//! |---|---|
//! | [`RecordLayer`] | follows a request to the end of its response, then makes one [`Record`] |
//! | [`FlowRecordLayer`] | the same for flows of layer 4 |
//! | [`AccessLog`] | writes records as JSON lines, on a thread of its own; never makes a worker wait |
//! | [`Metrics`], [`MetricsShard`] | counters and histograms, one shard per worker, summed when scraped |
//! | [`Admin`], [`Readiness`] | `/ready`, `/live`, `/metrics`, `/config` |

mod access_log;
mod admin;
mod body;
mod flow;
mod flow_record;
mod json;
mod layer;
mod metrics;
mod open;
mod readiness;
mod record;
mod recorder;
mod time;

pub use access_log::AccessLog;
pub use admin::Admin;
pub use flow::{FlowRecordLayer, RecordFlowFuture, RecordFlows};
pub use layer::{RecordFuture, RecordLayer, Recorded};
pub use metrics::{Metrics, MetricsShard};
pub use prometheus_client;
pub use readiness::Readiness;
pub use record::{AttemptRecord, Detail, DownstreamRecord, Record};
pub use recorder::{ProcessFacts, Recorder};
