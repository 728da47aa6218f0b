//! Issuers of workload credentials beside our own: an Istio CA, and an agent of the SPIFFE Workload API such as SPIRE's.
//!
//! | feature | type | what it is |
//! |---|---|---|
//! | `istio-ca` | [`IstioCa`] | a [`Signer`](towpath_ca::Signer) for [`keep_fresh`](towpath_ca::keep_fresh) |
//! | `workload-api` | [`follow`] | keeps a credential as the agent pushes it |
//!
//! Both speak gRPC as clients, with messages that are declared by hand (`grpc.rs`). Both features are on by default.

#[cfg(any(feature = "istio-ca", feature = "workload-api"))]
mod grpc;
#[cfg(feature = "istio-ca")]
mod istio_ca;
#[cfg(feature = "workload-api")]
mod svids;
#[cfg(feature = "workload-api")]
mod workload_api;
#[cfg(feature = "workload-api")]
mod workload_endpoint;

#[cfg(any(feature = "istio-ca", feature = "workload-api"))]
pub use grpc::{CallError, Code};
#[cfg(feature = "istio-ca")]
pub use istio_ca::{IstioCa, IstioCaError, IstioCaSettings};
#[cfg(feature = "workload-api")]
pub use workload_api::follow;
#[cfg(feature = "workload-api")]
pub use workload_endpoint::{InvalidEndpoint, WorkloadEndpoint};
