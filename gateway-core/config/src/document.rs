//! One YAML document of a file: where it stands, and how it is read.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Location, Options};

use crate::suggest::nearest;
use crate::{Position, Problem};

/// The text of one document, with the number of lines in front of it in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    pub(crate) text: &'a str,
    pub(crate) lines_before: usize,
}

/// Where an object was written.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    lines_before: usize,
    first_line: usize,
}

/// What is wrong with a document, and where in it.
#[derive(Debug)]
pub(crate) struct Defect {
    pub(crate) location: Option<Location>,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

/// Splits a file at its document markers, so that a broken document does not take its neighbours down. A marker
/// stands in the first column; nothing else may (YAML 1.2 section 9.1.2).
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut documents, mut from, mut at, mut lines_before) = (Vec::new(), 0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Some(marker) = marker_length(line) {
            documents.push(Document { text: text.get(from..at).unwrap_or_default(), lines_before });
            (from, lines_before) = (at + marker, number);
        }
        at += line.len();
    }
    documents.push(Document { text: text.get(from..).unwrap_or_default(), lines_before });
    documents.retain(|document| document.text.lines().any(has_content));
    documents
}

fn marker_length(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(3)
}

/// Whether a line has more than blanks, a comment or a directive.
pub(crate) fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

impl Document<'_> {
    /// Where the document stands in `file`.
    pub(crate) fn place(&self, file: &Arc<str>) -> Place {
        let first_line = self.text.lines().position(has_content).unwrap_or_default() + 1;
        Place { file: Arc::clone(file), lines_before: self.lines_before, first_line }
    }

    /// Reads the document as a `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Defect> {
        serde_saphyr::from_str_with_options(self.text, options()).map_err(|error| Defect::of(&error))
    }
}

impl Place {
    /// The place of a part of the document; that of its first line if the part is not known.
    pub(crate) fn at(&self, location: Option<Location>) -> Position {
        let (line, column) = match location {
            Some(location) if location != Location::UNKNOWN => {
                (to_usize(location.line()), to_usize(location.column()))
            }
            _ => (self.first_line, 1),
        };
        Position { file: Arc::clone(&self.file), line: self.lines_before + line, column }
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Limits that real objects stay far under, and that an alias bomb does not.
fn options() -> Options {
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 500_000,
            max_events: 2_000_000,
            max_depth: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
        },
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = 100_000;
    options
}

impl Defect {
    /// A defect of a part of a document.
    pub(crate) fn new(location: Location, message: impl Into<String>) -> Self {
        Self { location: Some(location), message: message.into(), suggestion: None }
    }

    /// The same defect with advice.
    pub(crate) fn suggest(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }

    fn of(error: &Error) -> Self {
        let error = error.without_snippet();
        let (message, suggestion) = match error {
            Error::SerdeUnknownField { field, expected, .. } => {
                (format!("unknown field `{field}`"), suggestion(field, expected))
            }
            Error::SerdeUnknownVariant { variant, expected, .. } => {
                (format!("unknown value `{variant}`"), suggestion(variant, expected))
            }
            other => (without_place(&other.to_string()), None),
        };
        Self { location: error.location(), message, suggestion }
    }

    /// The problem as it is reported.
    pub(crate) fn problem(&self, place: &Place) -> Problem {
        let problem = Problem::error(self.message.clone()).at(place.at(self.location));
        match &self.suggestion {
            Some(suggestion) => problem.suggest(suggestion.clone()),
            None => problem,
        }
    }
}

/// The parser ends its messages with the place, which we report by itself; its hints for programmers go too.
fn without_place(message: &str) -> String {
    let message = message.rfind(" at line ").map_or(message, |at| message.get(..at).unwrap_or(message));
    message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned()
}

fn suggestion(word: &str, known: &[&'static str]) -> Option<String> {
    match nearest(word, known.iter().copied()) {
        Some(meant) => Some(format!("did you mean `{meant}`?")),
        None if known.is_empty() => None,
        None => Some(format!("known: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[expect(dead_code, reason = "read by the parser alone")]
    struct Sample {
        backend_refs: Vec<String>,
        port: Option<u16>,
    }

    fn defect(text: &str) -> (usize, usize, String, String) {
        let document = Document { text, lines_before: 10 };
        let defect = document.read::<Sample>().unwrap_err();
        let position = document.place(&"f".into()).at(defect.location);
        (position.line, position.column, defect.message, defect.suggestion.unwrap_or_default())
    }

    #[test]
    fn splits_at_markers_and_counts_lines() {
        let text = "# only a comment\n---\na: 1\n---\n\n--- {b: 2}\n...\n%YAML 1.2\n---\r\nc: |\n  ---\n d: x\n----\n";
        let found: Vec<_> = split(text).into_iter().map(|d| (d.lines_before, d.text.trim())).collect();
        assert_eq!(found, [(1, "a: 1"), (5, "{b: 2}"), (8, "c: |\n  ---\n d: x\n----")]);
        assert_eq!(split("\u{feff}a: 1").len(), 1);
        assert!(split("").is_empty());
    }

    #[test]
    fn a_document_on_the_line_of_its_marker_keeps_its_line() {
        let documents = split("a: 1\n--- {port: x}\n");
        let defect = documents[1].read::<Sample>().unwrap_err();
        assert_eq!(documents[1].place(&"f".into()).at(defect.location).line, 2);
    }

    #[test]
    fn defects_say_where_and_what_was_meant() {
        for (text, line, column, message, suggestion) in [
            ("backedRefs: []\n", 11, 1, "unknown field `backedRefs`", "did you mean `backendRefs`?"),
            ("backendRefs: []\nzzz: 1\n", 12, 1, "unknown field `zzz`", "known: backendRefs, port"),
            ("port: 1\n", 11, 1, "missing field `backendRefs`", ""),
            ("backendRefs: []\nport: 70000\n", 12, 7, "invalid u16", ""),
            ("port: 1\nport: 2\n", 12, 1, "duplicate mapping key: port", ""),
        ] {
            assert_eq!(defect(text), (line, column, message.into(), suggestion.into()), "{text}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let previous = vec![format!("*a{}", i - 1); 9].join(", ");
            text = format!("{text}a{i}: &a{i} [{previous}]\n");
        }
        let document = Document { text: &text, lines_before: 0 };
        assert!(document.read::<std::collections::BTreeMap<String, serde_json::Value>>().is_err());
    }
}
