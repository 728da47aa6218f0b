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

/// A hello with these extensions, by number and content.
fn with_extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let each = |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &sized(content)].concat();
    let extensions: Vec<u8> = extensions.iter().flat_map(each).collect();
    let body = [&[3, 1][..], &[7; 32], &[0], &sized(&[0, 47]), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[0x16, 3, 1][..], &sized(&message)].concat()
}

/// The content of a server name extension.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    sized(&names.iter().flat_map(|name| [&[0][..], &sized(name)].concat()).collect::<Vec<_>>())
}

#[test]
fn it_is_read_whatever_it_asks_for() {
    // TLS 1.1, and names that are none of DNS: whoever ends TLS may take them.
    for (name, read) in [
        (&b"outbound|80||Api.example"[..], Some("outbound|80||api.example")),
        (b"db.1", Some("db.1")),
        (b"-a_b", Some("-a_b")),
        ("h\u{f6}st".as_bytes(), Some("h\u{f6}st")),
        (&[b'a'; 200], Some(&*"a".repeat(200))),
        (b"\xff", None),
        (b"10.0.0.1", None),
    ] {
        let hello = at_once(&with_extensions(&[(0, names(&[name]))])).unwrap();
        assert_eq!(hello.server_name.as_deref(), read, "{name:?}");
    }
    for (protocols, read) in [
        (&b"\x00\x06\x05istio"[..], &[&b"istio"[..]][..]),
        (b"\x00\x00", &[]),
        (b"\x00\x01\x00", &[]),
        (b"\x00\x02\x05a", &[]),
        (b"", &[]),
    ] {
        let hello = at_once(&with_extensions(&[(99, vec![1]), (16, protocols.to_vec())])).unwrap();
        assert_eq!(hello.protocols, read, "{protocols:?}");
    }
    assert_eq!(at_once(&with_extensions(&[])).unwrap().server_name, None);
}

#[test]
fn what_two_readers_may_read_two_ways_is_an_error() {
    let name = |name: &[u8]| (0, names(&[name]));
    for extensions in [
        vec![(0, names(&[b"a.example", b"b.example"]))],
        vec![name(b"a.example"), name(b"b.example")],
        vec![(16, b"\x00\x03\x02h2".to_vec()), (16, b"\x00\x06\x05istio".to_vec())],
        vec![name(b"")],
        vec![name(b"a\0b")],
        vec![(0, vec![])],
        vec![(0, [&names(&[b"a"])[..], &[0]].concat())],
    ] {
        assert!(at_once(&with_extensions(&extensions)).is_err(), "{extensions:?}");
    }
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
    let nothing = [&[0x16, 3, 1, 0, 0][..], &flight].concat();
    for bytes in [
        &nothing[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        &flight[..flight.len() - 1],
        b"",
        b"SSH-2.0-a\r\n",
    ] {
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
