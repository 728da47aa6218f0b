//! The life of a workload's credential: fetched at start, renewed at half of its life, never lost silently.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use towpath_gateway_core::SpiffeId;
use towpath_mesh_mtls::{Credential, Identity};

use crate::{RequestError, Signer, request};

/// The longest sleep, so that a machine that was suspended soon notices how late it is.
const NAP: Duration = Duration::from_secs(30);

/// How [`keep_fresh`] goes about it.
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

/// What [`keep_fresh`] reports.
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
}

/// Keeps the credential of `identity` fresh for as long as it is polled: fetches one at once, renews at half of its
/// life (give or take a tenth), and after a failure tries again with growing pauses, half of each random.
/// Every step is reported to `on_event`.
pub async fn keep_fresh<S: Signer>(
    identity: Identity,
    signer: S,
    settings: RenewalSettings,
    mut on_event: impl FnMut(RenewalEvent) + Send,
) -> Infallible {
    let mut failures = 0;
    // The credential whose expiry is still to be reported.
    let mut alive = identity.credential();
    loop {
        let next_try = match attempt(&signer, &settings).await {
            Ok(credential) => {
                failures = 0;
                alive = Some(credential.clone());
                adopt(&identity, credential, (settings.now)(), &mut on_event)
            }
            Err(why) => {
                let next_try = (settings.now)() + pause(&settings, failures, fastrand::f64());
                failures = failures.saturating_add(1);
                on_event(RenewalEvent::Waiting { why, next_try, not_after: identity.not_after() });
                next_try
            }
        };
        wait(next_try, &mut alive, settings.now, &mut on_event).await;
    }
}

async fn attempt<S: Signer>(signer: &S, settings: &RenewalSettings) -> Result<Credential, String> {
    let answer = request(signer, settings.wanted.as_ref(), settings.now);
    match tokio::time::timeout(settings.timeout, answer).await {
        Ok(answer) => answer.map_err(|why: RequestError| why.to_string()),
        Err(_) => Err(format!("the signer did not answer within {:?}", settings.timeout)),
    }
}

/// Puts a credential in use and says when to renew it.
fn adopt(
    identity: &Identity,
    credential: Credential,
    now: SystemTime,
    on_event: &mut impl FnMut(RenewalEvent),
) -> SystemTime {
    let event = RenewalEvent::Issued { id: credential.id().clone(), not_after: credential.not_after() };
    let renew_at = renewal(now, credential.not_after(), fastrand::f64());
    identity.store(credential);
    on_event(event);
    renew_at
}

/// Half of the life that is left at receipt, give or take a tenth of it; `random` is in 0..1. What is left counts,
/// not what is written in the certificate: that reaches back by a minute, more than half of a very short life.
fn renewal(now: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or_default();
    now + left.mul_f64(0.4 + 0.2 * random)
}

/// The pause after the failure that follows `failures` others; `random` is in 0..1.
fn pause(settings: &RenewalSettings, failures: u32, random: f64) -> Duration {
    let doubled = settings.first_pause.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(settings.longest_pause).mul_f64(0.5 + 0.5 * random)
}

/// Sleeps until `until`, and reports on the way if the credential in use expires.
async fn wait(
    until: SystemTime,
    alive: &mut Option<Credential>,
    now: fn() -> SystemTime,
    on_event: &mut impl FnMut(RenewalEvent),
) {
    loop {
        let moment = now();
        if let Some(dead) = alive.take_if(|credential| credential.not_after() <= moment) {
            on_event(RenewalEvent::Expired { id: dead.id().clone(), not_after: dead.not_after() });
        }
        let wake = alive.as_ref().map_or(until, |credential| credential.not_after().min(until));
        match until.duration_since(moment) {
            Ok(left) if !left.is_zero() => {}
            _ => return,
        }
        tokio::time::sleep(wake.duration_since(moment).unwrap_or_default().min(NAP)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::client::tests::{Local, id};
    use crate::{SignerError, SigningAnswer, SigningRequest};

    static WALL: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
    tokio::task_local! { static START: Instant; }

    /// Wall time in step with tokio's paused time.
    fn now() -> SystemTime {
        *WALL + START.try_with(Instant::elapsed).unwrap_or_default()
    }

    /// Fails where `fails` says so, by number of the try.
    struct Flaky {
        inner: Local,
        tries: AtomicU32,
        fails: fn(u32) -> bool,
    }

    impl Signer for Flaky {
        async fn sign(&self, request: SigningRequest) -> Result<SigningAnswer, SignerError> {
            if (self.fails)(self.tries.fetch_add(1, Ordering::Relaxed)) {
                return Err("the plane is down".into());
            }
            self.inner.sign(request).await
        }
    }

    /// The first `count` events with the time at which each came.
    async fn events(
        ttl: u64,
        fails: fn(u32) -> bool,
        count: usize,
    ) -> (Vec<(Duration, RenewalEvent)>, Identity) {
        let identity = Identity::pending();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let start = Instant::now();
        let signer =
            Flaky { inner: Local::new(Duration::from_secs(ttl), now), tries: AtomicU32::new(0), fails };
        let settings = RenewalSettings { now, wanted: Some(id()), ..RenewalSettings::default() };
        let loops = keep_fresh(identity.clone(), Arc::new(signer), settings, move |event| {
            let _ = sender.send((start.elapsed(), event));
        });
        let task = tokio::spawn(START.scope(start, async move { match loops.await {} }));
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(receiver.recv().await.unwrap());
        }
        task.abort();
        (seen, identity)
    }

    fn kinds(events: &[(Duration, RenewalEvent)]) -> String {
        let letter = |event: &RenewalEvent| match event {
            RenewalEvent::Issued { .. } => 'I',
            RenewalEvent::Waiting { .. } => 'W',
            RenewalEvent::Expired { .. } => 'E',
        };
        events.iter().map(|(_, event)| letter(event)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_fetched_at_once_and_renewed_at_half_of_its_life() {
        let (seen, identity) = events(20, |_| false, 4).await;
        assert_eq!(kinds(&seen), "IIII");
        assert_eq!(identity.id(), Some(id()));
        assert!(seen[0].0 < Duration::from_millis(1));
        for pair in seen.windows(2) {
            let gap = pair[1].0.saturating_sub(pair[0].0).as_secs_f64();
            // Certificates count whole seconds, so up to one less than 20 s may be left.
            assert!((7.5..=12.1).contains(&gap), "{gap}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_signer_is_away_pauses_grow_and_are_told() {
        let (seen, identity) = events(20, |n| n < 9, 10).await;
        assert_eq!(kinds(&seen), "WWWWWWWWWI");
        assert!(identity.is_ready(SystemTime::now()));
        let RenewalEvent::Waiting { why, not_after: None, .. } = &seen[0].1 else { panic!("{:?}", seen[0]) };
        assert!(why.contains("the plane is down"));
        for (index, pair) in seen.windows(2).enumerate() {
            let longest = (0.1 * f64::from(1 << index)).min(10.0);
            let gap = pair[1].0.saturating_sub(pair[0].0).as_secs_f64();
            assert!((longest * 0.5..longest + 0.01).contains(&gap), "pause {index} was {gap}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_credential_stays_in_use_until_it_expires_and_then_that_is_told_once() {
        let (seen, identity) = events(20, |n| n > 0, 30).await;
        assert_eq!(kinds(&seen).matches('E').count(), 1);
        assert_eq!(kinds(&seen).matches('I').count(), 1);
        let (at, expired) = seen.iter().find(|(_, e)| matches!(e, RenewalEvent::Expired { .. })).unwrap();
        assert!((19.0..=20.1).contains(&at.as_secs_f64()), "{at:?}");
        assert_eq!(expired, &RenewalEvent::Expired { id: id(), not_after: identity.not_after().unwrap() });
        let waiting = seen.iter().filter(|(_, e)| matches!(e, RenewalEvent::Waiting { .. }));
        for (_, event) in waiting {
            assert!(matches!(event, RenewalEvent::Waiting { not_after: Some(_), .. }), "{event:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_signer_that_hangs_is_given_up() {
        struct Hangs;
        impl Signer for Hangs {
            async fn sign(&self, _: SigningRequest) -> Result<SigningAnswer, SignerError> {
                std::future::pending().await
            }
        }
        let error = attempt(&Hangs, &RenewalSettings::default()).await.unwrap_err();
        assert!(error.contains("15s"), "{error}");
    }

    proptest! {
        #[test]
        fn pauses_stay_within_bounds(failures in any::<u32>(), random in 0.0..1.0_f64) {
            let settings = RenewalSettings::default();
            let pause = pause(&settings, failures, random);
            prop_assert!(pause >= settings.first_pause / 2 && pause <= settings.longest_pause);
        }

        #[test]
        fn renewal_lies_around_the_middle_of_what_is_left(left in 0_u64..1_000_000, random in 0.0..1.0_f64) {
            let now = SystemTime::UNIX_EPOCH;
            let part = renewal(now, now + Duration::from_secs(left), random).duration_since(now).unwrap().as_secs_f64();
            let left = f64::from(u32::try_from(left).unwrap());
            prop_assert!(part >= left * 0.399 && part <= left * 0.601);
        }
    }
}
