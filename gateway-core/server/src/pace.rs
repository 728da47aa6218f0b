//! How long a connection may take over what it is doing: the decision, and the facts that the parts of a connection
//! leave for it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Drain, Limits};

/// The HTTP version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// HTTP/1.0 and HTTP/1.1 (RFC 9112).
    H1,
    /// HTTP/2 (RFC 9113).
    H2,
}

/// Since when a connection is in a state that may not last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// A request head (or the HTTP/2 preface) is on its way.
    pub(crate) heading: Option<Instant>,
    /// No request is in flight.
    pub(crate) idle: Option<Instant>,
    /// The client does not take bytes that wait for it.
    pub(crate) blocked: Option<Instant>,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The head did not arrive in time.
    Head,
    /// Nothing was asked for a long time.
    Idle,
    /// The client stopped reading.
    Stalled,
}

/// The first moment at which patience ends, if the facts stay as they are.
pub(crate) fn expiry(facts: Facts, limits: &Limits) -> Option<(Instant, Expiry)> {
    // While a head is on its way, or the end of an answer, the connection is not idle, however long it was before.
    let idle = facts.idle.filter(|_| facts.heading.is_none() && facts.blocked.is_none());
    [
        facts.heading.map(|since| (after(since, limits.header_timeout), Expiry::Head)),
        idle.map(|since| (after(since, limits.idle_timeout), Expiry::Idle)),
        facts.blocked.map(|since| (after(since, limits.stall_timeout), Expiry::Stalled)),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|(at, _)| *at)
}

/// `at + wait`, without overflow: waits beyond a year are as good as endless.
pub(crate) fn after(at: Instant, wait: Duration) -> Instant {
    const ENDLESS: Duration = Duration::from_hours(24 * 365);
    at + wait.min(ENDLESS)
}

// The HTTP/2 preface and the frame header of the SETTINGS that must follow it (RFC 9113 section 3.4).
const OPENING: usize = 24 + 9;

/// What the byte stream, the exchanges and the driver of one connection share. Its byte stream and driver live in one
/// task, HTTP/2 exchanges in others.
#[derive(Debug)]
pub(crate) struct Pace {
    framing: Framing,
    start: Instant,
    begun: AtomicUsize,
    busy: AtomicUsize,
    /// Milliseconds from `start`.
    idle_since: AtomicU64,
    /// Number of the exchange (from 1) whose head is on its way.
    head_of: AtomicUsize,
    bytes: AtomicUsize,
    /// Milliseconds from `start`, plus one; 0 while bytes flow.
    blocked_since: AtomicU64,
    timed_out: AtomicBool,
    /// Answers of which hyper took a piece and did not come back for more: over HTTP/2, the client gives no window.
    held_back: AtomicUsize,
    /// Pieces of answers asked for.
    asked: AtomicUsize,
    /// Bodies of requests that somebody may still read, perhaps longer than until the answer.
    uploads: AtomicUsize,
    drain: Drain,
}

impl Pace {
    pub(crate) fn new(framing: Framing, start: Instant, drain: Drain) -> Self {
        Self {
            framing,
            start,
            begun: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_of: AtomicUsize::new(1),
            bytes: AtomicUsize::new(0),
            blocked_since: AtomicU64::new(0),
            timed_out: AtomicBool::new(false),
            held_back: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            uploads: AtomicUsize::new(0),
            drain,
        }
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended: its answer is handed over whole, or given up.
    pub(crate) fn end(&self) {
        // Written before the count falls, so that whoever sees the count sees this moment.
        self.idle_since.store(self.elapsed(), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Bytes came in.
    pub(crate) fn read(&self, bytes: usize) {
        // The rest of a body whose request is answered already: the connection is at work.
        if self.uploads.load(Ordering::Acquire) > 0 && !self.is_busy() {
            self.idle_since.store(self.elapsed(), Ordering::Relaxed);
        }
        // Only the first bytes are counted: the sum of all would overflow one day.
        if self.bytes.load(Ordering::Relaxed) < OPENING {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What came in over HTTP/1 is the next head, or a part of it.
    pub(crate) fn begin_head(&self) {
        self.head_of.store(self.begun.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether anything came in yet.
    pub(crate) fn spoke(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    /// Number of the exchange whose head is on its way, if one is.
    pub(crate) fn heading(&self) -> Option<usize> {
        let next = self.begun.load(Ordering::Relaxed) + 1;
        match self.framing {
            Framing::H1 => (self.head_of.load(Ordering::Relaxed) == next).then_some(next),
            // Later heads share the connection with other streams: the idle timeout and HTTP/2's own bounds hold them.
            Framing::H2 => (self.bytes.load(Ordering::Relaxed) < OPENING).then_some(1),
        }
    }

    pub(crate) fn idle(&self) -> Option<Instant> {
        let idle = !self.is_busy();
        idle.then(|| self.start + Duration::from_millis(self.idle_since.load(Ordering::Relaxed)))
    }

    /// The client took bytes (or was sent none).
    pub(crate) fn flows(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
            self.idle_since.store(self.elapsed(), Ordering::Relaxed);
        }
    }

    /// The client does not take the bytes that wait for it.
    pub(crate) fn blocks(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.elapsed() + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn blocked(&self) -> Option<Instant> {
        let since = self.blocked_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start + Duration::from_millis(since))
    }

    /// The body of a request is handed over.
    pub(crate) fn begin_upload(&self) {
        self.uploads.fetch_add(1, Ordering::Relaxed);
    }

    /// The body of a request is dropped, read or not.
    pub(crate) fn end_upload(&self) {
        self.uploads.fetch_sub(1, Ordering::Release);
    }

    /// An answer is asked for a piece, after `waited` or not.
    pub(crate) fn ask(&self, waited: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if waited {
            self.held_back.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// An answer gave a piece, and waits until the next is asked for.
    pub(crate) fn hold_back(&self) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
    }

    /// While answers are held back: a number that changes when any of them moves.
    pub(crate) fn held_back(&self) -> Option<usize> {
        let held = self.framing == Framing::H2 && self.held_back.load(Ordering::Relaxed) > 0;
        held.then(|| self.asked.load(Ordering::Relaxed))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// From now on the byte stream answers 408 in place of reading.
    pub(crate) fn time_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_end_of_patience_counts() {
        let limits = Limits::edge();
        let t = Instant::now();
        let s = |seconds| Some(t + Duration::from_secs(seconds));
        let at = |heading, idle, blocked| expiry(Facts { heading, idle, blocked }, &limits);
        let cases = [
            (at(None, None, None), None),
            (at(s(0), None, None), Some((10, Expiry::Head))),
            (at(None, s(0), None), Some((300, Expiry::Idle))),
            (at(s(1), s(0), None), Some((11, Expiry::Head))),
            // A head that begins at the end of a long idle time still gets its full time.
            (at(s(299), s(0), None), Some((309, Expiry::Head))),
            (at(None, s(0), s(5)), Some((65, Expiry::Stalled))),
            (at(None, s(0), s(299)), Some((359, Expiry::Stalled))),
            (at(s(100), None, s(1)), Some((61, Expiry::Stalled))),
        ];
        for (n, (found, expected)) in cases.into_iter().enumerate() {
            let expected = expected.map(|(seconds, why)| (t + Duration::from_secs(seconds), why));
            assert_eq!(found, expected, "case {n}");
        }
    }

    #[test]
    fn endless_waits_do_not_overflow() {
        let limits = Limits { idle_timeout: Duration::MAX, ..Limits::edge() };
        let facts = Facts { idle: Some(Instant::now()), ..Facts::default() };
        assert!(
            expiry(facts, &limits).is_some_and(|(at, _)| at > Instant::now() + Duration::from_hours(1000))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_under_way_from_its_first_byte_to_its_request() {
        let pace = Pace::new(Framing::H1, Instant::now(), Drain::default());
        assert_eq!(pace.heading(), Some(1), "a new connection owes its first head");
        pace.begin();
        assert_eq!((pace.heading(), pace.idle()), (None, None));
        pace.read(10);
        assert_eq!(pace.heading(), None, "bytes of the body are no head");
        tokio::time::advance(Duration::from_secs(3)).await;
        pace.end();
        assert_eq!((pace.heading(), pace.idle()), (None, Some(Instant::now())));
        pace.read(1);
        pace.begin_head();
        assert_eq!(pace.heading(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_no_connection_yet() {
        let pace = Pace::new(Framing::H2, Instant::now(), Drain::default());
        pace.read(24);
        assert_eq!(pace.heading(), Some(1));
        pace.read(9);
        assert_eq!(pace.heading(), None);
        assert!(pace.idle().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn blocked_means_since_the_first_write_that_waited() {
        let pace = Pace::new(Framing::H1, Instant::now(), Drain::default());
        let start = Instant::now();
        pace.blocks();
        tokio::time::advance(Duration::from_secs(1)).await;
        pace.blocks();
        assert_eq!(pace.blocked(), Some(start));
        pace.flows();
        assert_eq!(pace.blocked(), None);
    }
}
