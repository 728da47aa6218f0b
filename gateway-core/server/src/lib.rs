//! Listeners, the accept stack, HTTP/1 and HTTP/2 serving with limits, upgrades and drain.
//!
//! Connections travel down a tower stack of `Service<Accepted, Response = ()>`; [`Serve`] ends it and hands requests
//! to a stack of HTTP layers.
//!
//! | part | what it does |
//! |---|---|
//! | [`bind`], [`Bound`] | opens the sockets of an address, one for each worker, all or none |
//! | [`Workers`], [`Listening`] | a runtime per core, each accepting and serving on its own |
//! | [`serve_on`], [`serve_with`], [`Accept`] | one listener in the runtime at hand; any source of connections |
//! | [`TerminateLayer`], [`EdgeCertificates`] | TLS at an edge, certificates by server name |
//! | [`ServerNameLayer`] | TLS that ends at the backend: looks at the server name only |
//! | [`bind_datagrams`], [`Workers::open_datagrams`] | the same for UDP: one flow per client |
//! | [`UntilDrainedLayer`] | cuts layer 4 flows at the drain's deadline |
//! | [`Serve`] | HTTP/1.1 and HTTP/2 on one connection |
//! | [`Limits`] | what a client may send, hold and take time over; the table of defaults is there |
//! | [`Drain`] | ends connections when their requests are answered, and waits for them |
//! | [`ConnectionService`], [`DatagramService`] | the accept stack, boxed |
//!
//! # Serving axum
//!
//! An axum `Router` is a service over any request body, so it is served as it is:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use towpath_server::{ConnectionService, Drain, Limits, Serve, serve_on};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let app: Router = Router::new().route("/", get(|| async { "hello" }));
//! let drain = Drain::default();
//! let service = ConnectionService::new(Serve::new(app, Limits::edge(), drain.clone()));
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let serving = tokio::spawn(serve_on(listener, service, drain.clone()));
//!
//! let mut client = tokio::net::TcpStream::connect(address).await?;
//! client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"));
//!
//! drain.signal();
//! serving.await?;
//! assert!(drain.drained().await);
//! # Ok(())
//! # }
//! ```
//!
//! # A worker per core, with TLS
//!
//! ```no_run
//! # fn run(
//! #     app: towpath_gateway_core::HttpService,
//! #     certificates: towpath_server::EdgeCertificates,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use tower::{Layer, ServiceBuilder};
//! use towpath_gateway_core::Live;
//! use towpath_server::{ConnectionService, Drain, Limits, Serve, TerminateLayer, Workers, bind};
//!
//! let (limits, drain) = (Limits::edge(), Drain::default());
//! let tls = TerminateLayer::new(Live::new(certificates.server_config()?), limits.handshake_timeout)
//!     .with_drain(drain.clone());
//! let workers = Workers::start(std::thread::available_parallelism()?.get())?;
//! let bound = bind("0.0.0.0:443".parse()?, workers.count())?;
//! let stack = {
//!     let drain = drain.clone();
//!     move |_worker| ConnectionService::new(tls.layer(Serve::new(app.clone(), limits, drain.clone())))
//! };
//! let listening = workers.open(bound, stack, &limits, &drain)?;
//! # Ok(())
//! # }
//! ```

mod accept;
mod admission;
mod answering;
mod certificates;
mod client_certificates;
mod datagrams;
mod detect;
mod dispatch;
mod drain;
mod drive;
mod first_line;
mod h1;
mod limits;
mod listen;
mod pace;
mod paced;
mod redirected;
mod serve;
mod server_name;
mod service;
mod sniff;
mod tls;
mod tunnels;
mod until_drained;
mod watched;
mod workers;

pub use accept::{Accept, serve_on, serve_with};
pub use certificates::{CertificateError, EdgeCertificates, EdgeConfig};
pub use detect::Detect;
pub use drain::{Drain, DrainGuard};
pub use limits::Limits;
pub use listen::{BindError, Bound, BoundDatagrams, bind, bind_datagrams, bind_redirected};
pub use serve::{ConnectionFuture, Serve};
pub use server_name::{ReadServerName, ReadServerNameFuture, ServerNameLayer};
pub use service::{AcceptService, ConnectionService, DatagramService};
pub use tls::{Terminate, TerminateFuture, TerminateLayer};
pub use tunnels::Tunnels;
pub use until_drained::{UntilDrained, UntilDrainedFuture, UntilDrainedLayer};
pub use workers::{Listening, Workers};
