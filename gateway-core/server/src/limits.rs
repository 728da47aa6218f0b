//! The bounds of what a client may send, hold and take time over.

use std::time::Duration;

/// Bounds on connections and requests. All are on: nothing is unlimited unless a value says so.
///
/// | field | bounds | edge | mesh | when passed |
/// |---|---|---|---|---|
/// | `head_bytes` | request head (h1), header list and trailers (h2); h1 trailers: 16 KiB in 100 lines | 64 KiB | 64 KiB | 431 |
/// | `header_count` | header fields of one request | 100 | 100 | 431 |
/// | `target_bytes` | request target | 16 KiB | 16 KiB | 414 |
/// | `header_timeout` | first byte to last byte of a head; silence and half prefaces too | 10 s | 10 s | 408, or close |
/// | `idle_timeout` | connection without a request | 5 min | 1 h | close, GOAWAY |
/// | `stall_timeout` | bytes that the client does not take | 1 min | 5 min | close |
/// | `handshake_timeout` | TLS handshake | 10 s | 10 s | close |
/// | `concurrent_streams` | open h2 streams of one connection | 100 | 100 | `REFUSED_STREAM` |
/// | `stream_window` | bytes a client may send ahead on one h2 stream | 64 KiB | 1 MiB | flow control |
/// | `connection_window` | the same for the connection | 1 MiB | 1 MiB | flow control |
/// | `send_buffer` | answer bytes waiting on one h2 stream | 64 KiB | 400 KiB | back-pressure |
/// | `max_connections` | open connections of the process | 10 000 | 10 000 | close at once |
/// | `drain_deadline` | time for requests in flight when shutting down | 30 s | 30 s | close |
///
/// Sources: Envoy's best practices for edge proxies, Istio's `EDGE` profile, RFC 9113 section 10.5. Where those leave
/// a timeout off (request headers, TLS handshake), it is on here.
///
/// A `Duration::MAX` switches a timeout off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an HTTP/1 request head or an HTTP/2 header list (RFC 6585 section 5). At least 8 KiB.
    pub head_bytes: u32,
    /// Header fields of one request.
    pub header_count: usize,
    /// Bytes of the request target (RFC 9110 section 15.5.15).
    pub target_bytes: usize,
    /// Time for one request head, for the protocol to show, and for the HTTP/2 preface with its settings.
    pub header_timeout: Duration,
    /// Time without a request in flight.
    pub idle_timeout: Duration,
    /// Time in which the client takes none of the bytes that wait for it.
    pub stall_timeout: Duration,
    /// Time for a TLS handshake, from the accepted connection on.
    pub handshake_timeout: Duration,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 section 6.5.2).
    pub concurrent_streams: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE` in bytes (RFC 9113 section 6.9.2).
    pub stream_window: u32,
    /// Flow control window of an HTTP/2 connection in bytes.
    pub connection_window: u32,
    /// Bytes of an answer that one HTTP/2 stream may hold back.
    pub send_buffer: usize,
    /// Open connections of the process at which this listener turns new ones away. The connections of every listener
    /// count; an admin listener with a higher bound stays reachable.
    pub max_connections: usize,
    /// Time that requests in flight have once draining began.
    pub drain_deadline: Duration,
}

impl Limits {
    /// For listeners that anybody can reach.
    pub const fn edge() -> Self {
        Self {
            head_bytes: 64 * 1024,
            header_count: 100,
            target_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(5),
            stall_timeout: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(10),
            concurrent_streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            send_buffer: 64 * 1024,
            max_connections: 10_000,
            drain_deadline: Duration::from_secs(30),
        }
    }

    /// For listeners between workloads, which keep connections and move more data.
    pub const fn mesh() -> Self {
        Self {
            idle_timeout: Duration::from_hours(1),
            stall_timeout: Duration::from_mins(5),
            stream_window: 1024 * 1024,
            send_buffer: 400 * 1024,
            ..Self::edge()
        }
    }
}

impl Default for Limits {
    /// The stricter set, [`Limits::edge`].
    fn default() -> Self {
        Self::edge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_nowhere_looser_than_the_mesh() {
        let (edge, mesh) = (Limits::edge(), Limits::mesh());
        assert_eq!(Limits::default(), edge);
        assert!(edge.idle_timeout < mesh.idle_timeout);
        assert!(edge.stall_timeout < mesh.stall_timeout);
        assert!(edge.stream_window <= mesh.stream_window && edge.send_buffer <= mesh.send_buffer);
        assert!(edge.header_timeout <= mesh.header_timeout);
    }
}
