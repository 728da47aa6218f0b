//! Addresses of a run: loopback, and free when asked for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::Failure;

/// A free address of 127.0.0.1. Another program could take it before it is used; then the start fails and says so.
pub(crate) fn free() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
