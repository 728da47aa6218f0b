//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

use rustls::server::Acceptor;
use towpath_hello::{LARGEST, Reader};

/// A hello says the same however its bytes come, and what a server of TLS reads in it.
pub(crate) fn hello(bytes: &[u8]) {
    let whole = Reader::default().take(bytes);
    let (mut reader, mut pieces) = (Reader::default(), Ok(None));
    for byte in bytes {
        pieces = reader.take(&[*byte]);
        if !matches!(pieces, Ok(None)) {
            break;
        }
    }
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    let (mut server, mut rest) = (Acceptor::default(), bytes);
    if bytes.len() > LARGEST || server.read_tls(&mut rest).is_err() {
        return;
    }
    let Ok(Some(accepted)) = server.accept() else { return };
    let theirs = accepted.client_hello();
    let Ok(ours) = whole else {
        // It takes names of other kinds than hosts for none.
        assert_eq!(theirs.server_name(), None);
        return;
    };
    let ours = ours.unwrap();
    assert_eq!(ours.server_name.as_deref(), theirs.server_name().map(str::to_ascii_lowercase).as_deref());
    assert!(ours.protocols.iter().map(Vec::as_slice).eq(theirs.alpn().into_iter().flatten()));
}
