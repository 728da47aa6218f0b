//! How many connections a pool keeps, and for how long.

use std::time::Duration;

/// Bounds of a pool. They hold for one pool, so for one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Idle HTTP/1.1 connections kept per endpoint. Beyond it the oldest is closed.
    pub idle_per_endpoint: usize,
    /// Idle HTTP/1.1 connections kept in all. Beyond it a connection is closed after its response.
    pub idle_total: usize,
    /// How long a connection may stay unused. Shorter than what common servers allow (60 s, 75 s), so that the pool
    /// closes first and no request meets a connection that the other side is closing.
    pub idle_timeout: Duration,
    /// How old a connection may grow before it takes no further request; `None`: any age. An end to old connections
    /// is what moves load to endpoints that were added behind a shared address.
    pub max_age: Option<Duration>,
    /// Concurrent requests on one HTTP/2 connection. Beyond it another connection is opened.
    pub streams_per_connection: usize,
}

impl Default for PoolSettings {
    /// 256 idle per endpoint, 4096 in all, 50 s unused, 1 h old, 100 streams.
    fn default() -> Self {
        Self {
            idle_per_endpoint: 256,
            idle_total: 4096,
            idle_timeout: Duration::from_secs(50),
            max_age: Some(Duration::from_hours(1)),
            streams_per_connection: 100,
        }
    }
}
