//! The parts of a rule's action, without tower: choice of a backend, headers, paths, redirects.

pub(crate) mod headers;
pub(crate) mod path;
pub(crate) mod redirect;
mod split;

pub use split::Draw;
pub(crate) use split::Split;
