//! The layers of this crate.

pub(crate) mod filter;
mod host;
pub(crate) mod normalize;
pub(crate) mod route;
