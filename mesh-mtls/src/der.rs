//! What the distinguished encoding rules (X.690) leave one way to write, and readers take in several.

/// The first element: its tag, its content, and what is behind it. Lengths are as short as they can be (X.690 section 10.1).
pub(crate) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    let shortest = match first {
        0x81 => length > 0x7f,
        0x82 => length > 0xff,
        _ => true,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    // No tag of a certificate has more than one byte.
    (shortest && tag & 0x1f != 0x1f).then_some((*tag, content, rest))
}

/// Whether this is one sequence, and its elements have such tags.
pub(crate) fn is_sequence_of(bytes: &[u8], is_meant: fn(u8) -> bool) -> bool {
    let Some((0x30, mut content, [])) = element(bytes) else { return false };
    while !content.is_empty() {
        match element(content) {
            Some((tag, _, rest)) if is_meant(tag) => content = rest,
            _ => return false,
        }
    }
    true
}

/// Tags of `GeneralName` (RFC 5280 section 4.2.1.6): texts are primitive, names of other kinds are made of parts.
pub(crate) fn is_name(tag: u8) -> bool {
    matches!(tag, 0x81 | 0x82 | 0x86 | 0x87 | 0x88 | 0xa0 | 0xa3 | 0xa4 | 0xa5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_written_one_way() {
        let long = [&[0x04, 0x81, 0x80][..], &[7; 128]].concat();
        let longer = [&[0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        for (bytes, length) in [
            (&[0x04, 0x00][..], Some(0)),
            (&[0x04, 0x01, 0x07, 0x09], Some(1)),
            (&long, Some(128)),
            (&longer, Some(256)),
            (&[0x04, 0x81, 0x01, 0x07], None),
            (&[0x04, 0x82, 0x00, 0x01, 0x07], None),
            (&[0x04, 0x80, 0x07, 0x00, 0x00], None),
            (&[0x04, 0x02, 0x07], None),
            (&[0x1f, 0x06, 0x00], None),
            (&[0x04], None),
            (&[], None),
        ] {
            assert_eq!(element(bytes).map(|(_, content, _)| content.len()), length, "{bytes:?}");
        }
    }

    #[test]
    fn names_have_the_tags_that_they_have() {
        for (bytes, good) in [
            (&[0x30, 0x03, 0x86, 0x01, b'a'][..], true),
            (&[0x30, 0x00], true),
            (&[0x30, 0x03, 0xa6, 0x01, b'a'], false),
            (&[0x30, 0x04, 0x86, 0x81, 0x01, b'a'], false),
            (&[0x30, 0x04, 0x9f, 0x06, 0x01, b'a'], false),
            (&[0x30, 0x03, 0x86, 0x01, b'a', 0x00], false),
            (&[0x31, 0x03, 0x86, 0x01, b'a'], false),
        ] {
            assert_eq!(is_sequence_of(bytes, is_name), good, "{bytes:?}");
        }
    }
}
