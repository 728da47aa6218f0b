//! What is measured.

use clap::ValueEnum;
use serde::Serialize;

use crate::load::Load;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scenario {
    /// HTTP/1.1 in plaintext on both sides
    H1,
    /// HTTP/1.1 over TLS 1.3, plaintext behind
    Tls,
    /// Two proxies with mutual TLS between them
    Mtls,
    /// HTTP/2 over TLS, HTTP/1.1 behind
    H2,
    /// Responses of 1 MiB
    Large,
    /// A full TLS handshake for each request
    Handshake,
    /// 3,000 requests a second: moderate load
    Rate,
    /// Resident memory of 1,000 idle connections
    Memory,
    /// Tables of 1, 100 and 10,000 routes
    Routes,
}

/// Sizes of the table in [`Scenario::Routes`].
pub(crate) const TABLES: [u32; 3] = [1, 100, 10_000];

impl Scenario {
    /// Heading in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::H1 => "h1 -> h1 plaintext, 64 connections",
            Self::Tls => "TLS 1.3 -> h1, 64 connections",
            Self::Mtls => "mTLS pair, h1 -> originate -> accept -> h1, 64 connections, both processes",
            Self::H2 => "h2 over TLS -> h1, 16 connections x 8 streams",
            Self::Large => "1 MiB responses, h1 plaintext, 8 connections",
            Self::Handshake => "full TLS 1.3 handshake per request, 32 connections",
            Self::Rate => "3,000 requests/s, h1 plaintext, 32 connections",
            Self::Memory => "memory of 1,000 idle connections",
            Self::Routes => "route table, request to the last prefix, h1 plaintext, 64 connections",
        }
    }

    /// The load, where there is one.
    pub(crate) fn load(self) -> Load {
        match self {
            Self::H1 | Self::Tls | Self::Mtls | Self::Routes | Self::Memory => Load::Wrk { connections: 64 },
            Self::Large => Load::Wrk { connections: 8 },
            Self::H2 => Load::H2 { connections: 16, streams: 8 },
            Self::Rate => Load::Rate { connections: 32, per_second: 3000 },
            Self::Handshake => Load::Handshakes { connections: 32 },
        }
    }

    /// Whether clients speak TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::H2 | Self::Handshake)
    }
}
