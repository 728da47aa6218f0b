//! The parts of normalization, without tower: path, host, cookies, headers of one hop, headers of the edge.

pub(crate) mod cookie;
pub(crate) mod edge;
mod found;
pub(crate) mod hop;
pub(crate) mod host;
mod path;

pub(crate) use found::Found;
pub(crate) use path::hex_pair;
pub use path::{PathNormalization, RefusedPath};
