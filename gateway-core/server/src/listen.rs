//! Opening the listening sockets of one address, one for each worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds until they are accepted. Larger than the usual 1024, with which good clients wait
/// for seconds under a flood of half-open ones; the kernel caps it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Opens `workers` listening sockets on `address`, all of them or none. With port 0 the kernel chooses one port for
/// all.
///
/// With more than one socket they share the port by `SO_REUSEPORT`, and the kernel spreads connections over them. That
/// option alone would let a second process bind the same port without an error and take half of the traffic, so the
/// first socket takes the port without it and allows it only when it listens: a port in use fails, whoever has it.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    open(address, workers.max(1), false).map_err(|cause| BindError { address, cause })
}

/// [`bind`] for connections that the kernel redirects to `address` from wherever they were for (Linux, netfilter
/// `REDIRECT`): their own side ([`Connection::local`](towpath_gateway_core::Connection::local)) is the address that the
/// client meant. Connections that were not redirected are closed. An IPv6 address takes IPv6 alone.
pub fn bind_redirected(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    if !cfg!(target_os = "linux") {
        let cause = io::Error::new(io::ErrorKind::Unsupported, "only Linux tells where connections were for");
        return Err(BindError { address, cause });
    }
    open(address, workers.max(1), true).map_err(|cause| BindError { address, cause })
}

fn open(address: SocketAddr, workers: usize, redirected: bool) -> io::Result<Bound> {
    let socket = |address: SocketAddr| {
        let socket = socket(address)?;
        if redirected && address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        io::Result::Ok(socket)
    };
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG)?;
    let first = TcpListener::from(first);
    let local = first.local_addr()?;
    let mut sockets = Vec::with_capacity(workers);
    if workers > 1 {
        socket2::SockRef::from(&first).set_reuse_port(true)?;
    }
    sockets.push(first);
    while sockets.len() < workers {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&local.into())?;
        next.listen(BACKLOG)?;
        sockets.push(next.into());
    }
    Ok(Bound { local, sockets, redirected })
}

/// Opens `workers` sockets for datagrams on `address`, all of them or none, as [`bind`] does for connections. The kernel
/// gives all datagrams of one client to the same socket.
pub fn bind_datagrams(address: SocketAddr, workers: usize) -> Result<BoundDatagrams, BindError> {
    open_datagrams(address, workers.max(1)).map_err(|cause| BindError { address, cause })
}

fn open_datagrams(address: SocketAddr, workers: usize) -> io::Result<BoundDatagrams> {
    let first = datagram_socket(address)?;
    first.bind(&address.into())?;
    if workers > 1 {
        first.set_reuse_port(true)?;
    }
    let first = UdpSocket::from(first);
    let local = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        let next = datagram_socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&local.into())?;
        sockets.push(next.into());
    }
    Ok(BoundDatagrams { local, sockets })
}

fn datagram_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that are still closing must not keep a new one from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Listening sockets of one address, not yet served.
#[derive(Debug)]
pub struct Bound {
    local: SocketAddr,
    sockets: Vec<TcpListener>,
    redirected: bool,
}

impl Bound {
    /// The address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The socket, non-blocking, for [`serve_on`](crate::serve_on). `None` if there is more than one: a socket that
    /// nobody accepts from would keep its share of the clients waiting. Nor for redirected connections, which need
    /// [`Workers`](crate::Workers).
    pub fn into_std(mut self) -> Option<TcpListener> {
        self.sockets.pop().filter(|_| self.sockets.is_empty() && !self.redirected)
    }

    /// Whether connections are those that the kernel redirects.
    pub(crate) fn is_redirected(&self) -> bool {
        self.redirected
    }

    pub(crate) fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

/// Sockets for the datagrams of one address, not yet served.
#[derive(Debug)]
pub struct BoundDatagrams {
    local: SocketAddr,
    sockets: Vec<UdpSocket>,
}

impl BoundDatagrams {
    /// The address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn into_sockets(self) -> Vec<UdpSocket> {
        self.sockets
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl BindError {
    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the kernel said.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                f.write_str("address already in use; stop the process that has it, or choose another port")
            }
            io::ErrorKind::PermissionDenied => {
                f.write_str("permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => f.write_str("no interface of this machine has that address"),
            _ => write!(f, "{}", self.cause),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn every_worker_gets_a_socket_on_the_one_port() {
        let bound = bind(ANY, 3).unwrap();
        let local = bound.local_addr();
        assert_ne!(local.port(), 0);
        let sockets = bound.into_sockets();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == local));
    }

    #[test]
    fn connections_spread_over_all_sockets() {
        let bound = bind(ANY, 3).unwrap();
        let local = bound.local_addr();
        let sockets = bound.into_sockets();
        let _clients: Vec<_> = (0..120).map(|_| std::net::TcpStream::connect(local).unwrap()).collect();
        let taken: Vec<usize> =
            sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect();
        assert_eq!(taken.iter().sum::<usize>(), 120);
        assert!(taken.iter().all(|n| *n > 0), "{taken:?}");
    }

    #[test]
    fn a_second_bind_fails_however_many_sockets_either_has() {
        for (first, second) in [(1, 1), (1, 4), (4, 1), (4, 4)] {
            let bound = bind(ANY, first).unwrap();
            let error = bind(bound.local_addr(), second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{first} then {second}");
            let text = error.to_string();
            assert!(
                text.contains(&bound.local_addr().to_string()) && text.contains("already in use"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_second_bind_for_datagrams_fails_and_clients_spread_over_sockets() {
        for (first, second) in [(1, 1), (1, 4), (4, 1), (4, 4)] {
            let bound = bind_datagrams(ANY, first).unwrap();
            let error = bind_datagrams(bound.local_addr(), second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{first} then {second}");
        }
        let bound = bind_datagrams(ANY, 3).unwrap();
        let local = bound.local_addr();
        for _ in 0..120 {
            UdpSocket::bind(ANY).unwrap().send_to(b"x", local).unwrap();
        }
        let taken: Vec<usize> = bound
            .into_sockets()
            .iter()
            .map(|socket| std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok()).count())
            .collect();
        assert_eq!(taken.iter().sum::<usize>(), 120);
        assert!(taken.iter().all(|n| *n > 0), "{taken:?}");
    }

    #[test]
    fn a_foreign_listener_on_the_port_is_noticed() {
        let foreign = TcpListener::bind(ANY).unwrap();
        let error = bind(foreign.local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_is_free_again_at_once() {
        let bound = bind(ANY, 2).unwrap();
        let local = bound.local_addr();
        let client = std::net::TcpStream::connect(local).unwrap();
        // Our side closes first, so that the kernel keeps the connection in TIME_WAIT.
        for socket in bound.into_sockets() {
            drop(socket.accept());
        }
        drop(client);
        bind(local, 2).unwrap();
    }

    #[test]
    fn only_a_single_socket_is_given_away() {
        assert!(bind(ANY, 1).unwrap().into_std().is_some());
        assert!(bind(ANY, 2).unwrap().into_std().is_none());
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = bind("192.0.2.1:80".parse().unwrap(), 1).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:80"), "{error}");
    }
}
