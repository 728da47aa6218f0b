//! Which HTTP version a connection speaks: by ALPN (RFC 7301), else by its first bytes (RFC 9113 section 3.3).

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use towpath_gateway_core::TlsFacts;

use crate::pace::Framing;

/// The first bytes of every HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What ALPN settled. Mesh protocols (`istio`, `istio-peer-exchange`, …) name no HTTP version: `None`, look at the
/// bytes.
pub(crate) fn agreed(tls: Option<&TlsFacts>) -> Option<Framing> {
    match tls?.alpn.as_deref()? {
        "h2" => Some(Framing::H2),
        "http/1.1" | "http/1.0" => Some(Framing::H1),
        _ => None,
    }
}

/// Reads until the version shows: the bytes read, to be put back, and the version. `None` if the client closed before
/// it sent anything.
pub(crate) async fn sniff<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Option<(Bytes, Framing)>> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    loop {
        // The capacity of the vector may be larger than the preface, the take is not.
        let missing = PREFACE.len() - seen.len();
        let read = io.take(missing as u64).read_buf(&mut seen).await?;
        if read == 0 {
            let closed = seen.is_empty();
            return Ok((!closed).then(|| (seen.into(), Framing::H1)));
        }
        if let Some(framing) = shows(&seen) {
            return Ok(Some((seen.into(), framing)));
        }
    }
}

/// The version that `seen` shows; `None` while it may still become the preface.
fn shows(seen: &[u8]) -> Option<Framing> {
    if !PREFACE.starts_with(seen) {
        return Some(Framing::H1);
    }
    (seen.len() == PREFACE.len()).then_some(Framing::H2)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use towpath_gateway_core::TlsVersion;

    use super::*;

    #[test]
    fn alpn_decides_where_it_names_http() {
        let tls = |alpn: Option<&str>| TlsFacts {
            version: TlsVersion::Tls13,
            server_name: None,
            alpn: alpn.map(Arc::from),
            identity: None,
            forwarded_cert: None,
        };
        let cases = [
            (None, None),
            (Some("h2"), Some(Framing::H2)),
            (Some("http/1.1"), Some(Framing::H1)),
            (Some("istio-peer-exchange"), None),
            (Some("istio"), None),
            (Some("H2"), None),
        ];
        for (alpn, expected) in cases {
            assert_eq!(agreed(Some(&tls(alpn))), expected, "{alpn:?}");
        }
        assert_eq!(agreed(None), None);
    }

    #[test]
    fn one_wrong_byte_is_http_1() {
        for n in 0..PREFACE.len() {
            assert_eq!(shows(&PREFACE[..n]), None, "{n} bytes");
            let mut wrong = PREFACE.to_vec();
            wrong[n] ^= 1;
            assert_eq!(shows(&wrong[..=n]), Some(Framing::H1), "byte {n}");
        }
        assert_eq!(shows(PREFACE), Some(Framing::H2));
    }

    #[tokio::test]
    async fn a_preface_in_pieces_is_put_together_and_nothing_after_it_is_taken() {
        let (mut client, mut server) = tokio::io::duplex(64);
        for piece in [&PREFACE[..1], &PREFACE[1..23], b"\nx"] {
            client.write_all(piece).await.unwrap();
        }
        let (bytes, framing) = sniff(&mut server).await.unwrap().unwrap();
        assert_eq!((&bytes[..], framing), (&PREFACE[..], Framing::H2));
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_client_that_only_closes_is_no_error() {
        let (client, mut server) = tokio::io::duplex(64);
        drop(client);
        assert!(sniff(&mut server).await.unwrap().is_none());
    }
}
