//! The hello of a TLS client (RFC 8446 section 4.1.2): what it asks for, and its bytes, to be put back in front of whoever
//! reads the connection next. A hello may come in any number of segments and records: those with post-quantum key shares
//! are larger than one segment.
//!
//! Nothing is asked of it but that it can be read: whether its versions, ciphers and names are good enough is for the side
//! that ends TLS, which may be another process.

mod message;

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

/// As much as is read of a hello, as in Envoy; those with post-quantum key shares have 2 KiB.
pub const LARGEST: usize = 16 * 1024;

/// What a client asks for, and the bytes that say so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Everything that was read: the hello, and perhaps more.
    pub bytes: Vec<u8>,
    /// The server name (RFC 6066 section 3), in lower case, whatever characters it has; none for an address.
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
                if missing == 0 { "the hello has more than 16 KiB" } else { "closed before the hello ended" };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
    }
}

/// Looks at the first bytes of a connection, however they come.
#[derive(Debug, Default)]
pub struct Reader {
    /// Of a record that is not whole.
    record: Vec<u8>,
    /// What records carried.
    message: Vec<u8>,
}

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
/// The most that a record may carry (RFC 8446 section 5.1).
const RECORD: usize = 1 << 14;

impl Reader {
    /// Takes further bytes. What a hello says once it is whole, without its bytes.
    pub fn take(&mut self, fresh: &[u8]) -> io::Result<Option<Hello>> {
        self.record.extend_from_slice(fresh);
        loop {
            match *self.record {
                [kind, ..] if kind != HANDSHAKE => return Err(no_hello("it is no handshake of TLS")),
                [_, major, ..] if major != 3 => return Err(no_hello("its version of TLS is not known")),
                [_, _, _, high, low, ..] => {
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    if length == 0 || length > RECORD {
                        return Err(no_hello("a record has no length that may be"));
                    }
                    let Some(payload) = self.record.get(HEADER..HEADER + length) else { return Ok(None) };
                    self.message.extend_from_slice(payload);
                    self.record.drain(..HEADER + length);
                }
                _ => return Ok(None),
            }
            if let Some(hello) = message::read(&self.message).map_err(no_hello)? {
                return Ok(Some(hello));
            }
        }
    }
}

fn no_hello(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no hello of a TLS client: {why}"))
}

#[cfg(test)]
mod tests;
