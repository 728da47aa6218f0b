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
