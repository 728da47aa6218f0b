//! The admin endpoints of a process, on the control runtime: workers never see them.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tower::ServiceBuilder;
use towpath_gateway_core::{HttpService, RescueLayer};
use towpath_observability::Admin;
use towpath_server::{ConnectionService, Drain, Limits, Serve, bind, serve_on};

use crate::Failure;

/// Opens the admin address and serves it until the process ends.
pub(crate) fn start(address: SocketAddr, admin: Admin) -> Result<(), Failure> {
    // Bound as every other listener is, so that a port in use is told in the same words.
    let bound = bind(address, 1).map_err(|error| format!("admin: {error}"))?;
    let local = bound.local_addr();
    let socket = bound.into_std().ok_or("no admin socket")?;
    let listener = TcpListener::from_std(socket)?;
    // Admin answers to the last: its connections are not part of the process's drain.
    let drain = Drain::new(std::time::Duration::ZERO);
    let stack = HttpService::new(ServiceBuilder::new().layer(RescueLayer::new()).service(admin));
    let service = ConnectionService::new(Serve::new(stack, Limits::edge(), drain.clone()));
    tokio::spawn(serve_on(listener, service, drain));
    tracing::info!("admin endpoints on {local}");
    Ok(())
}
