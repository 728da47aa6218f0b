//! The hello of a TLS client (RFC 8446 section 4.1.2): what it asks for, and its bytes, to be put back in front of whoever
//! reads the connection next. A hello may come in any number of segments and records: those with post-quantum key shares
//! are larger than one segment.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// As much as a handshake message may be in `rustls`; hellos with post-quantum key shares have 2 KiB.
pub const LARGEST: usize = 64 * 1024;

/// What a client asks for, and the bytes that say so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Everything that was read: the hello, and perhaps more.
    pub bytes: Vec<u8>,
    /// The server name (RFC 6066 section 3), in lower case.
    pub server_name: Option<Arc<str>>,
    /// The protocols offered (RFC 7301), the best first.
    pub protocols: Vec<Vec<u8>>,
}

impl Hello {
    /// Whether any of these protocols is offered.
    pub fn offers(&self, names: &[&str]) -> bool {
        self.protocols.iter().any(|offered| names.iter().any(|name| name.as_bytes() == offered))
    }
}

/// Reads a hello of which `bytes` came already. An error is anything else, more than [`LARGEST`] bytes, or an end before
/// the hello's.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let mut no_tls = &b"GET / HTTP/1.1\r\n\r\n"[..];
/// assert!(towpath_hello::read(&mut no_tls, Vec::new()).await.is_err());
/// # });
/// ```
pub async fn read(io: &mut (impl AsyncRead + Unpin), bytes: Vec<u8>) -> io::Result<Hello> {
    let mut reader = Reader::default();
    let mut bytes = bytes;
    bytes.reserve(2048);
    let mut seen = 0;
    loop {
        if let Some(hello) = reader.take(bytes.get(seen..).unwrap_or_default())? {
            return Ok(Hello { bytes, ..hello });
        }
        seen = bytes.len();
        let missing = LARGEST.saturating_sub(seen);
        if io.take(missing as u64).read_buf(&mut bytes).await? == 0 {
            let why =
                if missing == 0 { "the hello has more than 64 KiB" } else { "closed before the hello ended" };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
    }
}

/// Looks at the first bytes of a connection, however they come.
#[derive(Default)]
pub struct Reader(Acceptor);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Takes further bytes. What a hello says once it is whole, without its bytes.
    pub fn take(&mut self, mut fresh: &[u8]) -> io::Result<Option<Hello>> {
        while !fresh.is_empty() {
            self.0.read_tls(&mut fresh)?;
            let accepted = self.0.accept();
            let accepted =
                accepted.map_err(|(error, _)| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(accepted) = accepted {
                let hello = accepted.client_hello();
                let server_name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
                let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                return Ok(Some(Hello { bytes: Vec::new(), server_name, protocols }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
