//! Resources that people already write, read strictly and compiled to one [`Snapshot`] per role.
//!
//! Raw resource → validated type → [`Snapshot`]. Raw types never leave this crate. A bad object never takes good ones
//! down: it becomes a [`Problem`] with file, line, column and a suggestion, and everything else stays in force.

mod problem;
mod role;
mod snapshot;

pub use problem::{Position, Problem, Severity};
pub use role::{InboundPort, ObjectName, PortMap, Role, Scenario};
pub use snapshot::{Duty, EdgeCertificate, Listener, MeshSettings, PlaintextHop, Snapshot};
