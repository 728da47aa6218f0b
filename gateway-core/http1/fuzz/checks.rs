//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.
#![allow(dead_code)] // each target uses its part

use bytes::BytesMut;
use towpath_http1::{Decoded, Framing, Section, request, response};

/// A request head is read the same however its bytes come, and holds nothing that a next reader could take for more.
pub(crate) fn request(bytes: &[u8]) {
    let limits = request::HeadLimits { head_bytes: 2048, target_bytes: 256, header_count: 32 };
    let whole = request::parse(&mut BytesMut::from(bytes), &mut Section::default(), &limits);
    let (mut read, mut section) = (BytesMut::new(), Section::default());
    let mut pieces = Ok(None);
    for byte in bytes {
        read.extend_from_slice(&[*byte]);
        pieces = request::parse(&mut read, &mut section, &limits);
        if !matches!(pieces, Ok(None)) {
            break;
        }
    }
    match (&whole, &pieces) {
        (Ok(Some((whole, _))), Ok(Some((pieces, _)))) => {
            assert_eq!(whole.target, pieces.target);
            assert_eq!(whole.headers, pieces.headers);
            for value in whole.headers.values() {
                assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
            let lengths = whole.headers.get_all("content-length").iter().count();
            let codings = whole.headers.get_all("transfer-encoding").iter().count();
            assert!(lengths + codings <= 1, "two statements of where the body ends");
            assert!(whole.target.path_and_query().is_none_or(|target| target.as_str().len() <= 256));
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        // More bytes than a head may have are refused sooner when all are there.
        (Err(_), Ok(_)) if bytes.len() > limits.head_bytes => {}
        _ => panic!("{whole:?} but in pieces {pieces:?}"),
    }
}

/// The same for the head of an answer.
pub(crate) fn response(bytes: &[u8]) {
    let whole = response::parse(&mut BytesMut::from(bytes), &mut Section::default(), false);
    let (mut read, mut section) = (BytesMut::new(), Section::default());
    let mut pieces = Ok(None);
    for byte in bytes {
        read.extend_from_slice(&[*byte]);
        pieces = response::parse(&mut read, &mut section, false);
        if !matches!(pieces, Ok(None)) {
            break;
        }
    }
    match (&whole, &pieces) {
        (Ok(Some(whole)), Ok(Some(pieces))) => {
            assert_eq!((whole.status, &whole.headers), (pieces.status, &pieces.headers));
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        _ => panic!("{whole:?} but in pieces {pieces:?}"),
    }
}

/// A chunked body has the same data and the same end however its bytes come.
pub(crate) fn body(bytes: &[u8]) {
    assert_eq!(decoded(bytes, bytes.len().max(1)), decoded(bytes, 1));
}

/// The data, and whether the body ended (`Err` if it is malformed), read in pieces of `step` bytes.
fn decoded(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool), ()> {
    let (mut framing, mut read, mut data) = (Framing::chunked(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        read.extend_from_slice(piece);
        loop {
            match framing.decode(&mut read) {
                Ok(Decoded::Data(part)) => data.extend_from_slice(&part),
                Ok(Decoded::More) => break,
                Ok(Decoded::Trailers(_) | Decoded::End) => return Ok((data, true)),
                Err(_) => return Err(()),
            }
        }
    }
    Ok((data, false))
}
