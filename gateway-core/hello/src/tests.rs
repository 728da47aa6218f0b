use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

/// The first flight of a client that asks for this.
fn first_flight(name: &'static str, protocols: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut bytes = Vec::new();
    let name = ServerName::try_from(name).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake message in records of this many bytes (RFC 8446 section 5.1).
fn in_records(flight: &[u8], size: usize) -> Vec<u8> {
    let message = &flight[5..];
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1], &length[..], part].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

fn at_once(bytes: &[u8]) -> io::Result<Hello> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(read(&mut &*bytes, Vec::new()))
}

#[test]
fn what_a_client_asks_for_is_read_and_every_byte_kept() {
    let mut bytes = first_flight("API.Example.com", &["istio", "h2"]);
    bytes.extend_from_slice(b"more");
    let hello = at_once(&bytes).unwrap();
    assert_eq!((hello.server_name.as_deref(), &hello.bytes), (Some("api.example.com"), &bytes));
    assert!(hello.offers(&["x", "h2"]) && hello.offers(&["istio"]) && !hello.offers(&["http/1.1"]));
    let bare = at_once(&first_flight("127.0.0.1", &[])).unwrap();
    assert_eq!((bare.server_name, bare.protocols), (None, Vec::new()));
}

#[tokio::test]
async fn it_may_come_in_any_segments_and_records() {
    let flight = first_flight("a.example", &["h2"]);
    for size in [1, 2, 7, 100, 1400] {
        let bytes = in_records(&flight, size);
        let (mut client, mut server) = duplex(64);
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            for byte in sent {
                let _ = client.write_all(&[byte]).await;
            }
        });
        let begun = vec![server.read_u8().await.unwrap(), server.read_u8().await.unwrap()];
        let hello = read(&mut server, begun).await.unwrap();
        assert_eq!((hello.server_name.as_deref(), hello.bytes), (Some("a.example"), bytes), "{size}");
        writing.await.unwrap();
    }
}

#[test]
fn what_is_no_hello_is_an_error() {
    let flight = first_flight("a.example", &[]);
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", &flight[..flight.len() - 1], b"", b"SSH-2.0-a\r\n"]
    {
        assert!(at_once(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_hello_without_end_is_given_up() {
    // A handshake message that says it has 16 MiB, in full records.
    let message = [&[1, 0xff, 0xff, 0xff][..], &vec![0; 200_000]].concat();
    let bytes = in_records(&[&[0; 5][..], &message].concat(), 16_000);
    assert!(at_once(&bytes).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200), tls: bool) {
        let bytes = if tls { [&[0x16, 3, 1, 0, 180, 1, 0, 0, 176][..], &bytes].concat() } else { bytes };
        let _ = at_once(&bytes);
    }

    #[test]
    fn a_changed_hello_is_answered(at in 0_usize..400, byte: u8) {
        let mut bytes = first_flight("a.example", &["h2"]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if let Ok(hello) = at_once(&bytes) {
            prop_assert_eq!(hello.bytes, bytes);
        }
    }
}
