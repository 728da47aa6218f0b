//! What the program is told.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use clap::Parser;
use http::Uri;

/// A small HTTP application that calls others.
///
/// It answers `/` and `/page` with what it is and what the services it calls answered, so that a page is made of
/// several services. Further paths: /upload, /download?bytes=N, /break?bytes=N, /slow?ms=N, /ws (WebSocket echo) and
/// /bookshop.Chat/Echo (gRPC echo). Every other path is answered with the headers that arrived.
#[derive(Debug, Clone, Parser)]
#[command(name = "service", disable_version_flag = true, max_term_width = 100)]
pub struct Args {
    /// Name of this service, as its answers show it
    #[arg(long, default_value = "service", value_name = "NAME")]
    pub name: String,

    /// Version of this service, as its answers show it
    #[arg(long, default_value = "v1", value_name = "VERSION")]
    pub version: String,

    /// Cluster that this service runs in, as its answers show it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CLUSTER")]
    pub cluster: String,

    /// Address to listen on; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:9080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// A service to call for every page, as NAME=http://HOST:PORT/PATH; may be given more than once
    #[arg(long = "call", value_name = "NAME=URL")]
    pub calls: Vec<Call>,

    /// Connect to this address for every call, whatever the URL's host: the outbound listener of a sidecar
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<SocketAddr>,
}

/// A service to call for every page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Name under which its answer appears.
    pub name: String,
    /// Where it is, with scheme `http`.
    pub url: Uri,
}

/// Why a text is not a [`Call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidCall {
    /// There is no name before an equals sign.
    Name,
    /// What follows is not an absolute URL.
    Url,
    /// The scheme is not `http`.
    Scheme,
}

impl FromStr for Call {
    type Err = InvalidCall;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) =
            text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(InvalidCall::Name)?;
        let url: Uri = url.parse().map_err(|_| InvalidCall::Url)?;
        match (url.scheme_str(), url.authority()) {
            (Some("http"), Some(_)) => Ok(Self { name: name.to_owned(), url }),
            (Some(_), Some(_)) => Err(InvalidCall::Scheme),
            _ => Err(InvalidCall::Url),
        }
    }
}

impl fmt::Display for InvalidCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "write NAME=URL, for instance details=http://127.0.0.1:9081/",
            Self::Url => "what follows the name is not a URL such as http://127.0.0.1:9081/",
            Self::Scheme => "only http:// can be called; a sidecar adds TLS",
        })
    }
}

impl std::error::Error for InvalidCall {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn calls_are_read_or_refused_with_advice() {
        let call: Call = "details=http://127.0.0.1:1/a?b=c".parse().unwrap();
        assert_eq!((call.name.as_str(), call.url.path()), ("details", "/a"));
        for (text, why) in [
            ("http://a/", InvalidCall::Name),
            ("=http://a/", InvalidCall::Name),
            ("a=/path", InvalidCall::Url),
            ("a=b c", InvalidCall::Url),
            ("a=https://b/", InvalidCall::Scheme),
        ] {
            assert_eq!(text.parse::<Call>(), Err(why), "{text}");
        }
    }

    #[test]
    fn flags_may_be_repeated_and_joined() {
        let args = ["service", "--name=a", "--call=x=http://127.0.0.1:1/", "--call", "y=http://127.0.0.1:2/"];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!((args.name.as_str(), args.calls.len()), ("a", 2));
    }
}
