//! JSON as tokens hold it: an object in which no name stands twice, for what one reader takes from two another does not
//! (RFC 7515 section 4, RFC 7519 section 4).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use towpath_gateway_core::Claim;

/// The members of an object.
pub(super) type Members = BTreeMap<Box<str>, Claim>;

/// Reads one object. Depth is limited by the parser.
pub(super) fn object(bytes: &[u8]) -> Option<Members> {
    match serde_json::from_slice(bytes).ok()? {
        Strict(Claim::Map(members)) => Some(members),
        Strict(_) => None,
    }
}

struct Strict(Claim);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyClaim).map(Self)
    }
}

struct AnyClaim;

impl<'de> Visitor<'de> for AnyClaim {
    type Value = Claim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Claim, E> {
        Ok(scalar(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Claim, E> {
        Ok(scalar(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Claim, E> {
        Ok(scalar(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Claim, E> {
        Ok(scalar(value))
    }

    fn visit_unit<E>(self) -> Result<Claim, E> {
        Ok(scalar("null"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Claim, E> {
        Ok(Claim::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Claim, A::Error> {
        let mut members = Vec::new();
        while let Some(Strict(member)) = list.next_element()? {
            members.push(member);
        }
        Ok(Claim::List(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claim, A::Error> {
        let mut members = Members::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if members.insert(name.into(), value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Claim::Map(members))
    }
}

fn scalar(value: impl fmt::Display) -> Claim {
    Claim::Scalar(value.to_string().into())
}

/// The JSON of a claim.
pub(super) fn value(claim: &Claim) -> serde_json::Value {
    match claim {
        Claim::Text(text) | Claim::Words(text) => (**text).into(),
        Claim::Scalar(text) => serde_json::from_str(text).unwrap_or_default(),
        Claim::List(list) => list.iter().map(value).collect(),
        Claim::Map(members) => {
            members.iter().map(|(name, member)| (name.to_string(), value(member))).collect()
        }
    }
}

/// The text of a member.
pub(super) fn text<'m>(members: &'m Members, name: &str) -> Option<&'m str> {
    match members.get(name)? {
        Claim::Text(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whole_or_not_at_all() {
        let read = object(br#"{"a": "b", "c": [1, -2, 1.5, true, null, "d"], "e": {"f": "g"}}"#).unwrap();
        let again = value(&Claim::Map(read));
        assert_eq!(again.to_string(), r#"{"a":"b","c":[1,-2,1.5,true,null,"d"],"e":{"f":"g"}}"#);
        for text in [
            "",
            "[]",
            "1",
            "{",
            "{} {}",
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": {"b": 1, "b": 1}}"#,
            r#"{"a": 1, "\u0061": 2}"#,
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(format!("{}{}", r#"{"a":"#.repeat(500), "}".repeat(500)).as_bytes()), None);
    }
}
