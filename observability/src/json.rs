//! JSON (RFC 8259) for the lines of the access log. By hand, because a line is written for every request: the general way,
//! with a name to escape and a formatter to run for each field, took 15,000 instructions a line.

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

/// An object in the making. Names of fields are written as they are: they hold nothing that has to be escaped.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Writes an object whose fields `fill` adds.
    pub(crate) fn write(out: &'a mut Vec<u8>, fill: impl FnOnce(&mut Self)) {
        out.push(b'{');
        let mut object = Self { out, empty: true };
        fill(&mut object);
        object.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A text of any characters.
    pub(crate) fn text(&mut self, name: &'static str, text: &str) {
        let out = self.name(name);
        out.push(b'"');
        escape(out, text);
        out.push(b'"');
    }

    /// A text, if it is there.
    pub(crate) fn some(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// A text, unless it is empty.
    pub(crate) fn filled(&mut self, name: &'static str, text: &str) {
        self.some(name, (!text.is_empty()).then_some(text));
    }

    /// A value whose text needs no escaping: digits, letters and the like.
    pub(crate) fn plain(&mut self, name: &'static str, value: impl fmt::Display) {
        let out = self.name(name);
        out.push(b'"');
        // Writing to memory does not fail.
        let _ = write!(out, "{value}");
        out.push(b'"');
    }

    /// An address with its port.
    pub(crate) fn address(&mut self, name: &'static str, address: SocketAddr) {
        let SocketAddr::V4(address) = address else { return self.plain(name, address) };
        let out = self.name(name);
        out.push(b'"');
        octets(out, *address.ip());
        out.push(b':');
        digits(out, u64::from(address.port()));
        out.push(b'"');
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &'static str, number: u64) {
        digits(self.name(name), number);
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &'static str, flag: bool) {
        self.name(name).extend_from_slice(if flag { b"true" } else { b"false" });
    }

    /// An object in the object.
    pub(crate) fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::write(self.name(name), fill);
    }

    /// A list of objects.
    pub(crate) fn list<T>(&mut self, name: &'static str, items: &[T], fill: impl Fn(&T, &mut Object<'_>)) {
        let out = self.name(name);
        out.push(b'[');
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            Object::write(out, |object| fill(item, object));
        }
        out.push(b']');
    }
}

/// Quotes, backslashes and control characters (RFC 8259 section 7).
fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        match after.first() {
            Some(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', *byte]),
            Some(b'\n') => out.extend_from_slice(b"\\n"),
            Some(byte) => _ = write!(out, "\\u{byte:04x}"),
            None => {}
        }
        rest = after.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

fn octets(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (number, octet) in address.octets().into_iter().enumerate() {
        if number > 0 {
            out.push(b'.');
        }
        digits(out, u64::from(octet));
    }
}

fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        first = place;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn value(fill: impl FnOnce(&mut Object<'_>)) -> Value {
        let mut out = Vec::new();
        Object::write(&mut out, fill);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()))
    }

    #[test]
    fn objects_nest() {
        let made = value(|object| {
            object.text("a", "b");
            object.filled("left out", "");
            object.some("also", None);
            object.flag("yes", true);
            object.object("inner", |inner| inner.number("n", 0));
            object.list("list", &[1u64, 2], |n, item| item.number("n", *n));
            object.list("none", &[0u64; 0], |_, _| {});
            object.object("empty", |_| {});
        });
        let expected = json!({
            "a": "b", "yes": true, "inner": {"n": 0}, "list": [{"n": 1}, {"n": 2}], "none": [], "empty": {},
        });
        assert_eq!(made, expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(value(|object| object.text("text", &text)), json!({"text": text}));
        }

        #[test]
        fn any_number_and_address_come_back(number in any::<u64>(), v4 in any::<([u8; 4], u16)>(), v6 in any::<([u16; 8], u16)>()) {
            prop_assert_eq!(value(|object| object.number("n", number)), json!({"n": number}));
            for address in [SocketAddr::from(v4), SocketAddr::from(v6)] {
                let expected = json!({"a": address.to_string()});
                prop_assert_eq!(value(|object| object.address("a", address)), expected);
            }
        }
    }
}
