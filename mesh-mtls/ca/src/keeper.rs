//! What every source of a credential has in common: putting it in use, pauses after failures, and telling of its end.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use towpath_gateway_core::SpiffeId;
use towpath_mesh_mtls::{Credential, Identity};

/// The longest sleep, so that a machine that was suspended soon notices how late it is.
const NAP: Duration = Duration::from_secs(30);

/// How the credential of a workload is kept fresh.
#[derive(Debug, Clone)]
pub struct RenewalSettings {
    /// The id that this workload is to have; certificates for another are refused. Default: whatever is issued.
    pub wanted: Option<SpiffeId>,
    /// The first pause after a failure; it doubles with each further failure. Default: 100 ms.
    pub first_pause: Duration,
    /// The longest pause. Default: 10 s.
    pub longest_pause: Duration,
    /// How long one try may take. Default: 15 s.
    pub timeout: Duration,
    /// Tells the time. Default: the system's clock.
    pub now: fn() -> SystemTime,
}

impl Default for RenewalSettings {
    fn default() -> Self {
        Self {
            wanted: None,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            timeout: Duration::from_secs(15),
            now: SystemTime::now,
        }
    }
}

/// What is reported of the life of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalEvent {
    /// A new credential is in use.
    Issued {
        /// Whose it is.
        id: SpiffeId,
        /// When it expires.
        not_after: SystemTime,
    },
    /// A try failed; the credential in use, if any, stays in use.
    Waiting {
        /// Why, and what to do about it.
        why: String,
        /// When the next try is made.
        next_try: SystemTime,
        /// When the credential in use expires; `None` if there is none.
        not_after: Option<SystemTime>,
    },
    /// The credential in use expired before it could be renewed: no connection can be made with it any more.
    /// Reported once per credential; tries go on.
    Expired {
        /// Whose it was.
        id: SpiffeId,
        /// When it expired.
        not_after: SystemTime,
    },
    /// The source took the credential back: none is in use. A [`RenewalEvent::Waiting`] says why.
    Withdrawn {
        /// Whose it was.
        id: SpiffeId,
    },
    /// The source cannot be asked again with any hope: no more tries are made. The credential in use, if any, stays in
    /// use until it expires.
    Stopped {
        /// Why, and what to do about it.
        why: String,
        /// When the credential in use expires; `None` if there is none.
        not_after: Option<SystemTime>,
    },
}

/// Holds the credential of an [`Identity`] for a source of credentials, and reports every step. [`keep_fresh`] is made of
/// it; a source that pushes its credentials uses it directly.
///
/// [`keep_fresh`]: crate::keep_fresh
pub struct Keeper<F> {
    identity: Identity,
    settings: RenewalSettings,
    failures: u32,
    // The credential whose expiry is still to be reported.
    alive: Option<Credential>,
    on_event: F,
}

impl<F: FnMut(RenewalEvent)> Keeper<F> {
    /// A keeper of `identity` that reports to `on_event`.
    pub fn new(identity: Identity, settings: RenewalSettings, on_event: F) -> Self {
        let alive = identity.credential();
        Self { identity, settings, failures: 0, alive, on_event }
    }

    /// How it goes about it.
    pub fn settings(&self) -> &RenewalSettings {
        &self.settings
    }

    /// The time by the clock of the settings.
    pub fn now(&self) -> SystemTime {
        (self.settings.now)()
    }

    /// Puts a credential in use. The next failure counts as the first.
    pub fn adopt(&mut self, credential: Credential) {
        self.failures = 0;
        self.alive = Some(credential.clone());
        let event = RenewalEvent::Issued { id: credential.id().clone(), not_after: credential.not_after() };
        self.identity.store(credential);
        (self.on_event)(event);
    }

    /// Reports a failure; the credential in use stays in use. Says when to try again.
    pub fn failed(&mut self, why: String) -> SystemTime {
        let next_try = self.now() + pause(&self.settings, self.failures, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        (self.on_event)(RenewalEvent::Waiting { why, next_try, not_after: self.identity.not_after() });
        next_try
    }

    /// Takes the credential out of use, if there is one.
    pub fn withdraw(&mut self) {
        self.alive = None;
        if let Some(credential) = self.identity.withdraw() {
            (self.on_event)(RenewalEvent::Withdrawn { id: credential.id().clone() });
        }
    }

    /// Reports that no more tries are made.
    pub fn stopped(&mut self, why: String) {
        (self.on_event)(RenewalEvent::Stopped { why, not_after: self.identity.not_after() });
    }

    /// Sleeps until `until`, and reports on the way if the credential in use expires.
    pub async fn wait(&mut self, until: SystemTime) {
        loop {
            let moment = self.tell_expiry();
            let left = until.duration_since(moment).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            self.nap(moment, left).await;
        }
    }

    /// Reports if the credential in use expires, for as long as it is polled. Dropping it loses nothing.
    pub async fn watch(&mut self) -> Infallible {
        loop {
            let moment = self.tell_expiry();
            self.nap(moment, NAP).await;
        }
    }

    fn tell_expiry(&mut self) -> SystemTime {
        let moment = self.now();
        if let Some(dead) = self.alive.take_if(|credential| credential.not_after() <= moment) {
            let event = RenewalEvent::Expired { id: dead.id().clone(), not_after: dead.not_after() };
            (self.on_event)(event);
        }
        moment
    }

    /// Sleeps for `left`, or until the credential in use expires.
    async fn nap(&self, moment: SystemTime, left: Duration) {
        let life =
            self.alive.as_ref().map(|alive| alive.not_after().duration_since(moment).unwrap_or_default());
        tokio::time::sleep(life.map_or(left, |life| life.min(left)).min(NAP)).await;
    }
}

/// The pause after the failure that follows `failures` others; `random` is in 0..1.
fn pause(settings: &RenewalSettings, failures: u32, random: f64) -> Duration {
    let doubled = settings.first_pause.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(settings.longest_pause).mul_f64(0.5 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_stay_within_bounds(failures in any::<u32>(), random in 0.0..1.0_f64) {
            let settings = RenewalSettings::default();
            let pause = pause(&settings, failures, random);
            prop_assert!(pause >= settings.first_pause / 2 && pause <= settings.longest_pause);
        }
    }
}
