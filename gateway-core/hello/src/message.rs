//! The message of a hello, field by field (RFC 8446 section 4.1.2).

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Hello, LARGEST};

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const PROTOCOLS: u16 = 16;

/// What a hello says, without its bytes; `None` until it is whole.
pub(crate) fn read(message: &[u8]) -> Result<Option<Hello>, &'static str> {
    match *message {
        [kind, ..] if kind != CLIENT_HELLO => Err("it begins with another message"),
        [_, high, middle, low, ref body @ ..] => {
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            if length > LARGEST {
                return Err("it has more than 16 KiB");
            }
            match body.get(..length) {
                Some(body) => hello(Fields(body)).map(Some),
                None => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

const CUT: &str = "it is cut off";

fn hello(mut fields: Fields<'_>) -> Result<Hello, &'static str> {
    // Version and random.
    fields.bytes(2 + 32).ok_or(CUT)?;
    // Session, ciphers, compressions.
    fields.short_list().ok_or(CUT)?;
    fields.list().ok_or(CUT)?;
    fields.short_list().ok_or(CUT)?;
    let (mut name, mut protocols) = (None, None);
    if !fields.0.is_empty() {
        let mut extensions = fields.list().filter(|_| fields.0.is_empty()).ok_or(CUT)?;
        while !extensions.0.is_empty() {
            let (kind, content) = (extensions.number().ok_or(CUT)?, extensions.list().ok_or(CUT)?);
            let first = match kind {
                SERVER_NAME => name.replace(content).is_none(),
                PROTOCOLS => protocols.replace(content).is_none(),
                _ => true,
            };
            if !first {
                return Err("it says one thing twice");
            }
        }
    }
    Ok(Hello {
        bytes: Vec::new(),
        server_name: name.map(server_name).transpose()?.flatten(),
        protocols: protocols.and_then(self::protocols).unwrap_or_default(),
    })
}

/// The one name. Of several the next reader might take another than this one: that is no hello (RFC 6066 section 3).
fn server_name(mut extension: Fields<'_>) -> Result<Option<Arc<str>>, &'static str> {
    let mut names = extension.list().filter(|_| extension.0.is_empty()).ok_or(CUT)?;
    let (kind, name) = (names.bytes(1).ok_or(CUT)?, names.list().ok_or(CUT)?);
    if kind != [HOST_NAME] || !names.0.is_empty() || name.0.is_empty() || name.0.contains(&0) {
        return Err("its server name is none");
    }
    let name = std::str::from_utf8(name.0).ok().filter(|name| name.parse::<IpAddr>().is_err());
    Ok(name.map(|name| name.to_ascii_lowercase().into()))
}

/// The protocols; `None` for a list that cannot be read.
fn protocols(mut extension: Fields<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = extension.list().filter(|_| extension.0.is_empty())?;
    let mut protocols = Vec::new();
    while !names.0.is_empty() {
        protocols.push(names.short_list().filter(|name| !name.0.is_empty())?.0.to_vec());
    }
    Some(protocols)
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.bytes(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A list with its length in two bytes before it.
    fn list(&mut self) -> Option<Fields<'a>> {
        let length = self.number()?;
        self.bytes(length.into()).map(Fields)
    }

    /// A list with its length in one byte before it.
    fn short_list(&mut self) -> Option<Fields<'a>> {
        let length = *self.bytes(1)?.first()?;
        self.bytes(length.into()).map(Fields)
    }
}
