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

mod authorities;
mod authorization;
mod authorization_rule;
mod backend;
mod backend_tls;
mod capture;
mod certificate;
mod certificate_ref;
mod check;
mod client_certificate;
mod client_validation;
mod compile;
mod crossing;
mod document;
mod duty;
mod edge;
mod edge_services;
mod endpoints;
mod extension;
mod external_auth;
mod federation;
mod filter;
mod flow;
mod gateway;
mod json;
mod kinds;
mod listener;
mod listener_set;
mod load;
mod loose;
mod matches;
mod migrate;
mod objects;
mod outbound;
mod parents;
mod peer;
mod policy;
mod problem;
mod provider;
mod references;
mod request_authentication;
mod resources;
mod retry_budget;
mod role;
mod rule;
mod scope;
mod service_policy;
mod service_routes;
mod session;
mod sidecar;
mod snapshot;
mod source;
mod status;
mod suggest;
mod topology;
mod unmet;
mod written;

pub use compile::{Capture, GivenWorkload, Options, compile};
pub use duty::{
    Application, ClientValidation, ClientValidationMode, Duty, EdgeCertificate, EdgeTls, Guard, Listener,
    OutboundTrafficPolicy, StreamTls,
};
pub use json::rule_settings;
pub use migrate::{Finding, Loss, Migration, migrate};
pub use problem::{Position, Problem, Severity};
pub use request_authentication::RemoteJwks;
pub use role::{InboundPort, ObjectName, PortMap, Role, Scenario};
pub use snapshot::{MeshSettings, PlaintextHop, Snapshot};
pub use source::{Source, SourceError};
pub use status::ObjectStatus;
