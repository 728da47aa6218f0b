//! Mutual TLS between workloads, by SPIFFE identity: credentials and their rotation, verification of peers, and the
//! accept and originate layers.

mod bundle;
mod credential;
mod error;
mod files;
mod identity;
mod mode;
mod moment;
mod peer;
mod pem;
mod svid;
mod tls;
mod verifier;

pub use bundle::TrustBundle;
pub use credential::Credential;
pub use error::CredentialError;
pub use identity::Identity;
pub use mode::MtlsMode;
pub use peer::InvalidPeer;
pub use svid::{InvalidSvid, Svid};
