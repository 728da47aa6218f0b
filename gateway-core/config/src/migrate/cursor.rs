//! Reading an object so that nothing in it goes by unseen: a field is taken, or it is reported.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::input::Object;
use super::report::{Finding, Loss, Report};
use super::tree::{Node, Value};

/// A place in an object.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
    object: &'a Object,
    report: &'a Report,
}

impl<'a> Cursor<'a> {
    /// The `spec` of an object.
    pub(super) fn spec(object: &'a Object, report: &'a Report) -> Option<Self> {
        let node = object.root.get("spec")?;
        Some(Self { node, path: "spec".into(), object, report })
    }

    fn add(&self, loss: Loss, path: &str, node: &Node, why: String) {
        self.report.add(Finding {
            loss,
            object: self.object.label().into(),
            field: path.to_owned(),
            position: Some(self.object.place.at(Some(node.at))),
            why,
        });
    }

    /// This field is not in what is written.
    pub(super) fn lost(&self, why: impl Into<String>) {
        self.add(Loss::Lost, &self.path, self.node, why.into());
    }

    /// This field means something else now.
    pub(super) fn changed(&self, why: impl Into<String>) {
        self.add(Loss::Changed, &self.path, self.node, why.into());
    }

    /// Worth knowing about this field.
    pub(super) fn note(&self, why: impl Into<String>) {
        self.add(Loss::Note, &self.path, self.node, why.into());
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        self.lost(format!("is not {wanted}"));
        None
    }

    /// The text here; something else is reported.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong("a text"),
        }
    }

    /// The number here; something else is reported.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.node.value {
            Value::Number(number) => Some(*number),
            _ => self.wrong("a number"),
        }
    }

    /// The whole number here, if it is in this range; something else is reported.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was just asked")]
    pub(super) fn whole(&self, most: u32) -> Option<u32> {
        let number = self.number()?;
        if number.fract() != 0.0 || !(0.0..=f64::from(most)).contains(&number) {
            return self.wrong(&format!("a whole number from 0 to {most}"));
        }
        Some(number as u32)
    }

    /// The port here; something else is reported.
    pub(super) fn port(&self) -> Option<u16> {
        self.whole(65_535).and_then(|port| u16::try_from(port).ok())
    }

    /// The truth value here; something else is reported.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong("true or false"),
        }
    }

    /// The items of the list here; something else is reported.
    pub(super) fn items(&self) -> Vec<Cursor<'a>> {
        let Value::List(nodes) = &self.node.value else {
            return self.wrong("a list").unwrap_or_default();
        };
        let item = |(at, node)| Cursor { node, path: format!("{}[{at}]", self.path), ..self.clone() };
        nodes.iter().enumerate().map(item).collect()
    }

    /// The texts of the list here.
    pub(super) fn texts(&self) -> Vec<(&'a str, Cursor<'a>)> {
        self.items().into_iter().filter_map(|item| Some((item.text()?, item))).collect()
    }

    /// The entries of a map whose keys are not fields but names.
    pub(super) fn entries(&self) -> Vec<(&'a str, Cursor<'a>)> {
        match &self.node.value {
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| {
                    (key.as_str(), Cursor { node, path: format!("{}.{key}", self.path), ..self.clone() })
                })
                .collect(),
            Value::Null => Vec::new(),
            _ => self.wrong("an object").unwrap_or_default(),
        }
    }

    /// The fields here, each to be taken.
    pub(super) fn fields(&self) -> Fields<'a> {
        Fields { entries: self.entries(), taken: RefCell::default() }
    }

    /// Whether nothing is here: `null` or `{}`.
    pub(super) fn is_blank(&self) -> bool {
        matches!(&self.node.value, Value::Null) || matches!(&self.node.value, Value::Map(m) if m.is_empty())
    }

    /// A text of the object that is read, for names.
    pub(super) fn object(&self) -> &'a Object {
        self.object
    }
}

/// The fields of an object. What nobody took is reported when this goes.
pub(super) struct Fields<'a> {
    entries: Vec<(&'a str, Cursor<'a>)>,
    taken: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    /// A field, by its name in camel case or, as protobuf has it, with underscores. `null` counts as absent.
    pub(super) fn take(&self, name: &str) -> Option<Cursor<'a>> {
        let snake = snake(name);
        let (key, cursor) = self.entries.iter().find(|(key, _)| *key == name || *key == snake)?;
        self.taken.borrow_mut().insert(key);
        (!matches!(cursor.node.value, Value::Null)).then(|| cursor.clone())
    }

    /// A field that is taken elsewhere.
    pub(super) fn peek(&self, name: &str) -> Option<&Cursor<'a>> {
        self.entries.iter().find(|(key, _)| *key == name).map(|(_, cursor)| cursor)
    }

    /// Reports a field as lost if it is there; whether it was.
    pub(super) fn refuse(&self, name: &str, why: &str) -> bool {
        let found = self.take(name);
        if let Some(field) = &found {
            field.lost(why);
        }
        found.is_some()
    }

    /// A field that has no effect on requests.
    pub(super) fn skip(&self, name: &str, why: &str) {
        if let Some(field) = self.take(name) {
            field.note(why);
        }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let taken = self.taken.borrow();
        for (_, field) in self.entries.iter().filter(|(key, _)| !taken.contains(key)) {
            field.lost("no field of this name is known");
        }
    }
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
