//! One request against one limit: whose bucket, and what is left of it.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use towpath_gateway_core::{Context, Fault, Reason};

use crate::gcra::{Pace, Verdict, duration};
use crate::{RateLimit, RateLimitKey, Store};

// draft-ietf-httpapi-ratelimit-headers-05, section 3: the form that clients know.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Whose requests are counted together.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Caller<'a> {
    Consumer(&'a str),
    V4([u8; 4]),
    /// One IPv6 caller owns at least a /64 (RFC 6177 section 2).
    V6Network([u16; 4]),
    /// Neither consumer nor address is known: such requests share one bucket.
    Unknown,
}

impl<'a> Caller<'a> {
    fn of(context: &'a Context, key: RateLimitKey) -> Self {
        match (key, context.consumer()) {
            (RateLimitKey::Consumer, Some(consumer)) => Self::Consumer(&consumer.name),
            // Behind proxies that are trusted every peer is one of them.
            _ => match (context.client(), context.connection()) {
                (Some(client), _) => Self::at(*client),
                (None, Some(connection)) => Self::at(connection.peer.ip()),
                (None, None) => Self::Unknown,
            },
        }
    }

    fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6Network([a, b, c, d])
            }
        }
    }
}

/// What is left of a bucket after a request that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: u32,
    remaining: u64,
    reset: Duration,
}

impl Quota {
    /// Charges the caller's bucket. Pace and burst are part of a bucket's name, so that a change of the numbers
    /// begins anew and never leaves a caller with a debt of another scale.
    pub(crate) fn charge(
        store: &Store,
        limit: &RateLimit,
        context: &Context,
        now: Instant,
    ) -> Result<Self, Fault> {
        let pace = Pace::new(limit.requests, limit.period, limit.burst);
        let caller = Caller::of(context, limit.key);
        match store.charge((&*limit.name, pace, caller), pace, now) {
            Verdict::Allow { remaining, reset, .. } => {
                Ok(Self { limit: limit.burst.get(), remaining, reset: duration(reset) })
            }
            Verdict::Refuse { retry_after } => Err(Fault::new(Reason::RateLimited)
                .with_policy(limit.name.clone())
                .with_retry_after(duration(retry_after))),
        }
    }

    /// Tells the caller. The limit is the burst: what a rested caller may send at once.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let reset = self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0);
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(reset));
    }
}

#[cfg(test)]
#[cfg(not(towpath_loom))]
mod tests {
    use std::sync::Arc;

    use towpath_gateway_core::{Connection, Consumer};

    use super::*;

    fn context(peer: &str, consumer: Option<&str>) -> Context {
        let local = "127.0.0.1:80".parse().unwrap();
        let context = Context::on(Arc::new(Connection::plaintext(peer.parse().unwrap(), local)));
        if let Some(name) = consumer {
            context.set_consumer(Consumer::new(name)).unwrap();
        }
        context
    }

    #[test]
    fn a_caller_is_a_consumer_or_else_an_address() {
        use RateLimitKey::{Address, Consumer};
        for (peer, consumer, key, caller) in [
            ("127.0.0.9:5", Some("shop/alice"), Consumer, Caller::Consumer("shop/alice")),
            ("127.0.0.9:5", Some("shop/alice"), Address, Caller::V4([127, 0, 0, 9])),
            ("127.0.0.9:5", None, Consumer, Caller::V4([127, 0, 0, 9])),
            ("[::ffff:127.0.0.9]:5", None, Address, Caller::V4([127, 0, 0, 9])),
            ("[2001:db8:1:2:3::4]:5", None, Address, Caller::V6Network([0x2001, 0xdb8, 1, 2])),
            ("[2001:db8:1:2:ffff::1]:9", None, Consumer, Caller::V6Network([0x2001, 0xdb8, 1, 2])),
        ] {
            assert_eq!(Caller::of(&context(peer, consumer), key), caller, "{peer} {consumer:?} {key:?}");
        }
        assert_eq!(Caller::of(&Context::new(), Consumer), Caller::Unknown);
        let told = context("127.0.0.9:5", None);
        told.set_client([203, 0, 113, 7].into()).unwrap();
        assert_eq!(Caller::of(&told, Address), Caller::V4([203, 0, 113, 7]));
    }

    #[test]
    fn the_headers_round_the_wait_up() {
        let mut headers = HeaderMap::new();
        Quota { limit: 10, remaining: 7, reset: Duration::from_millis(2_001) }.write(&mut headers);
        assert_eq!([&headers[LIMIT], &headers[REMAINING], &headers[RESET]], ["10", "7", "3"]);
    }
}
