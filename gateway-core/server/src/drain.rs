//! Shutting down without losing a request.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep_until};

use crate::Limits;
use crate::pace::after;

/// HTTP/1 has no way to refuse a request that is already on its way, so while draining a quiet connection stays open
/// this long for a last request, which is answered with `Connection: close`.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// Tells connections to end when their requests are answered, and waits for them.
///
/// Clones are handles to one drain. Connections, and the tunnels that they turn into, hold a [`DrainGuard`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use towpath_server::Drain;
///
/// let drain = Drain::new(Duration::from_secs(30));
/// let connection = drain.guard();
/// drain.signal();
/// assert!(drain.is_draining());
/// drop(connection);
/// assert!(drain.drained().await);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    patience: Duration,
    signalled: OnceLock<Instant>,
    // An `Arc` of its own, because connections keep a future that owns it.
    signal: Arc<Notify>,
    guards: AtomicUsize,
    empty: Notify,
}

impl Drain {
    /// `deadline` is counted from [`Drain::signal`] on.
    pub fn new(deadline: Duration) -> Self {
        Self(Arc::new(Shared {
            patience: deadline,
            signalled: OnceLock::new(),
            signal: Arc::new(Notify::new()),
            guards: AtomicUsize::new(0),
            empty: Notify::new(),
        }))
    }

    /// Begins to drain: listeners under it stop accepting, HTTP/1 answers carry `Connection: close`, HTTP/2
    /// connections get GOAWAY (RFC 9113 section 6.8). A second call changes nothing.
    pub fn signal(&self) {
        self.0.signalled.get_or_init(Instant::now);
        self.0.signal.notify_waiters();
    }

    /// Whether draining began.
    pub fn is_draining(&self) -> bool {
        self.0.signalled.get().is_some()
    }

    /// Resolves when draining begins.
    pub async fn signalled(&self) {
        let notified = self.notified();
        if !self.is_draining() {
            notified.await;
        }
    }

    /// Resolves when the deadline has passed. A tunnel that nothing else would end ends itself then.
    pub async fn expired(&self) {
        self.signalled().await;
        if let Some(deadline) = self.deadline() {
            sleep_until(deadline).await;
        }
    }

    /// Resolves with `true` when every guard is gone, with `false` at the deadline. Waits for [`Drain::signal`] first.
    pub async fn drained(&self) -> bool {
        let mut expired = pin!(self.expired());
        self.signalled().await;
        loop {
            let empty = self.0.empty.notified();
            if self.0.guards.load(Ordering::Acquire) == 0 {
                return true;
            }
            tokio::select! {
                () = empty => {}
                () = &mut expired => return false,
            }
        }
    }

    /// Holds [`Drain::drained`] back until it is dropped.
    pub fn guard(&self) -> DrainGuard {
        self.0.guards.fetch_add(1, Ordering::Relaxed);
        DrainGuard(Arc::clone(&self.0))
    }

    /// Resolves when a connection that has not said what it wants need not be waited for any more.
    pub(crate) async fn last_words(&self) {
        self.signalled().await;
        if let Some(since) = self.since() {
            sleep_until(since + LAST_WORDS).await;
        }
    }

    /// When draining began.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.0.signalled.get().copied()
    }

    /// When patience ends; `None` while not draining.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(after(self.since()?, self.0.patience))
    }

    /// Wakes its task when draining begins. Make it before asking [`Drain::is_draining`].
    pub(crate) fn notified(&self) -> OwnedNotified {
        Arc::clone(&self.0.signal).notified_owned()
    }
}

impl Default for Drain {
    /// With the deadline of [`Limits::default`].
    fn default() -> Self {
        Self::new(Limits::default().drain_deadline)
    }
}

/// Something that a drain waits for: a connection or a tunnel.
#[derive(Debug)]
pub struct DrainGuard(Arc<Shared>);

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.guards.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_last_guard() {
        let drain = Drain::new(Duration::from_secs(30));
        let (first, second) = (drain.guard(), drain.guard());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.drained().await }
        });
        drop(first);
        drain.signal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(second);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline_and_says_so() {
        let drain = Drain::new(Duration::from_secs(30));
        let _stuck = drain.guard();
        drain.signal();
        let start = Instant::now();
        assert!(!drain.drained().await);
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_signal_nothing_is_drained() {
        let drain = Drain::default();
        let waiting = tokio::time::timeout(Duration::from_hours(1), drain.drained());
        assert!(waiting.await.is_err());
    }

    #[tokio::test]
    async fn a_signal_given_twice_counts_once_and_late_listeners_see_it() {
        let drain = Drain::default();
        drain.signal();
        let since = drain.since();
        drain.signal();
        assert_eq!(drain.since(), since);
        drain.signalled().await;
    }
}
