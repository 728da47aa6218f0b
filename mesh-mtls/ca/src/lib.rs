//! The embedded certificate authority of the mesh: who signs workload certificates, how a workload asks for one, and
//! how it keeps it fresh.
//!
//! | type | what it is |
//! |---|---|
//! | [`Authority`] | the root key and what it signs: one SPIFFE id per certificate, nothing that the applicant chose |
//! | [`TokenKey`], [`JoinToken`] | the first proof of identity of a process that has no certificate yet |
//! | [`Signer`], [`request`] | one certificate: key pair, CSR, answer |
//! | [`keep_fresh`] | the whole life of a workload's credential: first fetch, renewal, back-off, reports |
//! | [`Keeper`] | the same for a source that pushes credentials |
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use towpath_ca::{Authority, Signer, SignerError, SigningAnswer, SigningRequest, request};
//!
//! /// Signs in the same process; a real one carries the request to the control plane.
//! struct Local(Authority);
//!
//! impl Signer for Local {
//!     async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
//!         let id = "spiffe://cluster.local/ns/shop/sa/reviews".parse()?;
//!         let chain = self.0.issue(request.csr.as_bytes(), &id, Duration::from_hours(1))?;
//!         Ok(SigningAnswer::new(&chain, &self.0.bundle()?))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let signer = Local(Authority::create("cluster.local".parse()?, Duration::from_hours(24))?);
//! let credential = request(&signer, None, SystemTime::now).await?;
//! assert_eq!(credential.id().service_account(), Some("reviews"));
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows no HTTP: a [`Signer`] carries a request to whoever answers it.

mod authority;
mod client;
mod csr;
mod files;
mod fingerprint;
mod keeper;
mod pem;
mod renewal;
mod store;
mod token;

pub use authority::{Authority, IssueError};
pub use client::{
    RequestError, Signer, SignerError, SigningAnswer, SigningRequest, key_and_request, request,
};
pub use csr::CsrError;
pub use fingerprint::Fingerprint;
pub use keeper::{Keeper, RenewalEvent, RenewalSettings};
pub use renewal::keep_fresh;
pub use store::StoreError;
pub use token::{JoinToken, TokenError, TokenKey, TokenKeyError};
