//! What came in: the facts of one accepted (or one opened) connection.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::{SpiffeId, Standing};

/// A transport connection and what was proved about its other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Address of the other side.
    pub peer: SocketAddr,
    /// Address of our side.
    pub local: SocketAddr,
    /// What TLS established; `None` on plaintext.
    pub tls: Option<TlsFacts>,
    /// The server name in a TLS hello that was read and left for the backend (RFC 6066 section 3), in lower case.
    pub passed_name: Option<Arc<str>>,
    /// Whether the bytes are TLS that is none of the mesh and ends at the application.
    pub passed_through: bool,
    /// Whether it may be used for more, if it is kept.
    pub standing: Standing,
}

impl Connection {
    /// A plaintext connection.
    pub fn plaintext(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            tls: None,
            passed_name: None,
            passed_through: false,
            standing: Standing::default(),
        }
    }

    /// The server name that the client asked for, whether TLS ends here or at the backend.
    pub fn server_name(&self) -> Option<&str> {
        self.passed_name.as_deref().or_else(|| self.tls.as_ref()?.server_name.as_deref())
    }

    /// The identity that the other side proved with its certificate, if it did.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.tls.as_ref()?.identity.as_ref()
    }
}

/// What a TLS handshake established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Protocol version.
    pub version: TlsVersion,
    /// Server name that the client asked for (RFC 6066 section 3).
    pub server_name: Option<Arc<str>>,
    /// Application protocol agreed on (RFC 7301).
    pub alpn: Option<Arc<str>>,
    /// Verified SPIFFE id of the other side.
    pub identity: Option<SpiffeId>,
    /// What `X-Forwarded-Client-Cert` says of the other side's certificate: one element, in Envoy's form.
    pub forwarded_cert: Option<Arc<str>>,
}

/// A TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// The name as logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}
