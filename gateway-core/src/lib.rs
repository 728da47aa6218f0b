//! The vocabulary that every Towpath crate speaks. It holds no I/O and decides nothing about a request:
//! it names what layers read, what they write and how they blame.
//!
//! | type | what it is |
//! |---|---|
//! | [`Context`] | one record per request; the only entry the workspace puts into request extensions |
//! | [`Connection`] | what came in: peer, local address, verified identity, TLS facts |
//! | [`Flow`] | the bytes of one client at layer 4: a connection, or datagrams |
//! | [`Endpoint`], [`Backend`] | what goes out: where, as whom, how |
//! | [`Fault`], [`Reason`] | why a request ended early, who is to blame, may it be tried again |
//! | [`Policy`], [`Policies`] | a layer's settings as a route carries them |
//! | [`Live`] | data that configuration swaps while requests run |
//! | [`Body`], [`HttpService`] | the body and the one boxed seam between parts of a stack |
//!
//! Layers refuse by returning `Err(Fault)`; [`RescueLayer`] turns a fault into the response that its reason asks for.

mod attempt;
mod body;
mod changes;
mod connection;
mod consumer;
mod context;
mod endpoint;
mod fault;
mod flow;
mod forwarded_cert;
mod grpc;
mod identity;
mod io;
mod leash;
mod live;
mod load;
mod policy;
mod rescue;
mod retry_budget;
mod route;
mod seam;
mod standing;
mod sync;
mod tls_server;
mod token;
mod trace;

pub use attempt::{Attempt, Outcome};
pub use body::{Body, BodyError, Watch};
pub use changes::Changes;
pub use connection::{Connection, TlsFacts, TlsVersion};
pub use consumer::Consumer;
pub use context::{Context, Decision, DryRun, Session, SlotTaken};
pub use endpoint::{Backend, Balance, Endpoint, Locality, Protocol, Transport, Workload};
pub use fault::{Blame, Fault, GrpcCode, Reason, Replay};
pub use flow::{BoxDatagrams, Datagrams, Flow};
pub use forwarded_cert::ForwardedCert;
pub use grpc::{GrpcStatus, is_grpc};
pub use identity::{InvalidSpiffeId, SpiffeId, TrustDomain};
pub use io::{Accepted, BoxIo, Connected, Destination, Io, Prefixed};
pub use leash::Leash;
pub use live::Live;
pub use load::{InFlight, Load};
pub use policy::{Policies, PoliciesBuilder, Policy};
pub use rescue::{Rescue, RescueFuture, RescueLayer, rescued};
pub use retry_budget::{RetryBudget, RetryConstraint};
pub use route::RouteName;
pub use seam::{HttpService, Request, Response};
pub use standing::Standing;
pub use tls_server::{TlsClient, TlsServer, TlsSubject};
pub use token::{Claim, Token};
pub use trace::{SpanId, TraceContext, TraceId};
