//! The plane's own side of TLS: a certificate that it issues to itself, renewed as handshakes come; client
//! certificates of the mesh are verified where they are sent, and may be left out.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, TryLockError};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use towpath_ca::Authority;
use towpath_gateway_core::{InvalidSpiffeId, Live, SpiffeId, TrustDomain};

/// Namespace in the plane's own SPIFFE id.
pub const PLANE_NAMESPACE: &str = "towpath-system";

/// Service account in the plane's own SPIFFE id.
pub const PLANE_ACCOUNT: &str = "control-plane";

/// The plane's own id: `spiffe://<trust domain>/ns/towpath-system/sa/control-plane`. Workloads talk to no other plane,
/// and nobody else is given a certificate for it.
pub fn plane_id(domain: &TrustDomain) -> Result<SpiffeId, InvalidSpiffeId> {
    SpiffeId::workload(domain, PLANE_NAMESPACE, PLANE_ACCOUNT)
}

/// The cryptography of this crate, never the process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Why TLS could not be set up on one of its sides.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the control plane: {0}")]
pub struct PlaneTlsError(String);

impl PlaneTlsError {
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// The TLS settings of a plane with this authority: its chain with the root, by which a workload recognises it, and
/// an optional client certificate that the root must vouch for. Sessions are not resumed: every handshake proves anew.
pub fn plane_tls(authority: Arc<Authority>) -> Result<ServerConfig, PlaneTlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(PlaneTlsError::new)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(PlaneTlsError::new)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(PlaneTlsError::new)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(OwnCertificate::new(authority)?));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The plane's certificate of the moment.
struct OwnCertificate {
    authority: Arc<Authority>,
    id: SpiffeId,
    current: Live<Issued>,
    // Held by the handshake that renews; the others go on with the certificate in use.
    renewing: Mutex<()>,
}

struct Issued {
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl OwnCertificate {
    fn new(authority: Arc<Authority>) -> Result<Self, PlaneTlsError> {
        let id = plane_id(authority.domain()).map_err(PlaneTlsError::new)?;
        let current = Live::new(issue(&authority, &id, SystemTime::now())?);
        Ok(Self { authority, id, current, renewing: Mutex::new(()) })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        if self.current.load().renew_at <= now {
            self.renew(now);
        }
        Arc::clone(&self.current.load().key)
    }

    fn renew(&self, now: SystemTime) {
        let _renewing = match self.renewing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        match issue(&self.authority, &self.id, now) {
            Ok(issued) => self.current.store(issued),
            Err(why) => tracing::error!(%why, "the control plane's certificate was not renewed"),
        }
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A fresh key and a certificate for it; to be renewed at half of its life.
fn issue(authority: &Authority, id: &SpiffeId, now: SystemTime) -> Result<Issued, PlaneTlsError> {
    let ttl = authority.max_ttl();
    let (key, csr) = towpath_ca::key_and_request(None).map_err(PlaneTlsError::new)?;
    let mut chain = authority.issue_at(csr.as_bytes(), id, ttl, now).map_err(PlaneTlsError::new)?;
    chain.push(authority.root().clone());
    let key = provider().key_provider.load_private_key(key).map_err(PlaneTlsError::new)?;
    Ok(Issued { key: Arc::new(CertifiedKey::new(chain, key)), renew_at: now + ttl / 2 })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_mesh_mtls::Svid;

    use super::*;

    fn authority(ttl: Duration) -> Arc<Authority> {
        let domain = "cluster.local".parse().unwrap();
        Arc::new(Authority::create(domain, Duration::from_hours(1)).unwrap().with_max_ttl(ttl))
    }

    #[test]
    fn the_certificate_is_the_planes_own_and_comes_with_the_root() {
        let authority = authority(Duration::from_hours(1));
        let own = OwnCertificate::new(Arc::clone(&authority)).unwrap();
        let key = own.at(SystemTime::now());
        let [leaf, root] = key.cert.as_slice() else { panic!("{} certificates", key.cert.len()) };
        assert_eq!(Svid::read(leaf).unwrap().id, plane_id(authority.domain()).unwrap());
        assert_eq!(root, authority.root());
    }

    #[test]
    fn it_is_renewed_at_half_of_its_life() {
        let own = OwnCertificate::new(authority(Duration::from_secs(100))).unwrap();
        let now = SystemTime::now();
        let first = own.at(now);
        assert!(Arc::ptr_eq(&first, &own.at(now + Duration::from_secs(40))));
        let second = own.at(now + Duration::from_mins(1));
        assert!(!Arc::ptr_eq(&first, &second));
        assert_ne!(first.cert, second.cert);
    }
}
