//! Processes and a small client for the tests of programs.
#![allow(dead_code, unreachable_pub, unused_imports)] // each test file uses its part

mod mesh;
mod world;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub use mesh::{Identities, MeshDir, Sidecar, ambient_pod, pod, policy, service};
use tempfile::TempDir;
pub use world::{World, send, service_of};

/// A Gateway for every host.
pub const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: edge, name: web}
spec:
  gatewayClassName: towpath
  listeners:
    - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: towpath}
spec: {controllerName: towpath.dev/gateway}
";

/// A route of that Gateway to one address.
pub fn route(app: SocketAddr) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{namespace: edge, name: all}}
spec:
  parentRefs:
    - name: web
  rules:
    - matches:
        - path: {{type: PathPrefix, value: /}}
      backendRefs:
        - name: app
          port: 80
---
apiVersion: v1
kind: Service
metadata: {{namespace: edge, name: app}}
spec:
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: edge
  name: app-1
  labels: {{kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints:
  - addresses: [\"{}\"]
",
        app.port(),
        app.ip(),
    )
}

pub fn write(dir: &Path, name: &str, text: &str) {
    // In one step, as editors do it: a reader sees the old file or the new one.
    let partial = dir.join(format!(".{name}.partial"));
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, dir.join(name)).unwrap();
}

/// An address that nobody has, and nobody else is given: a port alone may be taken again before its process starts.
pub fn free() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high | 0x80, low, GIVEN.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// Whether something listens there.
pub fn connects(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// A part of the program, ended with its handle.
pub struct Running(Child);

impl Running {
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(&[], args)
    }

    /// Starts it with these variables in its environment.
    pub fn start_in(environment: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scenario"));
        command.envs(environment.iter().copied());
        Self(command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Running {
    /// Asks it to stop, as a service manager would.
    pub fn terminate(&self) {
        let status = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; whether it was a good one.
    pub fn ended_well(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway in front of one application.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub dir: TempDir,
    pub app: SocketAddr,
    process: Running,
}

impl Gateway {
    /// Requests that the application is working on, by the connections that the system lists.
    pub fn in_flight(&self) -> usize {
        connections_to(self.app)
    }

    pub fn terminate(&self) {
        self.process.terminate();
    }

    pub fn ended_well(&mut self) -> bool {
        self.process.ended_well()
    }
}

/// Established connections to an address, as the system lists them.
fn connections_to(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { return 0 };
    // The kernel prints the address as one number in the machine's byte order.
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let established = |line: &&str| line.split_whitespace().nth(2) == Some(&remote) && line.contains(" 01 ");
    table.lines().filter(established).count()
}

/// A join token for a service account of the namespace `edge`, in a file.
pub fn mint(dir: &Path, state: &str, account: &str) -> String {
    let id = format!("spiffe://cluster.local/ns/edge/sa/{account}");
    let output = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .args(["control-plane", "token", "--state", state, "--identity", &id])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = dir.join(format!("{account}.token"));
    std::fs::write(&file, output.stdout).unwrap();
    file.display().to_string()
}

/// A credential of `spiffe://cluster.local/ns/edge/sa/web`, as a directory holds it.
pub fn identity_files(dir: &Path, from: SystemTime, to: SystemTime) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names =
        vec![SanType::URI("spiffe://cluster.local/ns/edge/sa/web".try_into().unwrap())];
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = from.into();
    params.not_after = to.into();
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &root).unwrap();
    write(dir, "tls.crt", &leaf.pem());
    write(dir, "tls.key", &key.serialize_pem());
    write(dir, "ca.crt", &root.pem());
}

pub fn backend(app: SocketAddr) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gateway.yaml", GATEWAY);
    write(dir.path(), "route.yaml", &route(app));
    let (address, admin) = (free(), free());
    let process = Running::start(&[
        "gateway",
        "--config",
        &dir.path().display().to_string(),
        "--port-map",
        &format!("edge/web:80={address}"),
        "--admin",
        &admin.to_string(),
        "--workers",
        "1",
    ]);
    wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
    Gateway { address, admin, dir, app, process }
}

/// Waits until `condition` holds; fails after 20 seconds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub struct Answer {
    pub status: u16,
    pub body: String,
    /// Whether the body ended as its framing says.
    pub complete: bool,
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    Kept::try_open(address)?.get(path)
}

/// A kept connection.
pub struct Kept(BufReader<TcpStream>);

impl Kept {
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("it listens")
    }

    fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    pub fn status(&mut self, path: &str) -> u16 {
        self.get(path).expect("the connection is kept").status
    }

    pub fn get(&mut self, path: &str) -> Option<Answer> {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n").ok()?;
        let status = self.line()?.split_whitespace().nth(1)?.parse().ok()?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            chunked |= line.starts_with("transfer-encoding:") && line.ends_with("chunked");
        }
        let (body, complete) = if chunked { self.chunks() } else { self.exactly(length.unwrap_or(0)) };
        Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), complete })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    }

    fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        let read = self.0.by_ref().take(length as u64).read_to_end(&mut body);
        let complete = read.is_ok() && body.len() == length;
        (body, complete)
    }

    fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut whole = Vec::new();
        loop {
            let Some(length) = self.line().and_then(|line| usize::from_str_radix(line.trim(), 16).ok())
            else {
                return (whole, false);
            };
            let (chunk, complete) = self.exactly(length);
            whole.extend(chunk);
            if !complete || self.line().is_none() {
                return (whole, false);
            }
            if length == 0 {
                return (whole, true);
            }
        }
    }
}
