//! Tells TLS from plaintext by the first bytes, without losing them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

// As many bytes as two records' heads have: enough to decide, small enough to keep with an idle connection.
const ROOM: usize = 16;
const HANDSHAKE: u8 = 0x16;
const MAJOR_VERSION: u8 = 0x03;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstBytes {
    /// A TLS handshake record (RFC 8446 section 5.1: type 22, legacy version 3.x).
    Tls,
    /// Anything else.
    Plaintext,
    /// The connection ended before a byte came.
    Nothing,
}

/// The verdict on the bytes so far; `None` while more must be seen.
pub(crate) fn decide(bytes: &[u8]) -> Option<FirstBytes> {
    match bytes {
        [] | [HANDSHAKE] => None,
        [HANDSHAKE, MAJOR_VERSION, ..] => Some(FirstBytes::Tls),
        _ => Some(FirstBytes::Plaintext),
    }
}

/// Reads until the verdict is clear; who is silent for longer than `patience` speaks plaintext, if anything. Returns the
/// bytes too: whoever reads next has to see them again.
pub(crate) async fn sniff(
    io: &mut (impl AsyncRead + Unpin),
    patience: Duration,
) -> io::Result<(FirstBytes, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(ROOM);
    match timeout(patience, read(io, &mut bytes)).await {
        Ok(verdict) => Ok((verdict?, bytes)),
        Err(_) => Ok((FirstBytes::Plaintext, bytes)),
    }
}

async fn read(io: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<FirstBytes> {
    loop {
        let ended = io.read_buf(bytes).await? == 0;
        match decide(bytes) {
            Some(verdict) => return Ok(verdict),
            None if ended && bytes.is_empty() => return Ok(FirstBytes::Nothing),
            None if ended => return Ok(FirstBytes::Plaintext),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_bytes_decide() {
        for (bytes, verdict) in [
            (&b""[..], None),
            (&[0x16], None),
            (&[0x16, 0x03], Some(FirstBytes::Tls)),
            (&[0x16, 0x03, 0x01, 0x02], Some(FirstBytes::Tls)),
            (&[0x16, 0x16], Some(FirstBytes::Plaintext)),
            (&[0x17, 0x03], Some(FirstBytes::Plaintext)),
            (b"G", Some(FirstBytes::Plaintext)),
            (b"PRI * HTTP/2.0", Some(FirstBytes::Plaintext)),
        ] {
            assert_eq!(decide(bytes), verdict, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_is_told_apart() {
        assert_eq!(sniff(&mut &b""[..], Duration::MAX).await.unwrap(), (FirstBytes::Nothing, vec![]));
        assert_eq!(
            sniff(&mut &[0x16][..], Duration::MAX).await.unwrap(),
            (FirstBytes::Plaintext, vec![0x16])
        );
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..6), at in 0_usize..6) {
            let early = decide(bytes.get(..at).unwrap_or(&bytes));
            prop_assert!(early.is_none() || early == decide(&bytes));
        }
    }
}
