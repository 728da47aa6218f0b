//! The central plane: it signs workload certificates and hands out configuration.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/certificates` `{"csr": PEM}` | `{"chain": PEM, "bundle": PEM, "trustDomain": name}` |
//! | `GET /v1/config` | `{"version": hash, "files": [{"name", "text"}]}`, with an `ETag` |
//! | `GET /v1/config?wait=<version>` | the same as soon as the version is another one; 304 after 30 seconds |
//!
//! Every request needs a caller: a join token (`Authorization: Bearer`) or, once the workload has one, its certificate.
//! Refusals are problem details (RFC 9457) whose `detail` says what to do.
//!
//! On the plane's side there are [`Plane`] (the HTTP service), [`plane_tls`] and [`PlaneAcceptLayer`] (its TLS); on the
//! workload's side [`PlaneClient`], which is a [`Signer`](towpath_ca::Signer) too.

mod accept;
mod caller;
mod client;
mod configuration;
mod distribution;
mod documents;
mod error;
mod exchange;
mod files;
mod pin;
mod plane;
mod refusal;
mod signing;
mod tls;

pub use accept::{PlaneAccept, PlaneAcceptFuture, PlaneAcceptLayer};
pub use client::PlaneClient;
pub use configuration::{ConfigBundle, ConfigFile, Configuration};
pub use error::PlaneError;
pub use files::ReadError;
pub use plane::Plane;
pub use tls::{PLANE_ACCOUNT, PLANE_NAMESPACE, PlaneTlsError, plane_id, plane_tls};
