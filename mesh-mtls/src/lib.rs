//! Mutual TLS between workloads, by SPIFFE identity: credentials and their rotation, verification of peers, and the
//! accept and originate layers.

mod mode;

pub use mode::MtlsMode;
