//! Changes of a mesh while requests run: from plaintext to STRICT, new leaves, new roots, and policies. Many sidecars run as
//! threads of this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{Identities, MeshDir, connects, free, pod, policy, service, wait_for};

/// Answers requests with whose certificate came, on connections that are kept; `/stream` and, in another
/// protocol, `/socket` go on until the client leaves.
fn app() -> SocketAddr {
    let listener = TcpListener::bind(free()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone().unwrap()), stream);
    loop {
        let (mut first, mut told) = (String::new(), "plaintext");
        if !matches!(reader.read_line(&mut first), Ok(1..)) {
            return;
        }
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if line.to_ascii_lowercase().starts_with("x-forwarded-client-cert:") {
                told = "mtls";
            }
        }
        if first.contains("/socket") {
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            let _ = writer.write_all(switch.as_bytes());
            while writer.write_all(b"tick").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        if first.contains("/stream") {
            let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while writer.write_all(b"5\r\ntick\n\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len());
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Starts a sidecar as a thread. It ends with this process.
fn sidecar(mesh: &MeshDir, account: &str, takes: &str, sends: &str) {
    let (config, identity) = (mesh.config(), mesh.identity(account));
    let workload = format!("{account}-0");
    let args = [
        "sidecar",
        "--config",
        &config,
        "--identity",
        &identity,
        "--workload",
        &workload,
        "--workers",
        "1",
        "--access-log",
        "off",
        "--inbound",
        takes,
        "--port-map",
        sends,
    ];
    let args: Vec<OsString> = args.iter().map(Into::into).collect();
    std::thread::spawn(move || towpath_sidecar::run(args));
}

/// A ring of services, each with a sidecar that sends to the next.
struct Ring {
    mesh: MeshDir,
    inbound: Vec<SocketAddr>,
    outbound: Vec<SocketAddr>,
}

fn peers(mode: &str) -> String {
    policy("PeerAuthentication", "istio-system", "mesh", &format!("{{mtls: {{mode: {mode}}}}}"))
}

fn ring(count: usize, mode: &str) -> Ring {
    let app = app();
    let (inbound, outbound): (Vec<_>, Vec<_>) = (0..count).map(|_| (free(), free())).unzip();
    let port = "{name: http, port: 80, targetPort: 80}";
    let resources: Vec<_> = (0..count)
        .map(|n| pod("ring", &format!("s{n}")) + &service("ring", &format!("s{n}"), port, inbound[n]))
        .collect();
    let mesh = MeshDir::new(&resources.concat());
    mesh.write("mode.yaml", &peers(mode));
    for n in 0..count {
        let takes = format!("80={}>{app}", inbound[n]);
        let sends = format!("ring/s{}:80={}", (n + 1) % count, outbound[n]);
        sidecar(&mesh, &format!("ring/s{n}"), &takes, &sends);
    }
    wait_for("the sidecars", || outbound.iter().all(|at| connects(*at)));
    Ring { mesh, inbound, outbound }
}

/// Requests without pause, on kept connections, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(ring: &Ring, threads: usize) -> Self {
        let (stop, answered, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { stop, answered, failed, threads: Vec::new() };
        for part in 0..threads {
            let to: Vec<_> = ring.outbound.iter().copied().skip(part).step_by(threads).collect();
            let (stop, answered, failed) =
                (Arc::clone(&load.stop), Arc::clone(&load.answered), Arc::clone(&load.failed));
            load.threads.push(std::thread::spawn(move || {
                let mut kept: Vec<_> = to.iter().map(|_| None).collect();
                while !stop.load(Ordering::Relaxed) {
                    for (address, kept) in to.iter().zip(&mut kept) {
                        match ask(*address, kept, "/") {
                            Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(why) => failed.lock().unwrap().push(format!("{address}: {why}")),
                        }
                    }
                }
            }));
        }
        load
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for as many more answers.
    fn more(&self, count: usize) {
        let from = self.answered();
        wait_for("answers", || self.answered() >= from + count);
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.answered.load(Ordering::Relaxed), self.failed.lock().unwrap().clone())
    }
}

/// One request on a kept connection; opened anew if the sidecar closed it between two requests.
fn ask(address: SocketAddr, kept: &mut Option<BufReader<TcpStream>>, path: &str) -> Result<String, String> {
    let reused = kept.is_some();
    match exchange(address, kept, path) {
        Err(_) if reused => {
            *kept = None;
            exchange(address, kept, path)
        }
        answer => answer,
    }
}

fn exchange(
    address: SocketAddr,
    kept: &mut Option<BufReader<TcpStream>>,
    path: &str,
) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    if kept.is_none() {
        let stream = TcpStream::connect(address).map_err(told)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        *kept = Some(BufReader::new(stream));
    }
    let stream = kept.as_mut().unwrap();
    // In one piece: two would wait for each other.
    let request = format!("GET {path} HTTP/1.1\r\nhost: ring\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(told)?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let from = head.len();
        if stream.read_line(&mut head).map_err(told)? == 0 {
            return Err("closed".into());
        }
        if &head[from..] == "\r\n" {
            break;
        }
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(told)?;
    let status = head.get(9..12).unwrap_or_default().to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == "200" { Ok(body) } else { Err(format!("{status} {body}")) }
}

#[test]
fn from_plaintext_to_strict_with_fifty_sidecars_no_request_fails() {
    let ring = ring(50, "DISABLE");
    let load = Load::start(&ring, 4);
    load.more(200);
    assert_eq!(ask(ring.outbound[0], &mut None, "/").as_deref(), Ok("plaintext"));
    assert!(ring.inbound.iter().all(|at| exchange(*at, &mut None, "/").is_ok()));
    ring.mesh.write("mode.yaml", &peers("STRICT"));
    let begun = Instant::now();
    wait_for("the end of plaintext", || ring.inbound.iter().all(|at| exchange(*at, &mut None, "/").is_err()));
    let taken = begun.elapsed();
    load.more(200);
    assert!(ring.outbound.iter().all(|at| ask(*at, &mut None, "/").as_deref() == Ok("mtls")));
    let (answered, failed) = load.end();
    assert!(failed.is_empty(), "{} of {answered} failed: {:?}", failed.len(), failed.first());
    assert!(taken < Duration::from_secs(5), "plaintext was taken for {taken:?}");
}

/// A stream that is read by a thread: how much came, and whether it ended.
struct Stream {
    ticks: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Stream {
    fn open(address: SocketAddr) -> Self {
        Self::asked(address, "GET /stream HTTP/1.1\r\nhost: ring\r\n\r\n")
    }

    /// A connection that goes on as a WebSocket.
    fn socket(address: SocketAddr) -> Self {
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
        Self::asked(address, &format!("GET /socket HTTP/1.1\r\nhost: ring\r\n{upgrade}\r\n"))
    }

    fn asked(address: SocketAddr, head: &str) -> Self {
        let stream = Self { ticks: Arc::default(), ended: Arc::default() };
        let (ticks, ended) = (Arc::clone(&stream.ticks), Arc::clone(&stream.ended));
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(1..) = socket.read(&mut bytes) {
                ticks.fetch_add(1, Ordering::Relaxed);
            }
            ended.store(true, Ordering::Relaxed);
        });
        wait_for("the stream", || stream.ticks.load(Ordering::Relaxed) > 2);
        stream
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether it still goes on.
    fn lives(&self) -> bool {
        let from = self.ticks.load(Ordering::Relaxed);
        wait_for("the stream or its end", || {
            self.ended.load(Ordering::Relaxed) || self.ticks.load(Ordering::Relaxed) > from + 2
        });
        !self.ended.load(Ordering::Relaxed)
    }
}

#[test]
fn leaves_roots_and_policies_change_and_only_who_is_refused_is_cut() {
    let ring = ring(6, "STRICT");
    let (load, next) = (Load::start(&ring, 2), Identities::new());
    let [streams, sockets] = [Stream::open, Stream::socket]
        .map(|open| ring.outbound.iter().map(|at| open(*at)).collect::<Vec<_>>());
    let all_live = || streams.iter().chain(&sockets).all(Stream::lives);
    let rotate = |by: &Identities, roots: &str| {
        for n in 0..6 {
            let account = format!("ring/s{n}");
            by.write(&ring.mesh.dir.path().join(&account), &account, roots);
        }
        load.more(2000);
    };
    let (old_root, new_root) = (ring.mesh.identities.root(), next.root());
    let both = format!("{old_root}{new_root}");
    rotate(&ring.mesh.identities, &old_root);
    assert!(all_live(), "a new leaf ended a stream");
    rotate(&ring.mesh.identities, &both);
    rotate(&next, &both);
    assert!(all_live(), "new roots ended a stream");
    let (answered, failed) = load.end();
    assert!(failed.is_empty(), "{} of {answered} failed: {:?}", failed.len(), failed.first());
    // A policy that refuses one identity: its streams end, and no other.
    let refuse = "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/ring/sa/s0]}}]}]}";
    ring.mesh.write("policy.yaml", &policy("AuthorizationPolicy", "ring", "not-s0", refuse));
    wait_for("the end of the refused streams", || streams[0].ended() && sockets[0].ended());
    assert!(
        streams[1..].iter().chain(&sockets[1..]).all(Stream::lives),
        "a stream of another identity ended"
    );
    assert!(ask(ring.outbound[0], &mut None, "/").is_err());
    ring.mesh.write("policy.yaml", "");
    wait_for("the permission", || ask(ring.outbound[0], &mut None, "/").is_ok());
    // The old root goes, and so do the streams that began with it; requests find new connections.
    let load = Load::start(&ring, 2);
    for n in 0..6 {
        let account = format!("ring/s{n}");
        next.write(&ring.mesh.dir.path().join(&account), &account, &new_root);
    }
    wait_for("the end of the streams of the old root", || streams.iter().chain(&sockets).all(Stream::ended));
    load.more(300);
    let (answered, failed) = load.end();
    assert!(failed.is_empty(), "{} of {answered} failed: {:?}", failed.len(), failed.first());
    assert!(Stream::open(ring.outbound[1]).lives());
}
