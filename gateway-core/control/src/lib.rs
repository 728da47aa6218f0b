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
//! ```
//! use std::{sync::Arc, time::SystemTime};
//! use axum::{Router, body::Body};
//! use towpath_ca::{Authority, TokenKey};
//! use towpath_control::{Configuration, Plane};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::create("cluster.local".parse()?, Authority::DEFAULT_TTL)?;
//! let tokens = TokenKey::generate()?;
//! let id = "spiffe://cluster.local/ns/shop/sa/reviews".parse()?;
//! let token = tokens.mint(&id, authority.fingerprint(), TokenKey::DEFAULT_TTL, SystemTime::now());
//!
//! // The plane is a service: alone, or as part of another one.
//! let plane = Plane::new(Arc::new(authority), tokens, Configuration::read([])?);
//! let to_body = |request: http::Request<Body>| request.map(towpath_gateway_core::Body::new);
//! let plane = ServiceBuilder::new().map_request(to_body).service(plane);
//! let app: Router = Router::new().fallback_service(plane);
//!
//! let request = http::Request::get("/v1/config").header("authorization", format!("Bearer {token}"));
//! assert_eq!(app.clone().oneshot(request.body(Body::empty())?).await?.status(), 200);
//! let stranger = http::Request::get("/v1/config").body(Body::empty())?;
//! assert_eq!(app.oneshot(stranger).await?.status(), 401);
//! # Ok(())
//! # }
//! ```
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
