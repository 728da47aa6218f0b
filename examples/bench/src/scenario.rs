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
    /// Towpath with the JSON access log beside Towpath without
    Log,
}

/// Sizes of the table in [`Scenario::Routes`].
const TABLES: [u32; 3] = [1, 100, 10_000];

/// How a proxy is set up beyond what its scenario asks of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    /// As it is.
    Usual,
    /// With so many routes.
    Table(u32),
    /// With its access log.
    Logged,
}

impl Variant {
    /// What it adds to the name of the proxy.
    pub(crate) fn suffix(self) -> String {
        match self {
            Self::Usual => String::new(),
            Self::Table(count) => format!(" {count}"),
            Self::Logged => " with log".to_owned(),
        }
    }
}

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
            Self::Memory => "cold start, and memory of 1,000 idle connections",
            Self::Log => "JSON access log to a file beside none, h1 plaintext, 64 connections",
            Self::Routes => "route table, request to the last prefix, h1 plaintext, 64 connections",
        }
    }

    /// The load, where there is one.
    pub(crate) fn load(self) -> Load {
        match self {
            Self::H1 | Self::Tls | Self::Mtls | Self::Routes | Self::Memory | Self::Log => {
                Load::Wrk { connections: 64 }
            }
            Self::Large => Load::Wrk { connections: 8 },
            Self::H2 => Load::H2 { connections: 16, streams: 8 },
            Self::Rate => Load::Rate { connections: 32, per_second: 3000 },
            Self::Handshake => Load::Handshakes { connections: 32 },
        }
    }

    /// The forms of each proxy that are measured side by side.
    pub(crate) fn variants(self) -> Vec<Variant> {
        match self {
            Self::Routes => TABLES.map(Variant::Table).to_vec(),
            Self::Log => vec![Variant::Usual, Variant::Logged],
            _ => vec![Variant::Usual],
        }
    }

    /// Whether clients speak TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::H2 | Self::Handshake)
    }
}
