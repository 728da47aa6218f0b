//! What must hold for any bytes. The fuzzer runs it, and so does a plain test over the corpus.

use towpath_hello::{Hello, Reader};

/// A hello says the same however its bytes come, and once it is whole more bytes do not change it.
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
        (Ok(Some(whole)), Ok(Some(pieces))) => {
            assert_eq!(whole, pieces);
            assert!(whole.server_name.as_deref().is_none_or(|name| name == name.to_ascii_lowercase()));
            assert!(!whole.offers(&[]));
        }
        // What comes behind a hello is looked at as far as it came with it.
        (Ok(None), Ok(None)) | (Err(_), Err(_) | Ok(Some(Hello { .. }))) => {}
        other => panic!("{other:?}"),
    }
}
