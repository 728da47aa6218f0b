//! HTTP routing by the rules of the Gateway API: tables built when configuration is applied, matching with the
//! specified precedence, filters, and the split over weighted backends.
//!
//! [`Routes`] is the data; [`RouteLayer`] finds the rule and writes it to the request's context; [`FilterLayer`]
//! carries the rule's action out; [`NormalizeLayer`] makes the one path that all of them, and policies, see.

mod hostname;
mod route;

pub use hostname::{Hostname, InvalidHostname};
pub use route::{
    Filters, HeaderMatch, HeaderModifier, Listener, PathMatch, PathRewrite, QueryMatch, Redirect, RequestMatch, Rewrite,
    Route, Rule, ValueMatch, WeightedBackend,
};
