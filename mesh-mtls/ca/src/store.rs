//! The authority's root on disk: `root.crt` and `root.key` (PEM, the key for its owner alone).

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use towpath_gateway_core::TrustDomain;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::Authority;
use crate::authority::ROOT_LIFETIME;
use crate::files::{self, Access};

/// Why a state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file exists and cannot be read.
    #[error("cannot read {}: {cause}; give this user the right to read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The directory or a file in it cannot be written.
    #[error("cannot write {}: {cause}; name a directory that this user may write", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// One of a pair of files is missing.
    #[error("{} is missing beside {}; restore it from a backup, or name another state directory", missing.display(), found.display())]
    Half {
        /// The file that is there.
        found: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A file holds something else than it should.
    #[error("{} is broken: {why}; restore it from a backup, or name another state directory", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The root was made for another trust domain.
    #[error("{} is the root of trust domain {found}, not {wanted}; name another state directory or trust domain", path.display())]
    OtherDomain {
        /// The certificate.
        path: PathBuf,
        /// Its trust domain.
        found: String,
        /// The trust domain asked for.
        wanted: TrustDomain,
    },
    /// Key or certificate could not be made.
    #[error("cannot make the root certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl Authority {
    /// The authority whose root lies in `dir`; made there (ECDSA P-256, 10 years) if the directory holds none.
    ///
    /// Files that are broken, do not fit together or belong to another trust domain are an error; existing files are
    /// never written.
    pub fn open_or_create(dir: &Path, domain: TrustDomain) -> Result<Self, StoreError> {
        let _locked = files::lock(dir)?;
        let (certificate, key) = (dir.join("root.crt"), dir.join("root.key"));
        match (files::read(&certificate)?, files::read_secret(&key)?) {
            (Some(root), Some(secret)) => open(&certificate, &root, &key, &secret, domain),
            (None, None) => create(&certificate, &key, domain),
            (Some(_), None) => Err(StoreError::Half { found: certificate, missing: key }),
            (None, Some(_)) => Err(StoreError::Half { found: key, missing: certificate }),
        }
    }
}

fn create(certificate: &Path, key: &Path, domain: TrustDomain) -> Result<Authority, StoreError> {
    let authority = Authority::create(domain, ROOT_LIFETIME)?;
    files::write(key, authority.key_pem().as_bytes(), Access::Owner)?;
    files::write(certificate, authority.root_pem().as_bytes(), Access::All)?;
    Ok(authority)
}

fn open(
    path: &Path,
    root: &[u8],
    key_path: &Path,
    key: &[u8],
    domain: TrustDomain,
) -> Result<Authority, StoreError> {
    let broken = |path: &Path, why: &str| StoreError::Broken { path: path.to_owned(), why: why.to_owned() };
    let pem = std::str::from_utf8(key).map_err(|_| broken(key_path, "it is not text"))?;
    let key = KeyPair::from_pem(pem).map_err(|_| broken(key_path, "it holds no private key in PEM form"))?;
    let der = CertificateDer::from_pem_slice(root)
        .map_err(|_| broken(path, "it holds no certificate in PEM form"))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| broken(path, "it is not a certificate"))?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(broken(path, &format!("its key is not the one in {}", key_path.display())));
    }
    check_root(path, &parsed, &domain)?;
    Ok(Authority::from_parts(domain, der.clone(), key)?)
}

fn check_root(path: &Path, root: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(), StoreError> {
    let broken = |why: &str| StoreError::Broken { path: path.to_owned(), why: why.to_owned() };
    if !root.is_ca() {
        return Err(broken("it is not the certificate of an authority"));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if root.validity().not_after.timestamp() <= i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(broken(&format!("it expired on {}", root.validity().not_after)));
    }
    // A root that does not say its trust domain was put there by an operator; it is taken at its word.
    match trust_domain(root) {
        Some(found) if found != domain.as_str() => Err(StoreError::OtherDomain {
            path: path.to_owned(),
            found: found.to_owned(),
            wanted: domain.clone(),
        }),
        _ => Ok(()),
    }
}

/// The trust domain that a root names in its URI SAN (SPIFFE X509-SVID, section 2).
fn trust_domain<'a>(root: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = root.subject_alternative_name().ok()??.value;
    names.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn domain() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    #[test]
    fn a_restart_keeps_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open_or_create(dir.path(), domain()).unwrap();
        let second = Authority::open_or_create(dir.path(), domain()).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.key_pem(), second.key_pem());
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        Authority::open_or_create(dir.path(), domain()).unwrap();
        let mode = fs::metadata(dir.path().join("root.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_root() {
        let dir = tempfile::tempdir().unwrap();
        let roots: Vec<_> = std::thread::scope(|scope| {
            let open = || Authority::open_or_create(dir.path(), domain()).unwrap().fingerprint();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn broken_files_are_told_and_left_alone() {
        type Breakage = fn(&Path);
        let table: [(&str, Breakage); 6] = [
            ("root.key is missing", |dir| fs::remove_file(dir.join("root.key")).unwrap()),
            ("root.crt is missing", |dir| fs::remove_file(dir.join("root.crt")).unwrap()),
            ("holds no certificate", |dir| fs::write(dir.join("root.crt"), "").unwrap()),
            ("holds no private key", |dir| fs::write(dir.join("root.key"), "garbage").unwrap()),
            ("its key is not the one in", |dir| {
                fs::write(dir.join("root.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
            }),
            ("trust domain cluster.local, not", |dir| {
                assert!(Authority::open_or_create(dir, "other".parse().unwrap()).is_err());
            }),
        ];
        for (text, breakage) in table {
            let dir = tempfile::tempdir().unwrap();
            Authority::open_or_create(dir.path(), domain()).unwrap();
            breakage(dir.path());
            let before = contents(dir.path());
            let wanted =
                if text.contains("not") && text.contains("trust") { "other" } else { "cluster.local" };
            let error = Authority::open_or_create(dir.path(), wanted.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(contents(dir.path()), before, "{text}");
        }
    }

    fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_leaf_is_no_root() {
        let dir = tempfile::tempdir().unwrap();
        let (key, params) = (KeyPair::generate().unwrap(), rcgen::CertificateParams::default());
        fs::write(dir.path().join("root.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(dir.path().join("root.key"), key.serialize_pem()).unwrap();
        let error = Authority::open_or_create(dir.path(), domain()).unwrap_err();
        assert!(error.to_string().contains("not the certificate of an authority"), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Authority::open_or_create(&file.join("state"), domain()).unwrap_err();
        assert!(matches!(error, StoreError::Unwritable { .. }), "{error}");
    }
}
