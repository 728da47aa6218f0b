//! Writes certificates in PEM (RFC 7468).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;

const LINE: usize = 64;

/// One `CERTIFICATE` section for each.
pub(crate) fn certificates<'a>(chain: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    let mut pem = String::new();
    for der in chain {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        // Base64 is ASCII: every byte is a character.
        for (index, character) in BASE64_STANDARD.encode(der).chars().enumerate() {
            if index > 0 && index % LINE == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    pem
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 47, 48, 49, 500] {
            let chain = vec![CertificateDer::from(vec![7; length]), CertificateDer::from(vec![8; 3])];
            let pem = certificates(&chain);
            let read: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(read, chain);
            assert!(pem.lines().all(|line| line.len() <= LINE));
        }
    }
}
