//! Credentials from files, under the names that cert-manager and Kubernetes TLS secrets use.

use std::fs;
use std::path::{Path, PathBuf};

use towpath_gateway_core::TrustDomain;

use crate::credential::{read_chain, read_key};
use crate::{Credential, CredentialError, TrustBundle};

const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";

impl Credential {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` (PEM) in `dir`.
    ///
    /// In a mounted Kubernetes volume the three are read through the volume's `..data` link, so that they are of one
    /// version even while the volume is being updated.
    pub fn from_dir(dir: &Path, domain: TrustDomain) -> Result<Self, CredentialError> {
        let version = fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_owned());
        let (roots, chain, key) = (read(&version, ROOTS)?, read(&version, CHAIN)?, read(&version, KEY)?);
        let bundle = TrustBundle::from_pem(domain, &roots.1).map_err(of(roots.0))?;
        let certificates = read_chain(&chain.1).map_err(of(chain.0.clone()))?;
        let secret = read_key(&key.1).map_err(of(key.0.clone()))?;
        Self::new(certificates, secret, bundle).map_err(|why| match why {
            CredentialError::Key(_) | CredentialError::KeyMismatch => of(key.0)(why),
            why => of(chain.0)(why),
        })
    }
}

fn read(dir: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), CredentialError> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(CredentialError::File { path, source }),
    }
}

fn of(path: PathBuf) -> impl FnOnce(CredentialError) -> CredentialError {
    move |source| CredentialError::Content { path, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use tempfile::TempDir;

    use super::*;
    use crate::authority::{Authority, DOMAIN, WEB, svid};

    fn volume(authority: &Authority) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), authority, WEB);
        dir
    }

    fn fill(dir: &Path, authority: &Authority, id: &str) {
        let (chain, key) = authority.sign(&svid(id));
        let key = KeyPair::try_from(key.secret_der()).unwrap().serialize_pem();
        fs::write(dir.join(CHAIN), crate::pem::certificate(&chain[0])).unwrap();
        fs::write(dir.join(KEY), key).unwrap();
        fs::write(dir.join(ROOTS), authority.bundle().to_pem()).unwrap();
    }

    fn load(dir: &Path) -> Result<Credential, CredentialError> {
        Credential::from_dir(dir, DOMAIN.parse().unwrap())
    }

    #[test]
    fn the_three_files_make_a_credential() {
        let dir = volume(&Authority::new());
        assert_eq!(load(dir.path()).unwrap().id().as_str(), WEB);
    }

    #[test]
    fn an_error_names_the_file() {
        let authority = Authority::new();
        for name in [CHAIN, KEY, ROOTS] {
            for content in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\n")] {
                let dir = volume(&authority);
                match content {
                    None => fs::remove_file(dir.path().join(name)).unwrap(),
                    Some(text) => fs::write(dir.path().join(name), text).unwrap(),
                }
                let error = load(dir.path()).unwrap_err().to_string();
                assert!(error.contains(name), "{name} {content:?}: {error}");
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_blamed_on_the_key_file() {
        let authority = Authority::new();
        let (dir, other) = (volume(&authority), volume(&authority));
        fs::copy(other.path().join(KEY), dir.path().join(KEY)).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(KEY) && error.contains("does not fit"), "{error}");
    }

    #[test]
    fn a_mounted_volume_is_read_in_one_version() {
        let authority = Authority::new();
        let dir = volume(&authority);
        let next = dir.path().join("..2026_11_23");
        fs::create_dir(&next).unwrap();
        fill(&next, &authority, "spiffe://cluster.local/ns/shop/sa/next");
        std::os::unix::fs::symlink("..2026_11_23", dir.path().join("..data")).unwrap();
        assert_eq!(load(dir.path()).unwrap().id().service_account(), Some("next"));
    }
}
