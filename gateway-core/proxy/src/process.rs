//! From the command line to the last answered request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use towpath_config::{Snapshot, Source, compile};
use towpath_gateway_core::{Live, TlsVersion};
use towpath_mesh_mtls::{Identity, Refusals};
use towpath_observability::{AccessLog, Admin, Metrics, ProcessFacts, Readiness};
use towpath_server::{Drain, Limits, Workers};

use crate::args::RunArgs;
use crate::gauges::Gauges;
use crate::jwks::Fetchers;
use crate::listener::Shared;
use crate::listeners::Listeners;
use crate::source::Resources;
use crate::worker::{Supply, WorkerParts};
use crate::{Failure, Program, admin, check, credential, log, refused, status};

/// After how long a listener that could not be opened is tried again: the port may be free by then.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How long clients let servers go ahead when the way in which they are spoken to changes. Servers take both ways for longer
/// (`listener/modes.rs`).
const SERVERS_FIRST: Duration = Duration::from_secs(1);

/// Runs a proxy until SIGTERM or Ctrl-C.
pub(crate) fn run(program: Program, args: RunArgs) -> Result<(), Failure> {
    // Control, admin, telemetry and file watching have this thread; workers have their own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = Stop::new()?;
        let mut process = Process::new(program, args)?;
        tokio::select! {
            outcome = process.serve() => outcome?,
            () = stop.asked() => {}
        }
        tokio::select! {
            () = process.drain() => Ok(()),
            () = stop.asked() => Err("asked to stop a second time: requests in flight were cut off".into()),
        }
    })
}

struct Process {
    program: Program,
    args: RunArgs,
    readiness: Readiness,
    metrics: Metrics,
    gauges: Gauges,
    page: Live<Value>,
    log: AccessLog,
    drain: Drain,
    resources: Resources,
    identity: Option<Identity>,
    min_tls_version: Live<TlsVersion>,
    snapshot: Option<Snapshot>,
    listeners: Option<Listeners>,
    fetchers: Fetchers,
    // Whether a listener could not be brought to what the snapshot says.
    incomplete: bool,
}

impl Process {
    fn new(program: Program, args: RunArgs) -> Result<Self, Failure> {
        let (readiness, metrics, page) = (Readiness::new(), Metrics::new(), Live::new(Value::Null));
        readiness.waiting("configuration", "not read yet");
        if let Some(address) = args.admin {
            admin::start(address, Admin::new(readiness.clone(), metrics.clone(), page.clone()))?;
        }
        let gauges = Gauges::register(&metrics);
        let token = credential::join_token(args.join_token.as_deref())?;
        let identity = credential::start(&args, token.clone(), &readiness, &gauges)?;
        let resources = Resources::new(&args.compile.config, token, identity.clone())?;
        let log = access_log(&args.access_log)?;
        let drain = Drain::new(Duration::from_secs(args.drain));
        let (snapshot, listeners) = (None, None);
        Ok(Self {
            program,
            args,
            readiness,
            metrics,
            gauges,
            page,
            log,
            drain,
            resources,
            identity,
            min_tls_version: Live::new(TlsVersion::Tls12),
            snapshot,
            listeners,
            fetchers: Fetchers::default(),
            incomplete: false,
        })
    }

    /// Serves, and follows the configuration. Ends with an error if nothing can be served.
    async fn serve(&mut self) -> Result<(), Failure> {
        let source = self.resources.first(&self.readiness).await?;
        self.begin(&source).await?;
        self.readiness.done("configuration");
        loop {
            tokio::select! {
                source = self.resources.changed() => {
                    let snapshot = self.compiled(&source);
                    if let Some(hops) = snapshot.not_strict() {
                        tracing::error!("{hops}; the configuration before stays in force");
                        self.gauges.configuration(snapshot.errors().count());
                        continue;
                    }
                    self.trust(&snapshot);
                    self.apply(&snapshot).await;
                    self.tell(snapshot);
                }
                () = tokio::time::sleep(TRY_AGAIN), if self.incomplete => {
                    if let Some(snapshot) = self.snapshot.take() {
                        self.apply(&snapshot).await;
                        self.snapshot = Some(snapshot);
                    }
                }
            }
        }
    }

    async fn begin(&mut self, source: &Source) -> Result<(), Failure> {
        let snapshot = self.compiled(source);
        if let Some(hops) = snapshot.not_strict() {
            return Err(hops.into());
        }
        self.trust(&snapshot);
        let mut listeners = self.workers(&snapshot)?;
        let failures = listeners.apply(&snapshot).await;
        if let Some(first) = failures.into_iter().next() {
            return Err(first.into());
        }
        if listeners.count() == 0 {
            return Err(no_listener(&snapshot).into());
        }
        self.listeners = Some(listeners);
        self.tell(snapshot);
        Ok(())
    }

    async fn apply(&mut self, snapshot: &Snapshot) {
        let Some(listeners) = &mut self.listeners else { return };
        if self.snapshot.as_ref().is_some_and(|before| snapshot.protects_otherwise(before)) {
            // Who is spoken to in another way has to be ready for it first, wherever it runs.
            listeners.apply_inbound(snapshot);
            tokio::time::sleep(SERVERS_FIRST).await;
        }
        let failures = listeners.apply(snapshot).await;
        self.incomplete = !failures.is_empty();
        for failure in failures {
            tracing::error!("{failure}; tried again in {} s", TRY_AGAIN.as_secs());
        }
    }

    fn compiled(&self, source: &Source) -> Snapshot {
        let options = check::options(self.program, &self.args.compile, SystemTime::now());
        compile(source, &options, self.snapshot.as_ref())
    }

    /// Whom the mesh trusts and how it speaks, by a configuration that is to be in force.
    fn trust(&self, snapshot: &Snapshot) {
        self.min_tls_version.store(snapshot.mesh.min_tls_version);
        if let Some(identity) = &self.identity {
            identity.set_trust(&snapshot.mesh.trust_domain_aliases, &snapshot.mesh.federation);
        }
    }

    fn workers(&self, snapshot: &Snapshot) -> Result<Listeners, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Workers::start(self.args.workers.map_or(cores, usize::from))?;
        let workload = self.args.compile.workload.as_ref().map(ToString::to_string).unwrap_or_default();
        let supply = Supply {
            program: self.program,
            facts: ProcessFacts::new(self.program.name(), workload, Arc::clone(&snapshot.cluster)),
            metrics: self.metrics.clone(),
            log: self.log.clone(),
            identity: self.identity.clone(),
        };
        let refusals = Refusals::new();
        refused::register(&self.metrics, refusals.clone());
        let shared = Shared {
            program: self.program,
            identity: self.identity.clone(),
            refusals,
            min_tls_version: self.min_tls_version.clone(),
            limits: limits(self.program),
            drain: self.drain.clone(),
            patience: Duration::from_secs(self.args.drain),
        };
        let parts = WorkerParts::new(workers.count(), supply);
        Ok(Listeners::new(workers, parts, shared))
    }

    /// Tells the world of a snapshot that is now in force.
    fn tell(&mut self, snapshot: Snapshot) {
        self.fetchers.follow(snapshot.remote_jwks(), snapshot.mesh.private_jwks);
        for problem in &snapshot.problems {
            log::say(problem);
        }
        let proved = self.identity.as_ref().and_then(Identity::id);
        if let (Some(proved), Some(meant)) = (proved, &snapshot.identity)
            && proved != *meant
        {
            tracing::warn!("the certificate is for {proved}, and by the resources this workload is {meant}");
        }
        for hop in &snapshot.plaintext_hops {
            tracing::warn!("plaintext hop {} -> {}: {}", hop.from, hop.to, hop.why);
        }
        self.gauges.configuration(snapshot.errors().count());
        if let Some(path) = &self.args.status_file
            && let Err(error) = status::write(path, &snapshot.status)
        {
            tracing::error!("cannot write the status file {}: {error}", path.display());
        }
        self.page.store(snapshot.to_json());
        tracing::info!("configuration in force: {} listeners", snapshot.listeners.len());
        self.snapshot = Some(snapshot);
    }

    /// Finishes what is in flight, refuses what is new, and ends.
    async fn drain(mut self) {
        tracing::info!("draining: up to {} s for requests in flight", self.args.drain);
        self.readiness.draining();
        self.drain.signal();
        if let Some(mut listeners) = self.listeners.take() {
            listeners.close().await;
            self.drain.drained().await;
            listeners.shutdown();
        }
        self.log.flush(Duration::from_secs(1));
    }
}

fn limits(program: Program) -> Limits {
    match program {
        Program::Gateway | Program::Ingress => Limits::edge(),
        Program::Sidecar => Limits::mesh(),
    }
}

fn access_log(target: &str) -> Result<AccessLog, Failure> {
    Ok(match target {
        "off" => AccessLog::off(),
        "stdout" => AccessLog::stdout()?,
        file => {
            AccessLog::file(file).map_err(|error| format!("cannot write the access log {file}: {error}"))?
        }
    })
}

fn no_listener(snapshot: &Snapshot) -> String {
    let mut text = String::from("no usable listener: nothing to serve");
    for problem in &snapshot.problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    if snapshot.problems.is_empty() {
        text.push_str("; the resources hold no listener for this program and its flags");
    }
    text
}

/// The signals by which a process is asked to stop. Their handlers are in place once this is made.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
