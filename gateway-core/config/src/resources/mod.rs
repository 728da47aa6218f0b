//! Resources as they are written. These types never leave the crate. Leaves are read into their final types, so that
//! a value that makes no sense is refused with its line and column.

pub(crate) mod backend_tls;
pub(crate) mod body;
pub(crate) mod core;
pub(crate) mod filter;
pub(crate) mod gateway;
pub(crate) mod istio;
pub(crate) mod leaf;
pub(crate) mod meta;
pub(crate) mod route;
pub(crate) mod towpath;
pub(crate) mod traffic;

use serde_saphyr::Spanned;

/// A text whose place is remembered.
pub(crate) type Text = Spanned<String>;
