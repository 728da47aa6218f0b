//! The keys and values of a text that no parser takes.

use crate::document::has_content;

/// A text as pairs of keys and values, of YAML and of JSON; what quotes and block scalars hold is not told apart.
pub(crate) struct Text<'a> {
    entries: Vec<Entry<'a>>,
    /// Whether the whole of it stands in braces.
    is_flow: bool,
    indent: usize,
}

/// One of them.
pub(crate) struct Entry<'a> {
    indent: usize,
    /// How many brackets are open.
    depth: usize,
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

impl<'a> Text<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let lines = text.lines().filter(|line| has_content(line));
        let first = lines.clone().next().unwrap_or_default();
        let is_flow = first.trim_start().starts_with('{');
        let mut made = Self { entries: Vec::new(), is_flow, indent: indent(first) };
        let (mut depth, mut opened) = (0, 0);
        for line in lines {
            let is_key =
                line.trim_start().starts_with(|c: char| c.is_ascii_alphabetic() || c == '"' || c == '\'');
            // What stands as far out as the line of a bracket is not in it (YAML 1.2 section 7.4): it was left open.
            if depth > 0 && !is_flow && is_key && indent(line) <= opened {
                depth = 0;
            }
            if depth == 0 {
                opened = indent(line);
            }
            depth = made.line(line, depth);
        }
        made
    }

    /// Takes a line in, with this many brackets open in front of it; answers with how many are open behind.
    fn line(&mut self, line: &'a str, mut depth: usize) -> usize {
        let indent = indent(line);
        let content = line.split(" #").next().unwrap_or_default();
        for part in content.split_inclusive(['{', '}', '[', ']', ',']) {
            let body = part.trim_end_matches(['{', '}', '[', ']', ',']);
            if let Some((key, value)) = body.split_once(':') {
                self.entries.push(Entry { indent, depth, key: word(key), value: word(value) });
            }
            match part.chars().next_back() {
                Some('{' | '[') => depth += 1,
                Some('}' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        depth
    }

    /// Whether it belongs to the document itself.
    pub(crate) fn is_top(&self, entry: &Entry<'_>) -> bool {
        entry.depth == usize::from(self.is_flow) && (self.is_flow || entry.indent <= self.indent)
    }

    /// The words under this key where it is `wanted`.
    pub(crate) fn values(&self, key: &str, wanted: impl Fn(&Entry<'_>) -> bool) -> Vec<&'a str> {
        let found = self.entries.iter().filter(|entry| entry.key == key && wanted(entry));
        found
            .map(|entry| entry.value)
            .filter(|value| value.starts_with(|c: char| c.is_ascii_alphabetic()))
            .collect()
    }

    /// What stands right below a key of the document, or else below the first such key anywhere. Of two at the top nobody
    /// knows which is meant.
    pub(crate) fn children(&self, key: &str) -> Vec<&Entry<'a>> {
        let entries = || self.entries.iter().enumerate().filter(|(_, entry)| entry.key == key);
        let mut top = entries().filter(|(_, entry)| self.is_top(entry));
        let (Some((at, _)), None) = (top.next().or_else(|| entries().next()), top.next()) else {
            return Vec::new();
        };
        let Some((parent, behind)) = self.entries.get(at..).and_then(<[_]>::split_first) else {
            return Vec::new();
        };
        let is_below = |entry: &&Entry<'_>| {
            entry.depth > parent.depth
                || (entry.depth == parent.depth && !self.is_flow && entry.indent > parent.indent)
        };
        let below: Vec<_> = behind.iter().take_while(is_below).collect();
        let Some(first) = below.first().copied() else { return Vec::new() };
        let is_beside = |entry: &&Entry<'_>| {
            entry.depth == first.depth && (first.depth > parent.depth || entry.indent == first.indent)
        };
        below.into_iter().filter(is_beside).collect()
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The last word, without quotes: tags and anchors stand in front.
fn word(text: &str) -> &str {
    text.split_whitespace().next_back().unwrap_or_default().trim_matches(['"', '\''])
}
