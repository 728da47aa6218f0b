//! Where resources come from: files, the control plane, or both together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use towpath_ca::JoinToken;
use towpath_config::Source;
use towpath_control::{ConfigBundle, PlaneClient};
use towpath_mesh_mtls::Identity;
use towpath_observability::Readiness;

use crate::Failure;
use crate::args::ConfigPath;
use crate::watch::Watch;

const CONDITION: &str = "control-plane";
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const EMPTIED_PAUSE: Duration = Duration::from_millis(100);
const EMPTIED_LOOKS: usize = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The resources of a process, and their changes.
pub(crate) struct Resources {
    paths: Vec<PathBuf>,
    watch: Option<Watch>,
    plane: Option<Plane>,
    last: Source,
    // Something changed that was not read yet.
    woken: bool,
    /// The error that was told of last.
    told: String,
}

struct Plane {
    address: SocketAddr,
    client: Option<PlaneClient>,
    bundle: Option<ConfigBundle>,
    bundles: Option<mpsc::Receiver<ConfigBundle>>,
}

impl Resources {
    /// Resources of these paths. A plane needs the join token, too.
    pub(crate) fn new(
        config: &[ConfigPath],
        token: Option<JoinToken>,
        identity: Option<Identity>,
    ) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        let mut plane = None;
        for path in config {
            match path {
                ConfigPath::Path(path) => paths.push(path.clone()),
                ConfigPath::Plane(_) if plane.is_some() => {
                    return Err("--config names two control planes".into());
                }
                ConfigPath::Plane(address) => {
                    plane = Some(Plane::new(*address, token.clone(), identity.clone())?);
                }
            }
        }
        Ok(Self { paths, watch: None, plane, last: Source::default(), woken: false, told: String::new() })
    }

    /// The first state. An unreadable path is an error; a plane that is not there is waited for.
    pub(crate) async fn first(&mut self, readiness: &Readiness) -> Result<Source, Failure> {
        // Watched before it is read, so that no change falls between.
        if !self.paths.is_empty() {
            Source::read(&self.paths)?;
            self.watch = Some(
                Watch::start(&self.paths)
                    .map_err(|error| format!("cannot watch the configuration: {error}"))?,
            );
        }
        if let Some(plane) = &mut self.plane {
            plane.begin(readiness.clone());
            plane.next().await;
        }
        self.last = self.read()?;
        Ok(self.last.clone())
    }

    /// The next state, once a text has changed: other files may live beside them, such as the status file and logs of
    /// this very process. What cannot be read is told, and waited for anew.
    pub(crate) async fn changed(&mut self) -> Source {
        loop {
            if !self.woken {
                tokio::select! {
                    () = file_change(&mut self.watch) => {}
                    () = plane_change(&mut self.plane) => {}
                }
            }
            // Until it is read: dropping this future loses no change.
            self.woken = true;
            let settled = self.settled().await;
            self.woken = false;
            match settled {
                Ok(source) if source.files().eq(self.last.files()) => self.told.clear(),
                Ok(source) => {
                    self.told.clear();
                    self.last = source.clone();
                    return source;
                }
                Err(error) => self.tell(error.to_string()),
            }
        }
    }

    /// What was told is not told again: the log may be in the very directory that is watched.
    fn tell(&mut self, error: String) {
        if error != self.told {
            tracing::error!("{error}; the configuration before stays in force");
            self.told = error;
        }
    }

    /// What is there now. A file that had text and has none is in the middle of being written in place, or was emptied
    /// on purpose: a moment tells which.
    async fn settled(&self) -> Result<Source, Failure> {
        for _ in 0..EMPTIED_LOOKS {
            let source = self.read()?;
            let is_emptied = |(name, text): (&Arc<str>, &Arc<str>)| {
                text.trim().is_empty()
                    && self.last.files().any(|(was, before)| was == name && !before.trim().is_empty())
            };
            if !source.files().any(is_emptied) {
                return Ok(source);
            }
            tokio::time::sleep(EMPTIED_PAUSE).await;
        }
        self.read()
    }

    fn read(&self) -> Result<Source, Failure> {
        let files = Source::read(&self.paths)?;
        let Some(bundle) = self.plane.as_ref().and_then(|plane| plane.bundle.as_ref()) else {
            return Ok(files);
        };
        let local = files.files().map(|(name, text)| (name.to_string(), text.to_string()));
        let central = bundle.files.iter().map(|file| (file.name.clone(), file.text.clone()));
        Ok(Source::from_files(central.chain(local).collect()))
    }
}

async fn file_change(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn plane_change(plane: &mut Option<Plane>) {
    match plane {
        Some(plane) => plane.next().await,
        None => std::future::pending().await,
    }
}

impl Plane {
    fn new(
        address: SocketAddr,
        token: Option<JoinToken>,
        identity: Option<Identity>,
    ) -> Result<Self, Failure> {
        let token = token.ok_or("--config plane=ADDR needs --join-token FILE")?;
        let mut client = PlaneClient::new(&address.to_string(), token)?;
        if let Some(identity) = identity {
            client = client.with_identity(identity);
        }
        Ok(Self { address, client: Some(client), bundle: None, bundles: None })
    }

    /// Starts to follow the plane, on a task of its own: an answer in the making is not lost when a file changes.
    fn begin(&mut self, readiness: Readiness) {
        let Some(client) = self.client.take() else { return };
        readiness.waiting(
            CONDITION,
            format!("asking the control plane at {} for the configuration", self.address),
        );
        let (send, bundles) = mpsc::channel(1);
        self.bundles = Some(bundles);
        tokio::spawn(follow(client, readiness, send));
    }

    async fn next(&mut self) {
        let bundle = match &mut self.bundles {
            Some(bundles) => bundles.recv().await,
            None => None,
        };
        match bundle {
            Some(bundle) => self.bundle = Some(bundle),
            None => std::future::pending().await,
        }
    }
}

/// Asks again and again. A plane that goes away changes nothing: the last configuration stays in force.
async fn follow(client: PlaneClient, readiness: Readiness, bundles: mpsc::Sender<ConfigBundle>) {
    let mut known: Option<String> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        match client.fetch_config(known.as_deref()).await {
            Ok(bundle) => {
                pause = FIRST_PAUSE;
                readiness.done(CONDITION);
                if known.as_ref() != Some(&bundle.version) {
                    known = Some(bundle.version.clone());
                    if bundles.send(bundle).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                let text = format!("{error}; next try in {:.1} s", wait.as_secs_f64());
                tracing::warn!("no configuration from the plane: {text}");
                if known.is_none() {
                    readiness.waiting(CONDITION, text);
                }
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
