//! Workloads of a mesh: identities in directories, resources, and sidecars.

use std::net::SocketAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use super::{Running, connects, free, wait_for, write};

/// An authority for workloads of `cluster.local`.
pub struct Identities(CertifiedIssuer<'static, KeyPair>);

impl Identities {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The root, in PEM.
    pub fn root(&self) -> String {
        self.0.pem()
    }

    /// Writes a credential of `NAMESPACE/ACCOUNT` that peers check against `roots`.
    pub fn write(&self, dir: &Path, account: &str, roots: &str) {
        self.write_of("cluster.local", dir, account, roots);
    }

    /// The same for a workload of this trust domain.
    pub fn write_of(&self, domain: &str, dir: &Path, account: &str, roots: &str) {
        let (namespace, account) = account.split_once('/').unwrap();
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{account}");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        write(dir, "ca.crt", roots);
        write(dir, "tls.key", &key.serialize_pem());
        write(dir, "tls.crt", &leaf.pem());
    }
}

/// A pod of the mesh with the service account of its name.
pub fn pod(namespace: &str, account: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {account}-0, labels: {{app: {account}, \
         security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: {account}}}\n"
    )
}

/// The same of an ambient mesh: it is reached by tunnels at this port.
pub fn ambient_pod(namespace: &str, account: &str, tunnels: u16) -> String {
    let ports = format!("spec: {{containers: [{{ports: [{{name: hbone, containerPort: {tunnels}}}]}}], ");
    pod(namespace, account)
        .replace("security.istio.io/tlsMode: istio", "networking.istio.io/tunnel: http")
        .replace("spec: {", &ports)
}

/// A Service of one pod of the mesh, with its port as it is written, at an address.
pub fn service(namespace: &str, account: &str, port: &str, at: SocketAddr) -> String {
    let name =
        port.split([',', '}']).find_map(|part| part.trim_start_matches('{').trim().strip_prefix("name: "));
    let name = name.unwrap_or("''");
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: {namespace}, name: {account}}}\nspec: {{selector: {{app: \
         {account}}}, ports: [{port}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: \
         {namespace}, name: {account}-1, labels: {{kubernetes.io/service-name: {account}}}}}\naddressType: IPv4\nendpoints: \
         [{{addresses: [{}], targetRef: {{kind: Pod, name: {account}-0}}}}]\nports: [{{name: {name}, port: {}}}]\n",
        at.ip(),
        at.port()
    )
}

pub fn policy(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {spec}\n"
    )
}

/// A directory of resources, and of identities.
pub struct MeshDir {
    pub dir: TempDir,
    pub identities: Identities,
}

impl MeshDir {
    pub fn new(resources: &str) -> Self {
        let mesh = Self { dir: tempfile::tempdir().unwrap(), identities: Identities::new() };
        std::fs::create_dir(mesh.dir.path().join("config")).unwrap();
        mesh.write("resources.yaml", resources);
        mesh
    }

    pub fn write(&self, name: &str, text: &str) {
        write(&self.dir.path().join("config"), name, text);
    }

    pub fn config(&self) -> String {
        self.dir.path().join("config").display().to_string()
    }

    /// The directory of a credential, made on the way.
    pub fn identity(&self, account: &str) -> String {
        let dir = self.dir.path().join(account);
        if !dir.exists() {
            self.identities.write(&dir, account, &self.identities.root());
        }
        dir.display().to_string()
    }

    /// A sidecar of the pod of `account`, once it listens.
    pub fn sidecar(&self, account: &str, more: &[&str]) -> Sidecar {
        let (config, identity, workload) = (self.config(), self.identity(account), format!("{account}-0"));
        let admin = free();
        let admin_text = admin.to_string();
        let mut args = vec!["sidecar", "--config", &config, "--workload", &workload, "--identity", &identity];
        args.extend(["--admin", &admin_text, "--workers", "1"]);
        args.extend(more);
        let process = Running::start(&args);
        wait_for("the sidecar", || super::get(admin, "/ready").is_some_and(|answer| answer.status == 200));
        assert!(connects(admin));
        Sidecar { admin, process }
    }
}

pub struct Sidecar {
    pub admin: SocketAddr,
    pub process: Running,
}
