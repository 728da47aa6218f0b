//! The identity of this workload as its layers hold it: a handle whose credential is swapped while connections live.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;
use towpath_gateway_core::{Live, SpiffeId, TrustDomain};

use crate::{Credential, TrustBundle};

/// A handle to the credential in use. Clones share it; reading it takes no lock.
///
/// Without a valid credential every handshake is refused: nothing falls back to plaintext.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    current: Live<Option<Credential>>,
    /// Further names of the trust domain, and bundles of foreign ones.
    trust: Live<(Vec<TrustDomain>, Vec<TrustBundle>)>,
    /// Counts the changes of whom to trust.
    trust_changes: AtomicU64,
    stored: watch::Sender<()>,
}

impl Identity {
    /// An identity that has no credential yet.
    pub fn pending() -> Self {
        Self::holding(None)
    }

    /// An identity with this credential.
    pub fn new(credential: Credential) -> Self {
        Self::holding(Some(credential))
    }

    fn holding(credential: Option<Credential>) -> Self {
        let (current, trust) = (Live::new(credential), Live::default());
        let (trust_changes, stored) = (AtomicU64::new(0), watch::Sender::new(()));
        Self(Arc::new(Shared { current, trust, trust_changes, stored }))
    }

    /// Uses `credential` for every handshake that begins from now on. Open connections live on, and sessions that
    /// began with an older credential are not resumed.
    pub fn store(&self, credential: Credential) {
        let trust = self.0.trust.load();
        let (aliases, federated) = &**trust;
        let credential = credential.trusting(aliases, federated);
        let same = self.credential().is_some_and(|before| before.bundle() == credential.bundle());
        self.0.current.store(Some(credential));
        if !same {
            // After the credential is there: who sees the count sees the credential.
            self.0.trust_changes.fetch_add(1, Ordering::Release);
        }
        self.0.stored.send_replace(());
    }

    /// Uses no credential any more: handshakes are refused until the next [`Identity::store`]. Returns the one of before.
    pub fn withdraw(&self) -> Option<Credential> {
        let before = self.credential()?;
        self.0.current.store(None);
        self.0.stored.send_replace(());
        Some(before)
    }

    /// Whom to trust besides the trust domain, with the credential in use and with those that come: ids of `aliases` are taken
    /// like its own (Istio, `trustDomainAliases`), by the same roots; those of `federated` domains by the roots of each.
    pub fn set_trust(&self, aliases: &[TrustDomain], federated: &[TrustBundle]) {
        if matches!(&**self.0.trust.load(), (a, f) if a == aliases && f == federated) {
            return;
        }
        self.0.trust.store((aliases.to_vec(), federated.to_vec()));
        if let Some(credential) = self.credential() {
            self.store(credential);
        }
    }

    /// The credential in use, be it valid or not.
    pub fn credential(&self) -> Option<Credential> {
        self.0.current.load().as_ref().clone()
    }

    /// A number that grows when the roots or the trust domains change.
    pub(crate) fn trust_changes(&self) -> u64 {
        self.0.trust_changes.load(Ordering::Acquire)
    }

    /// The workload's SPIFFE id.
    pub fn id(&self) -> Option<SpiffeId> {
        self.credential().map(|credential| credential.id().clone())
    }

    /// The last moment at which the credential is valid.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.credential().map(|credential| credential.not_after())
    }

    /// Whether there is a credential that is valid at `now`.
    pub fn is_ready(&self, now: SystemTime) -> bool {
        self.valid_at(now).is_ok()
    }

    /// Waits for the next [`Identity::store`]. The wait begins with the call, not with the first poll: to lose no
    /// change, call this, then look at the credential, then await.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stored = self.0.stored.subscribe();
        let shared = Arc::clone(&self.0);
        async move {
            // `shared` keeps the sender alive, so this cannot fail.
            let _ = stored.changed().await;
            drop(shared);
        }
    }

    /// Waits until a credential is there that is valid at the time. For readiness.
    pub async fn ready(&self) {
        loop {
            let changed = self.changed();
            if self.is_ready(SystemTime::now()) {
                return;
            }
            changed.await;
        }
    }

    /// The credential that a handshake at `now` may use.
    pub(crate) fn valid_at(&self, now: SystemTime) -> Result<Credential, Unready> {
        match self.credential() {
            Some(credential) if credential.is_valid_at(now) => Ok(credential),
            Some(_) => Err(Unready::Expired),
            None => Err(Unready::Pending),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.credential()).finish()
    }
}

/// Why no handshake can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unready {
    #[error("this workload has no credential yet; see whether its issuer can be reached")]
    Pending,
    #[error("this workload's credential is not valid now; see why it was not renewed, and the clock")]
    Expired,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::authority::{Authority, DAY, REVIEWS, WEB};

    #[tokio::test]
    async fn a_store_is_seen_by_every_clone_and_wakes_who_waits() {
        let authority = Authority::new();
        let identity = Identity::pending();
        let clone = identity.clone();
        assert_eq!((identity.id(), identity.not_after()), (None, None));
        assert_eq!(identity.valid_at(SystemTime::now()).err(), Some(Unready::Pending));

        let waits = tokio::spawn({
            let identity = identity.clone();
            async move { identity.ready().await }
        });
        let changed = clone.changed();
        identity.store(authority.credential(WEB));
        changed.await;
        waits.await.unwrap();
        assert_eq!(clone.id().unwrap().as_str(), WEB);
        assert!(clone.is_ready(SystemTime::now()));
    }

    #[tokio::test]
    async fn a_credential_that_is_withdrawn_is_used_no_more() {
        let authority = Authority::new();
        let identity = Identity::new(authority.credential(WEB));
        let changed = identity.changed();
        assert_eq!(identity.withdraw().unwrap().id().as_str(), WEB);
        changed.await;
        assert_eq!(identity.valid_at(SystemTime::now()).err(), Some(Unready::Pending));
        assert!(identity.withdraw().is_none());
        identity.store(authority.credential(REVIEWS));
        assert!(identity.is_ready(SystemTime::now()));
    }

    #[test]
    fn aliases_and_foreign_domains_hold_for_the_credential_in_use_and_for_the_next() {
        let authority = Authority::new();
        let identity = Identity::new(authority.credential(WEB));
        let foreign: SpiffeId = "spiffe://old.example/a".parse().unwrap();
        let covers = || identity.credential().unwrap().bundle().of(&foreign).is_some();
        let partner = Authority::new().bundle_of("old.example");
        let alias: TrustDomain = "old.example".parse().unwrap();
        for (aliases, federated) in [(vec![alias], vec![]), (vec![], vec![partner])] {
            assert!(!covers());
            identity.set_trust(&aliases, &federated);
            assert!(covers());
            identity.store(authority.credential(REVIEWS));
            assert!(covers());
            identity.set_trust(&[], &[]);
        }
        assert!(!covers());
    }

    #[test]
    fn foreign_domains_that_come_with_a_credential_stay() {
        let (authority, told, named) = (Authority::new(), Authority::new(), Authority::new());
        let foreign = told.bundle_of("a.example");
        let (chain, key) = authority.sign(&crate::authority::svid(WEB));
        let bundle = authority.bundle().with_federated([foreign.clone()]);
        let identity = Identity::new(Credential::new(chain, key, bundle).unwrap());
        let other = named.bundle_of("b.example");
        for mesh in [vec![], vec![named.bundle_of("a.example"), other.clone()], vec![other.clone()], vec![]] {
            identity.set_trust(&[], &mesh);
            let expected: Vec<_> =
                [&foreign].into_iter().chain(mesh.contains(&other).then_some(&other)).collect();
            assert_eq!(
                identity.credential().unwrap().bundle().federated().iter().collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[tokio::test]
    async fn a_wait_begins_with_the_call() {
        let authority = Authority::new();
        let identity = Identity::new(authority.credential(WEB));
        let before = identity.changed();
        identity.store(authority.credential(REVIEWS));
        let after = identity.changed();
        assert_eq!((before.now_or_never(), after.now_or_never()), (Some(()), None));
    }

    #[test]
    fn a_credential_past_its_life_is_never_used() {
        let credential = Authority::new().credential(WEB);
        let (from, to) = (credential.not_before(), credential.not_after());
        let identity = Identity::new(credential);
        for (now, valid) in [(from - DAY, false), (from, true), (to, true), (to + DAY, false)] {
            assert_eq!(identity.is_ready(now), valid);
            assert_eq!(identity.valid_at(now).err(), (!valid).then_some(Unready::Expired));
        }
    }
}
