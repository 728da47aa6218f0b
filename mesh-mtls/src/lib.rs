//! Mutual TLS between workloads, by SPIFFE identity: credentials and their rotation, verification of peers, and the
//! accept and originate layers.
//!
//! | type | what it is |
//! |---|---|
//! | [`TrustBundle`] | a trust domain and the roots that vouch for it |
//! | [`Credential`] | a workload's certificate chain, key and bundle, checked as peers will check it |
//! | [`Identity`] | the credential in use: a handle that layers share and rotation stores into |
//! | [`AcceptLayer`] | ends mesh mTLS on incoming connections, by [`MtlsMode`] |
//! | [`OriginateLayer`] | begins mesh mTLS on outgoing connections |
//! | [`Svid`] | what one certificate says of its holder |
//!
//! A peer is who its certificate says: exactly one URI name that is a SPIFFE id of the bundle's trust domain, the
//! extended key usage of its side of TLS, signed under a root of the bundle, valid now. Host names, addresses and the
//! system's roots play no part. Resumed sessions are checked again, and no early data is sent or taken.
//!
//! ```no_run
//! use std::path::Path;
//! use towpath_gateway_core::Live;
//! use towpath_mesh_mtls::{AcceptLayer, Credential, Identity, MtlsMode, OriginateLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::pending();
//! let accept = AcceptLayer::new(identity.clone(), Live::new(MtlsMode::Strict));
//! let originate = OriginateLayer::new(Some(identity.clone()));
//!
//! // Now, and again whenever the files change: open connections live on, the next handshake uses the new one.
//! identity.store(Credential::from_dir(Path::new("/var/run/secrets/workload"), "cluster.local".parse()?)?);
//! # Ok(())
//! # }
//! ```

mod accept;
#[cfg(test)]
mod authority;
mod bundle;
mod credential;
mod der;
mod error;
mod facts;
mod files;
mod identity;
mod mode;
mod moment;
mod originate;
mod peer;
mod pem;
mod refusal;
mod server_name;
mod sniff;
mod svid;
mod tls;
mod verifier;
mod words;

pub use accept::{Accept, AcceptFuture, AcceptLayer};
pub use bundle::TrustBundle;
pub use credential::Credential;
pub use error::CredentialError;
pub use identity::Identity;
pub use mode::MtlsMode;
pub use originate::{Originate, OriginateFuture, OriginateLayer};
pub use peer::InvalidPeer;
pub use refusal::{Refusal, Refusals};
pub use svid::{InvalidSvid, Svid};
