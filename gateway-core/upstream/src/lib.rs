//! From a chosen backend to its answer: endpoint choice, connection pool, deadlines and safe retries.
//!
//! Outermost first, with the reason for each place in the module of its layer:
//!
//! | part | duty |
//! |---|---|
//! | [`DeadlineLayer`] | the time that all tries together may take |
//! | [`RetryLayer`] | sends a request again where that is provably safe |
//! | [`BalanceLayer`] | chooses an endpoint of the request's backend for this try |
//! | [`Pool`] | carries the try over a kept connection, HTTP/1.1 or HTTP/2 |
//! | [`OriginateTlsLayer`] | TLS to servers that have to prove a name |
//! | a connect stack, such as [`TcpConnector`] | opens connections: `Service<Destination, Response = Connected>` |
//!
//! [`client`] stacks all of them. Layer 4 has no requests: [`ForwardStreams`] and [`ForwardDatagrams`] choose an endpoint once
//! for each flow and carry its bytes.

mod balance;
mod client;
mod connect;
mod deadline;
mod forward;
mod hbone;
mod limit;
mod policy;
mod pool;
mod random;
mod retry;
mod tls;

pub use balance::{Balance, BalanceFuture, BalanceLayer};
pub use client::{Client, client};
pub use connect::{ConnectFuture, EDGE_CONNECT_TIMEOUT, MESH_CONNECT_TIMEOUT, TcpConnector};
pub use deadline::{Deadline, DeadlineFuture, DeadlineLayer};
pub use forward::{ForwardDatagrams, ForwardFuture, ForwardStreams};
pub use hbone::{Hbone, HboneFuture, HboneLayer};
pub use policy::{Retry, Timeouts};
pub use pool::{Pool, PoolFuture, PoolSettings};
pub use random::Random;
pub use retry::{RetryFuture, RetryLayer, Retrying};
pub use tls::{OriginateTls, OriginateTlsLayer};
