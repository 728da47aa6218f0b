//! Resources that people already write, read strictly and compiled to one [`Snapshot`] per role.
//!
//! Raw resource → validated type → [`Snapshot`]. Raw types never leave this crate. A bad object never takes good ones
//! down: it becomes a [`Problem`] with file, line, column and a suggestion, and everything else stays in force.
//!
//! ```
//! use towpath_config::{Options, Role, Source, compile};
//!
//! let mesh = "apiVersion: towpath.dev/v1alpha1\nkind: Mesh\nmetadata: {name: shop}\nspec: {scenaro: attached}\n";
//! let source = Source::from_files(vec![("mesh.yaml".into(), mesh.into())]);
//! let snapshot = compile(&source, &Options::new(Role::Gateway), None);
//! assert_eq!(
//!     snapshot.problems[0].to_string(),
//!     "error: mesh.yaml:4:8: Mesh shop: unknown field `scenaro` (did you mean `scenario`?)",
//! );
//! ```

mod authorization;
mod authorization_rule;
mod backend;
mod certificate;
mod check;
mod compile;
mod crossing;
mod document;
mod edge;
mod edge_services;
mod endpoints;
mod filter;
mod gateway;
mod json;
mod listener;
mod listener_set;
mod load;
mod matches;
mod migrate;
mod objects;
mod parents;
mod peer;
mod policy;
mod problem;
mod references;
mod resources;
mod role;
mod rule;
mod sidecar;
mod snapshot;
mod source;
mod status;
mod suggest;
mod topology;

pub use compile::{Options, compile};
pub use problem::{Position, Problem, Severity};
pub use role::{InboundPort, ObjectName, PortMap, Role, Scenario};
pub use snapshot::{Duty, EdgeCertificate, Listener, MeshSettings, PlaintextHop, Snapshot};
pub use source::{Source, SourceError};
