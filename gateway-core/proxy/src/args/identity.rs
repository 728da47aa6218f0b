//! Where the credential of the workload comes from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use towpath_gateway_core::SpiffeId;
use towpath_issuers::{IstioCaSettings, WorkloadEndpoint};

use super::plane;

/// What issuers have to know.
#[derive(Debug, Args)]
pub(crate) struct IssuerArgs {
    /// SPIFFE id that the workload is to have; a certificate for another is refused. Needed with `istio-ca`; with
    /// `workload-api` it chooses among several
    #[arg(long, value_name = "ID", requires = "identity")]
    pub(crate) identity_id: Option<SpiffeId>,
    /// Roots (PEM) that vouch for the Istio CA's own certificate
    #[arg(long, value_name = "FILE", default_value = IstioCaSettings::ROOTS)]
    pub(crate) ca_roots: PathBuf,
    /// Token that the Istio CA is shown, read anew for each request
    #[arg(long, value_name = "FILE", default_value = IstioCaSettings::TOKEN)]
    pub(crate) ca_token: PathBuf,
    /// Name that the Istio CA's own certificate has to have
    #[arg(long, value_name = "NAME", default_value = IstioCaSettings::SERVER_NAME)]
    pub(crate) ca_server_name: String,
    /// Cluster that the token is of, where the Istio CA serves several
    #[arg(long, value_name = "NAME")]
    pub(crate) ca_cluster_id: Option<String>,
}

/// Where the credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentitySource {
    Directory(PathBuf),
    Plane(SocketAddr),
    /// `HOST:PORT`.
    IstioCa(String),
    /// Without an address, the environment names it.
    WorkloadApi(Option<WorkloadEndpoint>),
}

impl FromStr for IdentitySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(plane) = plane(text) {
            return plane.map(Self::Plane);
        }
        match text.split_once('=').unwrap_or((text, "")) {
            ("istio-ca", "") => Ok(Self::IstioCa(IstioCaSettings::ADDRESS.to_owned())),
            ("istio-ca", address) => match address.rsplit_once(':') {
                Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Self::IstioCa(address.to_owned())),
                _ => Err(format!("`{address}` is not HOST:PORT, such as {}", IstioCaSettings::ADDRESS)),
            },
            ("workload-api", "") => Ok(Self::WorkloadApi(None)),
            ("workload-api", endpoint) => match endpoint.parse() {
                Ok(endpoint) => Ok(Self::WorkloadApi(Some(endpoint))),
                Err(error) => Err(format!("{error}")),
            },
            _ => Ok(Self::Directory(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_told_by_its_word() {
        let socket = "unix:///run/agent.sock".parse().unwrap();
        for (text, source) in [
            ("./certs", IdentitySource::Directory("./certs".into())),
            ("./istio-ca", IdentitySource::Directory("./istio-ca".into())),
            ("plane=127.0.0.1:15012", IdentitySource::Plane("127.0.0.1:15012".parse().unwrap())),
            ("istio-ca", IdentitySource::IstioCa("istiod.istio-system.svc:15012".to_owned())),
            ("istio-ca=ca.example:443", IdentitySource::IstioCa("ca.example:443".to_owned())),
            ("workload-api", IdentitySource::WorkloadApi(None)),
            ("workload-api=unix:///run/agent.sock", IdentitySource::WorkloadApi(Some(socket))),
        ] {
            assert_eq!(text.parse(), Ok(source), "{text}");
        }
    }
}
