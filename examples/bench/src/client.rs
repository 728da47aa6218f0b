//! A small blocking HTTP/1.1 client: checks that a proxy answers as it should, and holds idle connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::certificates::{Certificates, NAME, Pair};
use crate::process::Process;
use crate::{Failure, interrupt};

const PATIENCE: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(30);

/// A connection, with or without TLS.
pub(crate) trait Io: Read + Write {}
impl<T: Read + Write> Io for T {}

/// Trust in the root of the run, without resumption; with a certificate of its own where `as_client` names one.
pub(crate) fn tls(root: &Path, as_client: Option<&Pair>) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match as_client {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_file(&pair.certificate)?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key)?)?
        }
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The client that a run's proxies with TLS are checked with.
pub(crate) fn checker(certificates: &Certificates) -> Result<Arc<ClientConfig>, Failure> {
    tls(&certificates.root, None)
}

/// Connects.
pub(crate) fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Io>, Failure> {
    let tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(NAME)?;
    Ok(Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp)))
}

/// Sends one request for `path` and reads the whole answer: status and bytes of the body.
pub(crate) fn exchange(io: &mut dyn Io, path: &str, close: bool) -> Result<(u16, usize), Failure> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    io.write_all(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{connection}\r\n").as_bytes())?;
    io.flush()?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(answer) = complete(&seen)? {
            return Ok(answer);
        }
        match io.read(&mut buffer)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read => seen.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Status and body length of an answer with a Content-Length, once all of it is there.
fn complete(seen: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(seen.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.ok_or("an answer without Content-Length")?.trim().parse()?;
    Ok((seen.len() >= end + 4 + length).then_some((status, length)))
}

/// Waits until `process` answers 200 with a body of the expected length.
pub(crate) fn wait_for_answer(
    process: &mut Process,
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    path: &str,
    expected: Option<usize>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + START;
    loop {
        interrupt::check()?;
        process.must_run()?;
        let answer = connect(address, tls).and_then(|mut io| exchange(&mut *io, path, true));
        let why = match answer {
            Ok((200, length)) if expected.is_none_or(|expected| expected == length) => return Ok(()),
            Ok((status, length)) => format!("status {status}, {length} bytes"),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(format!("{} does not serve {path}: {why}", process.name).into());
        }
        sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(complete(whole).unwrap(), Some((200, 3)));
        assert_eq!(complete(&whole[..whole.len() - 1]).unwrap(), None);
        assert_eq!(complete(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
