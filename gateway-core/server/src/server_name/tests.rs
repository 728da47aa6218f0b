use std::convert::Infallible;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::{ServiceExt, service_fn};
use towpath_gateway_core::Connection;

use super::*;

/// The first flight of a client that asks for `name`.
fn first_flight(name: ServerName<'static>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

fn named(name: &'static str) -> Vec<u8> {
    first_flight(name.try_into().unwrap())
}

/// The server name and the bytes that the inner service is given; `None` if it is not reached.
async fn passed(chunks: Vec<Vec<u8>>) -> Option<(Option<Arc<str>>, Vec<u8>)> {
    let (seen, mut result) = tokio::sync::mpsc::unbounded_channel();
    let inner = service_fn(move |mut accepted: Accepted| {
        let seen = seen.clone();
        async move {
            let mut bytes = Vec::new();
            accepted.io.read_to_end(&mut bytes).await.unwrap();
            seen.send((accepted.connection.passed_name, bytes)).unwrap();
            Ok::<_, Infallible>(())
        }
    });
    let (mut client, io) = duplex(256 * 1024);
    let at = "127.0.0.1:1".parse().unwrap();
    let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
    let layer = ServerNameLayer::new(Duration::from_secs(10), Drain::default());
    let served = tokio::spawn(layer.layer(inner).oneshot(accepted));
    for chunk in chunks {
        let _ = client.write_all(&chunk).await;
        tokio::task::yield_now().await;
    }
    drop(client);
    served.await.unwrap().unwrap();
    result.try_recv().ok()
}

#[tokio::test]
async fn the_name_is_read_in_lower_case_and_every_byte_passed_on() {
    let mut bytes = named("API.Example.com");
    bytes.extend_from_slice(b"more");
    let (name, seen) = passed(vec![bytes.clone()]).await.unwrap();
    assert_eq!((name.as_deref(), seen), (Some("api.example.com"), bytes));
}

#[tokio::test]
async fn it_does_not_matter_where_the_hello_is_cut() {
    let bytes = named("a.example");
    let single = bytes.iter().map(|byte| vec![*byte]).collect();
    let (name, seen) = passed(single).await.unwrap();
    assert_eq!((name.as_deref(), &seen), (Some("a.example"), &bytes));
    for at in [1, 4, 5, 6, 9, bytes.len() - 1] {
        let (head, tail) = bytes.split_at(at);
        let (name, seen) = passed(vec![head.to_vec(), tail.to_vec()]).await.unwrap();
        assert_eq!((name.as_deref(), &seen), (Some("a.example"), &bytes), "{at}");
    }
}

#[tokio::test]
async fn a_hello_may_come_in_several_records() {
    // RFC 8446 section 5.1: a message may be spread over records.
    let bytes = named("a.example");
    let (header, message) = bytes.split_at(5);
    let mut spread = Vec::new();
    for part in message.chunks(40) {
        spread.extend_from_slice(&header[..3]);
        spread.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        spread.extend_from_slice(part);
    }
    let (name, seen) = passed(vec![spread.clone()]).await.unwrap();
    assert_eq!((name.as_deref(), seen), (Some("a.example"), spread));
}

#[tokio::test]
async fn a_hello_without_name_passes_and_what_is_no_hello_does_not() {
    let nameless = first_flight(ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()));
    assert_eq!(passed(vec![nameless]).await.unwrap().0, None);
    let cut = named("a.example")[..40].to_vec();
    let endless: Vec<u8> = std::iter::repeat_n([22, 3, 1, 0, 4, 1, 0, 255, 255], 10_000).flatten().collect();
    for (what, bytes) in [
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("nothing", Vec::new()),
        ("cut", cut),
        ("garbage in a record", [&[22, 3, 1, 0, 4][..], &[9; 200]].concat()),
        ("endless", endless),
    ] {
        assert!(passed(vec![bytes]).await.is_none(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_in_time_and_sooner_when_draining() {
    for draining in [false, true] {
        let drain = Drain::default();
        let inner = service_fn(|_: Accepted| async { Ok::<_, Infallible>(()) });
        let (_client, io) = duplex(64);
        let at = "127.0.0.1:1".parse().unwrap();
        let accepted = Accepted { io: Box::new(io), connection: Connection::plaintext(at, at) };
        let start = tokio::time::Instant::now();
        if draining {
            drain.signal();
        }
        ServerNameLayer::new(Duration::from_secs(10), drain).layer(inner).oneshot(accepted).await.unwrap();
        let waited = start.elapsed();
        assert_eq!(waited.as_millis(), if draining { 500 } else { 10_000 });
    }
}
