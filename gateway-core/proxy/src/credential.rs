//! The process's identity in the mesh: from a directory, or kept fresh by an issuer: the control plane, an Istio CA, or an
//! agent of the Workload API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use towpath_ca::{JoinToken, RenewalEvent, RenewalSettings, Signer, keep_fresh};
use towpath_control::PlaneClient;
use towpath_gateway_core::SpiffeId;
use towpath_issuers::{IstioCa, IstioCaSettings, WorkloadEndpoint, follow as follow_agent};
use towpath_mesh_mtls::{Credential, CredentialError, Identity, Svid};
use towpath_observability::Readiness;

use crate::Failure;
use crate::args::{IdentitySource, IssuerArgs, RunArgs};
use crate::gauges::Gauges;
use crate::watch::Watch;

const CONDITION: &str = "identity";

/// The join token of a file, if one is given.
pub(crate) fn join_token(path: Option<&Path>) -> Result<Option<JoinToken>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the join token {}: {error}", path.display()))?;
    let token =
        JoinToken::parse(text.trim()).map_err(|error| format!("join token {}: {error}", path.display()))?;
    Ok(Some(token))
}

/// Starts whatever keeps the identity fresh. A directory is read at once and must be good; a plane may come later.
pub(crate) fn start(
    args: &RunArgs,
    token: Option<JoinToken>,
    readiness: &Readiness,
    gauges: &Gauges,
) -> Result<Option<Identity>, Failure> {
    let (issuer, readiness, gauges) = (&args.issuer, readiness.clone(), gauges.clone());
    match &args.compile.identity {
        None => Ok(None),
        Some(IdentitySource::Directory(_) | IdentitySource::Plane(_)) if issuer.identity_id.is_some() => {
            Err("--identity-id goes with --identity istio-ca and workload-api only".into())
        }
        Some(IdentitySource::Directory(dir)) => from_directory(dir, readiness, gauges).map(Some),
        Some(IdentitySource::Plane(plane)) => {
            let token = token.ok_or("--identity plane=ADDR needs --join-token FILE")?;
            from_plane(*plane, token, readiness, gauges).map(Some)
        }
        Some(IdentitySource::IstioCa(address)) => from_istio_ca(address, issuer, readiness, gauges).map(Some),
        Some(IdentitySource::WorkloadApi(endpoint)) => {
            let endpoint = endpoint.clone().map_or_else(endpoint_of_environment, Ok)?;
            Ok(Some(from_workload_api(endpoint, issuer, readiness, gauges)))
        }
    }
}

fn from_plane(
    plane: SocketAddr,
    token: JoinToken,
    readiness: Readiness,
    gauges: Gauges,
) -> Result<Identity, Failure> {
    let identity = Identity::pending();
    readiness.waiting(CONDITION, format!("asking the control plane at {plane} for a certificate"));
    let wanted = token.id().clone();
    let client = PlaneClient::new(&plane.to_string(), token)?.with_identity(identity.clone());
    sign(&identity, client, wanted, readiness, gauges);
    Ok(identity)
}

fn from_istio_ca(
    address: &str,
    args: &IssuerArgs,
    readiness: Readiness,
    gauges: Gauges,
) -> Result<Identity, Failure> {
    // The CA decides by the token alone: what it is to be cannot be left to it.
    let wanted = args.identity_id.clone().ok_or(
        "--identity istio-ca needs --identity-id ID, such as spiffe://cluster.local/ns/NAMESPACE/sa/SERVICEACCOUNT",
    )?;
    let settings = IstioCaSettings {
        address: address.to_owned(),
        server_name: args.ca_server_name.clone(),
        roots: args.ca_roots.clone(),
        token: args.ca_token.clone(),
        cluster_id: args.ca_cluster_id.clone(),
        ..IstioCaSettings::default()
    };
    let ca = IstioCa::new(settings, &wanted)?;
    let identity = Identity::pending();
    readiness.waiting(CONDITION, format!("asking the Istio CA at {address} for a certificate"));
    sign(&identity, ca, wanted, readiness, gauges);
    Ok(identity)
}

/// Has the certificates of `identity` signed, from now on.
fn sign<S: Signer + 'static>(
    identity: &Identity,
    signer: S,
    wanted: SpiffeId,
    readiness: Readiness,
    gauges: Gauges,
) {
    let settings = RenewalSettings { wanted: Some(wanted), ..RenewalSettings::default() };
    tokio::spawn(keep_fresh(identity.clone(), signer, settings, move |event| {
        told(&event, &readiness, &gauges);
    }));
}

fn from_workload_api(
    endpoint: WorkloadEndpoint,
    args: &IssuerArgs,
    readiness: Readiness,
    gauges: Gauges,
) -> Identity {
    let identity = Identity::pending();
    readiness.waiting(CONDITION, format!("asking the Workload API at {endpoint} for a certificate"));
    // An agent that takes connections and drops them is not asked more than twice a second.
    let first_pause = Duration::from_secs(1);
    let settings =
        RenewalSettings { wanted: args.identity_id.clone(), first_pause, ..RenewalSettings::default() };
    tokio::spawn(follow_agent(identity.clone(), endpoint, settings, move |event| {
        told(&event, &readiness, &gauges);
    }));
    identity
}

fn endpoint_of_environment() -> Result<WorkloadEndpoint, Failure> {
    let variable = WorkloadEndpoint::VARIABLE;
    let text = std::env::var(variable)
        .map_err(|_| format!("--identity workload-api needs {variable}, or workload-api=unix:///PATH"))?;
    Ok(text.parse().map_err(|error| format!("{variable}: {error}"))?)
}

fn told(event: &RenewalEvent, readiness: &Readiness, gauges: &Gauges) {
    match event {
        RenewalEvent::Issued { id, not_after } => {
            gauges.certificate(*not_after);
            readiness.done(CONDITION);
            tracing::info!("certificate for {id} in use");
        }
        RenewalEvent::Waiting { why, next_try, not_after } => {
            let pause = next_try.duration_since(SystemTime::now()).unwrap_or_default();
            let text = format!("{why}; next try in {:.1} s", pause.as_secs_f64());
            tracing::warn!("no new certificate: {text}");
            // With a certificate that still holds, the process serves on.
            if not_after.is_none_or(|end| end <= SystemTime::now()) {
                readiness.waiting(CONDITION, text);
            }
        }
        RenewalEvent::Stopped { why, not_after } => {
            tracing::error!("no new certificate: {why}");
            if not_after.is_none_or(|end| end <= SystemTime::now()) {
                readiness.waiting(CONDITION, why.clone());
            }
        }
        RenewalEvent::Withdrawn { id } => {
            gauges.no_certificate();
            tracing::error!("the certificate for {id} was withdrawn: no mesh connection can be made");
            readiness.waiting(CONDITION, format!("the certificate for {id} was withdrawn"));
        }
        RenewalEvent::Expired { id, .. } => {
            tracing::error!("the certificate for {id} has expired: no mesh connection can be made");
            readiness.waiting(CONDITION, format!("the certificate for {id} has expired"));
        }
    }
}

fn from_directory(dir: &Path, readiness: Readiness, gauges: Gauges) -> Result<Identity, Failure> {
    // Watched before it is read, so that no change falls between.
    let watch = Watch::start(&[dir.to_owned()]);
    let credential = read(dir)?;
    let watch = watch.map_err(|error| format!("cannot watch {}: {error}", dir.display()))?;
    gauges.certificate(credential.not_after());
    tell_of_roots(&credential);
    let identity = Identity::new(credential);
    tokio::spawn(follow(dir.to_owned(), watch, identity.clone(), readiness, gauges));
    Ok(identity)
}

/// The trust domain is the one that the certificate names; its chain must lead to `ca.crt` all the same.
fn read(dir: &Path) -> Result<Credential, Failure> {
    let path = dir.join("tls.crt");
    let named = |why: CredentialError| format!("{}: {why}", path.display());
    let pem = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let leaf =
        CertificateDer::pem_slice_iter(&pem).next().ok_or_else(|| named(CredentialError::NoCertificate))?;
    let leaf = leaf.map_err(|why| named(CredentialError::Pem(why)))?;
    let svid = Svid::read(&leaf).map_err(|why| named(why.into()))?;
    Ok(Credential::from_dir(dir, svid.id.trust_domain().parse()?)?)
}

/// Tells of roots that are of no use now.
fn tell_of_roots(credential: &Credential) {
    for root in credential.bundle().out_of_time(SystemTime::now()) {
        tracing::warn!("{root}: it vouches for nobody now");
    }
}

/// Takes new files into use; a broken new pair keeps the old one for as long as that holds.
async fn follow(dir: PathBuf, mut watch: Watch, identity: Identity, readiness: Readiness, gauges: Gauges) {
    // What was told is not told again: the log may be in the very directory that is watched.
    let mut told = String::new();
    loop {
        tokio::select! {
            () = watch.changed() => {}
            () = expired(&identity) => {}
        }
        match read(&dir) {
            Ok(credential) => {
                take(credential, &identity, &gauges);
                told.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    tracing::error!("{error}; the certificate before stays in use");
                    told = error;
                }
            }
        }
        if identity.is_ready(SystemTime::now()) {
            readiness.done(CONDITION);
        } else {
            readiness.waiting(CONDITION, format!("the certificate in {} does not hold now", dir.display()));
        }
    }
}

/// Takes a credential into use, unless it is the one in use.
fn take(credential: Credential, identity: &Identity, gauges: &Gauges) {
    let before = identity.credential();
    if before.as_ref().is_some_and(|before| {
        before.chain() == credential.chain() && before.bundle().roots() == credential.bundle().roots()
    }) {
        return;
    }
    gauges.certificate(credential.not_after());
    tell_of_roots(&credential);
    match before {
        Some(before) if before.id() != credential.id() => {
            tracing::warn!("certificate for {} in use: it was for {} before", credential.id(), before.id());
        }
        _ => tracing::info!("certificate for {} in use", credential.id()),
    }
    identity.store(credential);
}

/// Resolves when the certificate in use no longer holds; never, if it does not now.
async fn expired(identity: &Identity) {
    if !identity.is_ready(SystemTime::now()) {
        return std::future::pending().await;
    }
    while identity.is_ready(SystemTime::now()) {
        let left = identity.not_after().and_then(|end| end.duration_since(SystemTime::now()).ok());
        // It holds to the end of its last second; and in steps, for the clock may be set.
        let step = left.unwrap_or_default().clamp(Duration::from_millis(100), Duration::from_mins(1));
        tokio::time::sleep(step).await;
    }
}
