//! HTTP routing by the rules of the Gateway API: tables built when configuration is applied, matching with the
//! specified precedence, filters, and the split over weighted backends.
//!
//! | part | what it does |
//! |---|---|
//! | [`NormalizeLayer`] | makes the one path and the one host that routing, policies and the backend see |
//! | [`Routes`] | the table: an index of every rule, built once, asked per request |
//! | [`RouteLayer`] | asks the table and writes the rule with its settings to the request's context |
//! | [`CorsLayer`] | answers preflights, and says which pages may read answers and refusals |
//! | [`InjectLayer`] | delays and aborts a share of the requests, to try out how callers take it |
//! | [`RespondLayer`] | answers in place of a backend |
//! | [`PersistLayer`] | sends the requests of a session to where its first one went |
//! | [`MirrorLayer`] | sends copies of requests to further backends |
//! | [`FilterLayer`] | carries the rule's action out: redirect, rewrite, headers, choice of a backend |
//!
//! In a stack they stand in this order, with what needs the route's settings (authentication, authorization, limits)
//! between the last two.
//!
//! Layer 4 has a table of its own, [`FlowRoutes`], which [`FlowRouteLayer`] asks for each connection and each flow of
//! datagrams.

mod action;
mod cors;
mod direct;
mod fault;
mod filter;
mod flow;
mod hostname;
mod layer;
mod normalize;
mod route;
mod session;
mod table;
mod tee;
mod uri;

pub use action::RuleAction;
pub use cors::{Cors, Names, OriginPattern};
pub use direct::DirectResponse;
pub use fault::{Abort, AbortStatus, Delay, FaultInjection, Share};
pub use filter::Draw;
pub use flow::{FlowListener, FlowMatch, FlowRoute, FlowRoutes};
pub use hostname::{Hostname, InvalidHostname};
pub use layer::cors::{CorsFuture, CorsLayer, ShareWithOrigins};
pub use layer::filter::{Filter, FilterFuture, FilterLayer};
pub use layer::flow::{FlowRouteLayer, RouteFlow};
pub use layer::inject::{InjectFaults, InjectFuture, InjectLayer};
pub use layer::mirror::{MirrorLayer, MirrorRequests, Spawn};
pub use layer::normalize::{Normalization, Normalize, NormalizeFuture, NormalizeLayer};
pub use layer::original_destination::{OriginalDestination, OriginalDestinationLayer};
pub use layer::persist::{PersistFuture, PersistLayer, PersistSessions};
pub use layer::respond::{RespondDirectly, RespondFuture, RespondLayer};
pub use layer::route::{RouteFuture, RouteLayer, RouteTo};
pub use normalize::{PathNormalization, RefusedPath};
pub use route::{
    Filters, HeaderMatch, HeaderModifier, Listener, Mirror, PathMatch, PathRewrite, QueryMatch, Redirect,
    RequestMatch, Rewrite, Route, Rule, ValueMatch, WeightedBackend,
};
pub use session::{SessionCarrier, SessionHome, SessionPersistence};
pub use table::{Candidate, Explanation, Lost, Matched, Miss, Precedence, RequestFacts, Routes};
