//! The mTLS mode of an inbound listener, and how one comes in place of another.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use towpath_gateway_core::Live;
use towpath_mesh_mtls::MtlsMode;
use towpath_server::Drain;

/// How long both plaintext and mTLS are taken when one comes in place of the other: clients learn of it on their own, and
/// change a second later.
const NARROWED_AFTER: Duration = Duration::from_secs(3);

/// The mode of an inbound listener.
#[derive(Debug, Clone)]
pub(super) struct Modes {
    pub(super) current: Live<MtlsMode>,
    /// What comes after both ways were taken for a while, and when.
    next: Live<Option<(MtlsMode, Instant)>>,
    /// Ends the plaintext connections of before when the mode takes no more of them.
    pub(super) plaintext: Live<Drain>,
    patience: Duration,
}

impl Modes {
    pub(super) fn new(mode: MtlsMode, patience: Duration) -> Self {
        let plaintext = Live::new(Drain::new(patience));
        Self { current: Live::new(mode), next: Live::default(), plaintext, patience }
    }

    /// Puts a mode in force: at once, or where nothing of the old one is taken by the new one, by way of PERMISSIVE.
    pub(super) fn change(&self, new: MtlsMode) {
        let old = **self.current.load();
        if self.next.load().is_some_and(|(next, _)| next == new) {
            return;
        }
        let apart = !(old.takes_plaintext() && new.takes_plaintext() || old.takes_mtls() && new.takes_mtls());
        if !apart {
            self.next.store(None);
            self.store(new);
            return;
        }
        // The time tells this change from an earlier one to the same mode that something came between.
        let due = Instant::now() + NARROWED_AFTER;
        self.next.store(Some((new, due)));
        self.store(MtlsMode::Permissive);
        let modes = self.clone();
        tokio::spawn(async move {
            sleep_until(due).await;
            if **modes.next.load() == Some((new, due)) {
                modes.next.store(None);
                modes.store(new);
            }
        });
    }

    /// Under STRICT, requests on plaintext connections of before are answered, and no new ones taken: a connection that
    /// comes late finds the drain signalled, too.
    fn store(&self, new: MtlsMode) {
        if new == MtlsMode::Strict {
            self.current.store(new);
            self.plaintext.load().signal();
            return;
        }
        if self.plaintext.load().is_draining() {
            self.plaintext.store(Drain::new(self.patience));
        }
        self.current.store(new);
    }
}

#[cfg(test)]
mod tests {
    use MtlsMode::{Disable, Permissive, Strict};
    use tokio::time::advance;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    /// The mode after this much time, and whether plaintext connections are to end.
    async fn after(modes: &Modes, time: Duration) -> (MtlsMode, bool) {
        tokio::task::yield_now().await; // timers of changes are set
        advance(time).await;
        tokio::task::yield_now().await;
        (**modes.current.load(), modes.plaintext.load().is_draining())
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_nothing_of_the_old_one_comes_by_way_of_both() {
        for (old, new) in [(Disable, Strict), (Strict, Disable)] {
            let modes = Modes::new(old, MOMENT);
            modes.change(new);
            assert_eq!(
                after(&modes, NARROWED_AFTER.saturating_sub(MOMENT)).await,
                (Permissive, false),
                "{old:?} {new:?}"
            );
            modes.change(new);
            assert_eq!(after(&modes, MOMENT).await, (new, new == Strict), "told again is no news");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_some_of_the_old_one_comes_at_once() {
        for (old, new) in
            [(Permissive, Strict), (Permissive, Disable), (Disable, Permissive), (Strict, Permissive)]
        {
            let modes = Modes::new(old, MOMENT);
            modes.change(new);
            assert_eq!(after(&modes, Duration::ZERO).await, (new, new == Strict), "{old:?} {new:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_was_taken_back_narrows_no_later_one() {
        let modes = Modes::new(Disable, MOMENT);
        modes.change(Strict);
        assert_eq!(after(&modes, NARROWED_AFTER / 2).await, (Permissive, false));
        modes.change(Disable);
        modes.change(Strict);
        assert_eq!(after(&modes, NARROWED_AFTER / 2).await, (Permissive, false), "the first one is due");
        assert_eq!(after(&modes, NARROWED_AFTER / 2).await, (Strict, true));
    }
}
