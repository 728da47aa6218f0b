//! What a workload proves its identity with: a certificate chain, its private key, and the roots it trusts in turn.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use towpath_gateway_core::{SpiffeId, TrustDomain};

use crate::peer::Side;
use crate::tls::{self, Settings};
use crate::verifier::{VerifyClient, VerifyServer};
use crate::{CredentialError, Svid, TrustBundle};

/// A checked credential. Clones share it; the private key cannot be read back.
///
/// Making one checks it in the very way in which peers of the same bundle will check it, and builds the TLS settings,
/// so that putting it in use (see [`Identity::store`](crate::Identity::store)) cannot fail.
#[derive(Clone)]
pub struct Credential(Arc<Parts>);

struct Parts {
    svid: Svid,
    key: Arc<CertifiedKey>,
    bundle: TrustBundle,
    /// The bundle that it came with, before more trust was put into it.
    given: TrustBundle,
    client: Arc<VerifyClient>,
    server: Arc<VerifyServer>,
    settings: Settings,
}

impl Credential {
    /// A credential that is valid now. `chain` begins with the workload's own certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: TrustBundle,
    ) -> Result<Self, CredentialError> {
        Self::new_at(chain, key, bundle, SystemTime::now())
    }

    /// A credential that is valid at `now`.
    pub fn new_at(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: TrustBundle,
        now: SystemTime,
    ) -> Result<Self, CredentialError> {
        let svid = Svid::read(chain.first().ok_or(CredentialError::NoCertificate)?)?;
        check_facts(&svid, &bundle, now)?;
        let key = Arc::new(certified(chain, key)?);
        let client =
            VerifyClient::new(bundle.clone()).map_err(|why| CredentialError::Tls(why.to_string()))?;
        let server = VerifyServer::new(bundle.clone());
        check_chain(&key.cert, &client, &server, now)?;
        let (client, server) = (Arc::new(client), Arc::new(server));
        let settings = Settings::new(Arc::clone(&key), Arc::clone(&client), Arc::clone(&server))?;
        Ok(Self(Arc::new(Parts { svid, key, given: bundle.clone(), bundle, client, server, settings })))
    }

    /// A credential from two PEM texts. Of several keys in `key`, the first counts.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: TrustBundle) -> Result<Self, CredentialError> {
        Self::new(read_chain(chain)?, read_key(key)?, bundle)
    }

    /// The workload's SPIFFE id.
    pub fn id(&self) -> &SpiffeId {
        &self.0.svid.id
    }

    /// When it began to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.svid.not_before
    }

    /// The last moment at which it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.0.svid.not_after
    }

    /// The certificates, the workload's own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.key.cert
    }

    /// The roots that peers are checked against.
    pub fn bundle(&self) -> &TrustBundle {
        &self.0.bundle
    }

    /// When to ask for the next one: at half of its life, so that an issuer may be away for the other half.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after().duration_since(self.not_before()).unwrap_or_default();
        self.not_before() + life / 2
    }

    /// Whether handshakes may use it at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.0.svid.is_valid_at(now)
    }

    /// The same with these aliases of the trust domain, and these bundles of foreign ones. Sessions of before are not resumed
    /// with it.
    pub(crate) fn trusting(self, aliases: &[TrustDomain], federated: &[TrustBundle]) -> Self {
        let given = &self.0.given;
        // Of a domain that the issuer itself tells of, it knows the roots of the moment.
        let told =
            |bundle: &&TrustBundle| given.federated().iter().any(|there| there.domain() == bundle.domain());
        let more = federated.iter().filter(|bundle| !told(bundle));
        let federated: Vec<_> = given.federated().iter().chain(more).cloned().collect();
        let bundle = given.clone().with_aliases(aliases.iter().cloned()).with_federated(federated);
        if *self.bundle() == bundle {
            return self;
        }
        let key = Arc::clone(&self.0.key);
        let server = Arc::new(VerifyServer::new(bundle.clone()));
        let made = VerifyClient::new(bundle.clone()).map_err(|why| CredentialError::Tls(why.to_string()));
        let settings = made.and_then(|client| {
            let client = Arc::new(client);
            let settings = Settings::new(Arc::clone(&key), Arc::clone(&client), Arc::clone(&server))?;
            Ok((client, settings))
        });
        match settings {
            Ok((client, settings)) => {
                let (svid, given) = (self.0.svid.clone(), given.clone());
                Self(Arc::new(Parts { svid, key, bundle, given, client, server, settings }))
            }
            // The same roots and key made settings before.
            Err(_) => self,
        }
    }

    /// Whether the roots vouch for the peer on this side of TLS that showed this chain.
    pub(crate) fn trusts(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: SystemTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        match side {
            Side::Client => self.0.client.verify_client_cert(leaf, intermediates, now).map(drop),
            Side::Server => {
                let any = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
                self.0.server.verify_server_cert(leaf, intermediates, &any, &[], now).map(drop)
            }
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("id", self.id())
            .field("not_after", &self.not_after())
            .field("bundle", self.bundle().domain())
            .finish_non_exhaustive()
    }
}

pub(crate) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(CredentialError::Pem)
}

pub(crate) fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CredentialError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|why| match why {
        rustls_pki_types::pem::Error::NoItemsFound => CredentialError::NoKey,
        other => CredentialError::Pem(other),
    })
}

/// What can be said without cryptography.
fn check_facts(svid: &Svid, bundle: &TrustBundle, now: SystemTime) -> Result<(), CredentialError> {
    let id = svid.id.clone();
    if !bundle.covers(&id) {
        return Err(CredentialError::TrustDomain { id, domain: bundle.domain().clone() });
    }
    if !(svid.client_auth && svid.server_auth) {
        return Err(CredentialError::Purpose);
    }
    if svid.is_expired_at(now) {
        return Err(CredentialError::Expired { id, not_after: svid.not_after });
    }
    if !svid.is_valid_at(now) {
        return Err(CredentialError::NotYetValid { id, not_before: svid.not_before });
    }
    Ok(())
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CredentialError> {
    let key = tls::provider().key_provider.load_private_key(key).map_err(CredentialError::Key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CredentialError::KeyMismatch),
        Err(why) => Err(CredentialError::Chain(why)),
    }
}

/// Asks what peers will ask, on both sides of TLS.
fn check_chain(
    chain: &[CertificateDer<'_>],
    client: &VerifyClient,
    server: &VerifyServer,
    now: SystemTime,
) -> Result<(), CredentialError> {
    let (leaf, intermediates) = chain.split_first().ok_or(CredentialError::NoCertificate)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    // The verifier is asked without a name in mind: it ignores it.
    let any = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    client.verify_client_cert(leaf, intermediates, now).map_err(CredentialError::Chain)?;
    server.verify_server_cert(leaf, intermediates, &any, &[], now).map_err(CredentialError::Chain)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;

    use super::*;
    use crate::InvalidSvid;
    use crate::authority::{Authority, DAY, REVIEWS, WEB, forgeries, lives, svid, with_purposes};

    #[test]
    fn a_good_one_says_what_it_is() {
        let authority = Authority::new();
        let credential = authority.credential(WEB);
        assert_eq!((credential.id().as_str(), credential.bundle()), (WEB, &authority.bundle()));
        let renew = credential.renew_at();
        assert_eq!(renew - DAY, credential.not_before());
        assert_eq!(renew + DAY, credential.not_after());
        assert_eq!(credential.chain().len(), 1);
    }

    #[test]
    fn a_chain_over_an_intermediate_needs_the_intermediate() {
        let authority = Authority::new();
        let subordinate = authority.subordinate();
        let (mut chain, key) = subordinate.sign(&svid(WEB));
        let alone = Credential::new(chain.clone(), key.clone_key(), authority.bundle()).unwrap_err();
        assert!(matches!(alone, CredentialError::Chain(_)), "{alone}");
        chain.push(subordinate.root.clone());
        assert_eq!(Credential::new(chain, key, authority.bundle()).unwrap().chain().len(), 2);
    }

    #[test]
    fn every_forgery_is_refused() {
        let authority = Authority::new();
        for (why, (chain, key)) in forgeries(&authority, WEB) {
            assert!(Credential::new(chain, key, authority.bundle()).is_err(), "{why}");
        }
    }

    #[test]
    fn each_error_names_its_cause() {
        let authority = Authority::new();
        let now = SystemTime::now();
        let id = || WEB.parse().unwrap();
        let good = authority.sign(&svid(WEB));
        let other_key = authority.sign(&svid(WEB)).1;
        for (issued, bundle, expected) in [
            ((vec![], other_key.clone_key()), authority.bundle(), CredentialError::NoCertificate),
            ((good.0, other_key), authority.bundle(), CredentialError::KeyMismatch),
            (
                authority.sign(&lives(svid(WEB), now - 2 * DAY, now - DAY)),
                authority.bundle(),
                CredentialError::Expired { id: id(), not_after: now },
            ),
            (
                authority.sign(&lives(svid(WEB), now + DAY, now + 2 * DAY)),
                authority.bundle(),
                CredentialError::NotYetValid { id: id(), not_before: now },
            ),
            (
                authority.sign(&svid(WEB)),
                authority.bundle_of("other.example"),
                CredentialError::TrustDomain { id: id(), domain: "other.example".parse().unwrap() },
            ),
            (
                authority.sign(&svid(WEB)),
                Authority::new().bundle(),
                CredentialError::Chain(rustls::Error::General(String::new())),
            ),
            (
                authority.sign(&with_purposes(svid(WEB), vec![ServerAuth])),
                authority.bundle(),
                CredentialError::Purpose,
            ),
            (
                (vec![authority.root.clone()], good.1),
                authority.bundle(),
                CredentialError::Svid(InvalidSvid::NoUri),
            ),
        ] {
            let error = Credential::new(issued.0, issued.1, bundle).unwrap_err();
            assert_eq!(discriminant(&error), discriminant(&expected), "{error}");
        }
    }

    #[test]
    fn messages_name_the_moment() {
        let error =
            CredentialError::Expired { id: WEB.parse().unwrap(), not_after: SystemTime::UNIX_EPOCH + DAY };
        assert!(error.to_string().contains("Fri, 02 Jan 1970 00:00:00 +0000"), "{error}");
    }

    #[test]
    fn pem_texts_are_read_or_refused() {
        let authority = Authority::new();
        let (chain, _) = authority.sign(&svid(REVIEWS));
        let pem: String = chain.iter().map(crate::pem::certificate).collect();
        let error = Credential::from_pem(pem.as_bytes(), pem.as_bytes(), authority.bundle()).unwrap_err();
        assert!(matches!(error, CredentialError::NoKey), "{error}");
        let error =
            Credential::from_pem(b"-----BEGIN CERTIFICATE-----\n", b"", authority.bundle()).unwrap_err();
        assert!(matches!(error, CredentialError::Pem(_)), "{error}");
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?}", Authority::new().credential(WEB));
        assert!(shown.contains(WEB) && !shown.to_lowercase().contains("key"), "{shown}");
    }
}
