//! A workload's credential from a signer: fetched at start, renewed at half of its life, never lost silently.

use std::convert::Infallible;
use std::time::SystemTime;

use towpath_mesh_mtls::{Credential, Identity};

use crate::{Keeper, RenewalEvent, RenewalSettings, RequestError, Signer, request};

/// Keeps the credential of `identity` fresh for as long as it is polled: fetches one at once, renews at half of its
/// life (give or take a tenth), and after a failure tries again with growing pauses, half of each random.
/// Every step is reported to `on_event`.
pub async fn keep_fresh<S: Signer>(
    identity: Identity,
    signer: S,
    settings: RenewalSettings,
    on_event: impl FnMut(RenewalEvent) + Send,
) -> Infallible {
    let mut keeper = Keeper::new(identity, settings, on_event);
    loop {
        let next_try = match attempt(&signer, keeper.settings()).await {
            Ok(credential) => {
                let renew_at = renewal(keeper.now(), credential.not_after(), fastrand::f64());
                keeper.adopt(credential);
                renew_at
            }
            Err(why) => keeper.failed(why),
        };
        keeper.wait(next_try).await;
    }
}

async fn attempt<S: Signer>(signer: &S, settings: &RenewalSettings) -> Result<Credential, String> {
    let answer = request(signer, settings.wanted.as_ref(), settings.now);
    match tokio::time::timeout(settings.timeout, answer).await {
        Ok(answer) => answer.map_err(|why: RequestError| why.to_string()),
        Err(_) => Err(format!("the signer did not answer within {:?}", settings.timeout)),
    }
}

/// Half of the life that is left at receipt, give or take a tenth of it; `random` is in 0..1. What is left counts,
/// not what is written in the certificate: that reaches back by a minute, more than half of a very short life.
fn renewal(now: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or_default();
    now + left.mul_f64(0.4 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, LazyLock};
    use std::time::Duration;

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
            RenewalEvent::Withdrawn { .. } | RenewalEvent::Stopped { .. } => 'X',
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
        fn renewal_lies_around_the_middle_of_what_is_left(left in 0_u64..1_000_000, random in 0.0..1.0_f64) {
            let now = SystemTime::UNIX_EPOCH;
            let part = renewal(now, now + Duration::from_secs(left), random).duration_since(now).unwrap().as_secs_f64();
            let left = f64::from(u32::try_from(left).unwrap());
            prop_assert!(part >= left * 0.399 && part <= left * 0.601);
        }
    }
}
