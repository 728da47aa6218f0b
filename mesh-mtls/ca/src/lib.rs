//! The embedded certificate authority of the mesh: who signs workload certificates, how a workload asks for one, and
//! how it keeps it fresh.
//!
//! | type | what it is |
//! |---|---|
//! | [`Authority`] | the root key and what it signs: one SPIFFE id per certificate, nothing that the applicant chose |
//! | [`TokenKey`], [`JoinToken`] | the first proof of identity of a process that has no certificate yet |
//! | [`Signer`], [`request`] | one certificate: key pair, CSR, answer |
//! | [`keep_fresh`] | the whole life of a workload's credential: first fetch, renewal, back-off, reports |
//!
//! The crate knows no HTTP: a [`Signer`] carries a request to whoever answers it.

mod authority;
mod client;
mod csr;
mod files;
mod fingerprint;
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
pub use renewal::{RenewalEvent, RenewalSettings, keep_fresh};
pub use store::StoreError;
pub use token::{JoinToken, TokenError, TokenKey, TokenKeyError};
