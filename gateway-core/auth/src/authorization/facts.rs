//! What a policy may ask about.

use std::net::IpAddr;

use http::HeaderMap;
use towpath_gateway_core::{SpiffeId, Token};

/// What is known about a request or a connection that wants to pass. About what is not known, ALLOW rules do not hold and
/// other rules do.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// Identity that the peer proved; `None` on plaintext.
    pub principal: Option<&'a SpiffeId>,
    /// Address that the packets come from.
    pub source_ip: Option<IpAddr>,
    /// Address of the client: that of the packets, or the one that trusted proxies tell.
    pub remote_ip: Option<IpAddr>,
    /// Address that was asked for.
    pub destination_ip: Option<IpAddr>,
    /// Port that was asked for.
    pub port: Option<u16>,
    /// Server name of the TLS hello; `None` if there was none.
    pub server_name: Option<&'a str>,
    /// The HTTP side.
    pub http: Http<'a>,
}

/// The HTTP side of what wants to pass.
#[derive(Debug, Clone, Default)]
pub enum Http<'a> {
    /// A request.
    Request(HttpFacts<'a>),
    /// A connection that carries something else: ALLOW rules that name HTTP are void, other rules widen to what is
    /// left of them.
    #[default]
    None,
    /// A connection that requests will come on. Refused is only what no request could make pass; every request is
    /// still to be evaluated by itself.
    Ahead,
}

/// The facts of a request.
#[derive(Debug, Clone, Copy)]
pub struct HttpFacts<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Host with port, as sent; `None` if the request names none.
    pub host: Option<&'a str>,
    /// Normalized path without query.
    pub path: &'a str,
    /// What stands behind the `?`, as sent.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// The verified token that came with it.
    pub token: Option<&'a Token>,
}
