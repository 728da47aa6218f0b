//! Brings a plan to life: files, tokens, processes, and the wait until all are ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::args::Args;
use crate::checks::World;
use crate::client::{Client, Connection, Failure, HOST, get};
use crate::discovered;
use crate::logs::Logs;
use crate::mesh::{EdgeAuthority, write_tokens};
use crate::net::Network;
use crate::plan::{HTTP, HTTPS, Part, Plan};
use crate::process::{Process, Processes};
use crate::recorder::{Marker, Recorder};

const START: Duration = Duration::from_secs(30);

/// A deployment that is up.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) dir: PathBuf,
    // Dropped in this order: the processes end before their directory and network go.
    pub(crate) processes: Processes,
    _held: (TempDir, Network),
}

impl Run {
    /// Copies the logs where the user wants them.
    pub(crate) fn keep_logs(&self, args: &Args) -> Result<(), Failure> {
        let Some(target) = &args.keep_logs else { return Ok(()) };
        let cannot = |error| format!("cannot keep logs in {}: {error}", target.display());
        std::fs::create_dir_all(target).map_err(cannot)?;
        for entry in std::fs::read_dir(self.dir.join("logs"))?.flatten() {
            std::fs::copy(entry.path(), target.join(entry.file_name())).map_err(cannot)?;
        }
        println!("logs kept in {}", target.display());
        Ok(())
    }
}

/// Starts every process and waits until each is ready.
pub(crate) async fn start(args: &Args, began: Instant) -> Result<Run, Failure> {
    let network = Network::take()?;
    let plan = Plan::new(args.scenario, &network);
    let held = TempDir::with_prefix("towpath-scenario-")?;
    let dir = held.path().to_owned();
    let logs_dir = dir.join("logs");
    std::fs::create_dir_all(&logs_dir)?;

    let edge = EdgeAuthority::create(HOST)?;
    std::fs::write(dir.join("edge-ca.crt"), edge.root_pem())?;
    discovered::write(&dir, &plan, plan.recorder, &secret(&edge))?;
    let probe = write_tokens(&dir, &plan).await?;
    let marker = Marker::random();
    let recorder = Recorder::start(plan.recorder, plan.edge_leg_end(), marker.clone()).await?;

    let executable = std::env::current_exe()?;
    let mut processes = Processes::default();
    for part in plan.parts(&dir) {
        processes.push(Process::start(&executable, &part, &logs_dir)?);
        if part.program == "control-plane" {
            ready(&part, &mut processes).await?;
        }
    }
    for part in plan.parts(&dir) {
        ready(&part, &mut processes).await?;
        let pid = processes.iter().find(|process| process.name == part.name).map_or(0, Process::pid);
        println!("[{:>5.1} s] {} is ready (pid {pid})", began.elapsed().as_secs_f64(), part.name);
    }
    let client = Client::new(plan.gateway.at(HTTP), plan.gateway.at(HTTPS), edge.roots()?)?;
    let pids = processes.iter().map(|process| (process.name.clone(), process.pid())).collect();
    let logs = Logs::new(&logs_dir);
    let world = World { plan, client, probe, logs, recorder, marker, pids, short: args.short };
    Ok(Run { world, dir, processes, _held: (held, network) })
}

fn secret(edge: &EdgeAuthority) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "edge", "name": "shop-tls"},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": edge.leaf_pem(), "tls.key": edge.key_pem()},
    })
}

/// Waits until a part serves; fails at once if any process has ended.
async fn ready(part: &Part, processes: &mut Processes) -> Result<(), Failure> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(ended) = processes.first_ended() {
            return Err(ended.into());
        }
        let why = match (part.admin, part.listens) {
            (Some(admin), _) => answers_ready(admin).await,
            (None, Some(address)) => TcpStream::connect(address).await.map(drop).map_err(Into::into),
            (None, None) => Ok(()),
        };
        match why {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > deadline => {
                return Err(format!("{} is not ready after {} s: {why}", part.name, START.as_secs()).into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}

async fn answers_ready(admin: SocketAddr) -> Result<(), Failure> {
    let mut connection = Connection::over(TcpStream::connect(admin).await?).await?;
    let answer = connection.send(get("/ready", "admin", &[])?).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&answer.body).trim().to_owned().into())
}

/// Ends on Ctrl-C, on SIGTERM, and when the terminal goes away.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let [Ok(mut terminate), Ok(mut hangup), Ok(mut interrupt)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Where the files of a run are.
pub(crate) fn tokens(dir: &Path) -> PathBuf {
    dir.join("tokens")
}
