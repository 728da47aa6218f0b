//! Why a workload got nothing from the plane.

use std::time::Duration;

use http::StatusCode;

/// Why a request to the control plane failed. Each text says where, why, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// No connection.
    #[error("cannot connect to the control plane at {address}: {cause}; start it, or correct the address")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A connection, but not to the plane that the join token or the credential belongs to.
    #[error("the server at {address} is not trusted as control plane: {cause}")]
    Untrusted {
        /// Where.
        address: String,
        /// What TLS said.
        cause: String,
    },
    /// No answer in time.
    #[error("the control plane at {address} did not answer within {after:?}; see its log and load")]
    Timeout {
        /// Where.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the answer was whole.
    #[error("the control plane at {address} broke off: {cause}; see its log")]
    Broken {
        /// Where.
        address: String,
        /// What HTTP said.
        cause: String,
    },
    /// The plane said no.
    #[error("the control plane at {address} refused ({status}): {detail}")]
    Refused {
        /// Where.
        address: String,
        /// With which status.
        status: StatusCode,
        /// Why, in the plane's words.
        detail: String,
    },
    /// The answer is not what it should be.
    #[error("the answer of {address} is not that of a control plane: {cause}; is it another version?")]
    Answer {
        /// Where.
        address: String,
        /// What is wrong with it.
        cause: String,
    },
}
