//! Connections that the kernel redirected here: each goes where the listener for its own destination would lead it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tower::{Layer, Service, ServiceExt as _};
use towpath_auth::AuthorizationPolicies;
use towpath_config::{Duty, Listener, OutboundTrafficPolicy};
use towpath_gateway_core::{Accepted, Connection, Live};
use towpath_routing::FlowRoutes;
use towpath_server::{CertificateError, ConnectionFuture, ConnectionService, Drain, UntilDrainedLayer};
use towpath_stacks::{FlowEntry, layer4, passthrough};

use super::{LiveDuty, LiveSocket, LiveTls, Shared};
use crate::worker::WorkerParts;

type Doors = HashMap<Key, Arc<Door>>;

/// What configuration swaps.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    way: Way,
    doors: Live<Doors>,
    rest: Live<OutboundTrafficPolicy>,
    patience: Duration,
}

/// Which connections are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Inbound,
    Outbound,
}

/// What tells a destination from the others: every address of a workload is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Port(u16),
    Address(SocketAddr),
}

impl Way {
    fn key(self, destination: SocketAddr) -> Key {
        match self {
            Self::Inbound => Key::Port(destination.port()),
            Self::Outbound => Key::Address(destination),
        }
    }
}

/// What a destination leads to.
#[derive(Debug)]
struct Door {
    name: Arc<str>,
    live: LiveDuty,
    // Where the application is: an argument of the process.
    application: Option<SocketAddr>,
    // Its connections end with it.
    drain: Drain,
}

impl Door {
    fn close(&self) {
        self.drain.signal();
        self.live.drain();
    }
}

impl Captured {
    /// The data of a new listener.
    pub(super) fn new(listener: &Listener, patience: Duration) -> Result<Self, CertificateError> {
        let (way, _, _) = parts(&listener.duty);
        let captured = Self { way, doors: Live::default(), rest: Live::default(), patience };
        captured.store(listener)?;
        Ok(captured)
    }

    pub(super) fn fits(&self, new: &Duty) -> bool {
        let captured = matches!(new, Duty::CapturedInbound { .. } | Duty::CapturedOutbound { .. });
        captured && parts(new).0 == self.way
    }

    /// Swaps the data of destinations that stay, and lets connections to those that are gone end.
    pub(super) fn store(&self, listener: &Listener) -> Result<(), CertificateError> {
        let (way, listeners, rest) = parts(&listener.duty);
        let before = self.doors.load();
        let mut doors = Doors::with_capacity(listeners.len());
        for listener in listeners {
            let key = match &listener.duty {
                Duty::Inbound { port, .. } => Key::Port(*port),
                _ => way.key(listener.address),
            };
            let fits = |door: &&Arc<Door>| door.name == listener.name && door.live.fits(&listener.duty);
            if let Some(door) = before.get(&key).filter(fits) {
                door.live.store(listener)?;
                doors.insert(key, Arc::clone(door));
            } else if let LiveSocket::Connections(live) = LiveSocket::new(listener, self.patience)? {
                let (name, drain) = (Arc::clone(&listener.name), Drain::new(self.patience));
                let application = application(&listener.duty);
                doors.insert(key, Arc::new(Door { name, live, application, drain }));
            }
        }
        let stays = |key: &Key, door: &Arc<Door>| doors.get(key).is_some_and(|new| Arc::ptr_eq(new, door));
        let gone: Vec<_> = before.iter().filter(|(key, door)| !stays(key, door)).collect();
        self.rest.store(rest);
        self.doors.store(doors);
        for (_, door) in gone {
            door.close();
        }
        Ok(())
    }

    /// Lets connections end.
    pub(super) fn drain(&self) {
        self.doors.load().values().for_each(|door| door.close());
    }

    /// The accept stack of one worker.
    pub(super) fn service(
        &self,
        shared: &Shared,
        parts: &Arc<WorkerParts>,
        (worker, name): (usize, &Arc<str>),
    ) -> ConnectionService {
        let flows = || parts.flows_of((worker, name));
        let nowhere = FlowEntry {
            routes: Live::new(FlowRoutes::default()),
            authorization: Live::new(AuthorizationPolicies::default()),
            port: 0,
        };
        let passed = UntilDrainedLayer::new(shared.drain.clone()).layer(passthrough(flows()));
        ConnectionService::new(ByDestination {
            captured: self.clone(),
            shared: shared.clone(),
            parts: Arc::clone(parts),
            worker,
            made: Arc::default(),
            passed: ConnectionService::new(passed),
            refused: LiveTls::Opaque.service(shared, layer4(flows(), nowhere)),
        })
    }
}

/// What a duty of this kind consists of.
fn parts(duty: &Duty) -> (Way, &[Listener], OutboundTrafficPolicy) {
    match duty {
        Duty::CapturedOutbound { listeners, rest } => (Way::Outbound, listeners, *rest),
        Duty::CapturedInbound { listeners } => (Way::Inbound, listeners, OutboundTrafficPolicy::RegistryOnly),
        _ => (Way::Inbound, &[], OutboundTrafficPolicy::RegistryOnly),
    }
}

fn application(duty: &Duty) -> Option<SocketAddr> {
    let Duty::Inbound { app, .. } = duty else { return None };
    let address = app.endpoints()?.first()?.address;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Whether this is our own connection to the application, captured by rules that do not know where it is: to hand it on
/// would be to take it in again, for ever.
fn is_circle(doors: &Doors, connection: &Connection) -> bool {
    connection.peer.ip() == connection.local.ip()
        && doors.values().any(|door| door.application == Some(connection.local))
}

/// Hands each connection to the stack for its destination. A stack is made when the first connection needs it: a mesh has
/// many Services, and a workload calls few.
#[derive(Clone)]
struct ByDestination {
    captured: Captured,
    shared: Shared,
    parts: Arc<WorkerParts>,
    worker: usize,
    /// Of this worker alone: nobody waits for the lock.
    made: Arc<Mutex<HashMap<Key, (Arc<Door>, ConnectionService)>>>,
    passed: ConnectionService,
    refused: ConnectionService,
}

impl ByDestination {
    /// The stack behind a door.
    fn behind(&self, doors: &Doors, key: Key, door: &Arc<Door>) -> ConnectionService {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, service)) = made.get(&key)
            && Arc::ptr_eq(of, door)
        {
            return service.clone();
        }
        let stays = |key: &Key, of: &Arc<Door>| doors.get(key).is_some_and(|door| Arc::ptr_eq(door, of));
        made.retain(|key, (of, _)| stays(key, of));
        let shared = Shared { drain: door.drain.clone(), ..self.shared.clone() };
        let service = door.live.service(&shared, &self.parts, (self.worker, &door.name));
        made.insert(key, (Arc::clone(door), service.clone()));
        service
    }
}

impl Service<Accepted> for ByDestination {
    type Response = ();
    type Error = Infallible;
    type Future = ConnectionFuture;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        // Whether a stack is ready is asked when it is known which.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, accepted: Accepted) -> ConnectionFuture {
        let key = self.captured.way.key(accepted.connection.local);
        let doors = self.captured.doors.load();
        if is_circle(&doors, &accepted.connection) {
            tracing::warn!(
                application = %accepted.connection.local,
                "closed a connection to the application that was captured: give `capture up` its address by --app"
            );
            return Box::pin(self.refused.clone().oneshot(accepted));
        }
        if let Some(door) = doors.get(&key) {
            return Box::pin(self.behind(&doors, key, door).oneshot(accepted));
        }
        match **self.captured.rest.load() {
            OutboundTrafficPolicy::AllowAny => Box::pin(self.passed.clone().oneshot(accepted)),
            OutboundTrafficPolicy::RegistryOnly => Box::pin(self.refused.clone().oneshot(accepted)),
        }
    }
}
