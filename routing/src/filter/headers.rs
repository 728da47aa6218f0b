//! Changes to header lines.

use http::HeaderMap;

use crate::HeaderModifier;

impl HeaderModifier {
    /// Whether nothing is to be changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Sets, then adds, then removes.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn set_replaces_add_appends_and_remove_comes_last() {
        let line = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers: HeaderMap =
            [line("a", "old"), line("b", "old"), line("c", "old")].into_iter().collect();
        headers.append("a", HeaderValue::from_static("old too"));
        let modifier = HeaderModifier {
            set: vec![line("a", "new")],
            add: vec![line("b", "new"), line("c", "new")],
            remove: vec![HeaderName::from_static("c")],
        };
        modifier.apply(&mut headers);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("a"), all("b"), all("c")), (vec!["new"], vec!["old", "new"], vec![]));
    }
}
