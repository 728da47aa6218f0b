//! Throw-away certificates of a run: one root, a server and a client, both also workloads of the mesh.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::Failure;

/// Server name of every proxy.
pub(crate) const NAME: &str = "proxy.test";
/// Trust domain of the mesh.
pub(crate) const TRUST_DOMAIN: &str = "bench.test";

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    pub(crate) root: PathBuf,
    pub(crate) server: Pair,
    pub(crate) client: Pair,
}

/// A certificate with its key; `dir` holds them as a workload's credential (`tls.crt`, `tls.key`, `ca.crt`).
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) dir: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as `HAProxy` takes them.
    pub(crate) combined: PathBuf,
}

impl Certificates {
    /// Makes them below `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "bench root");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let pair = |account: &str| -> Result<Pair, Failure> {
            let key = KeyPair::generate()?;
            let certificate = leaf(account)?.signed_by(&key, &issuer)?;
            write(&dir.join(account), &certificate.pem(), &key.serialize_pem(), &issuer.pem())
        };
        let (server, client) = (pair("server")?, pair("client")?);
        Ok(Self { root: server.dir.join("ca.crt"), server, client })
    }
}

fn leaf(account: &str) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, account);
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/bench/sa/{account}");
    params.subject_alt_names.push(SanType::URI(id.try_into()?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write(dir: &Path, certificate: &str, key: &str, root: &str) -> Result<Pair, Failure> {
    fs::create_dir_all(dir)?;
    let pair = Pair {
        dir: dir.to_owned(),
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        combined: dir.join("both.pem"),
    };
    fs::write(&pair.certificate, certificate)?;
    fs::write(&pair.key, key)?;
    fs::write(&pair.combined, format!("{certificate}{key}"))?;
    fs::write(dir.join("ca.crt"), root)?;
    Ok(pair)
}
