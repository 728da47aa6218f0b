//! What one alternative of a rule asks of a request.

use std::collections::BTreeMap;

use super::strings::{Meet, Strings};

/// Every part has to hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) path: Strings,
    pub(super) method: Option<String>,
    /// By name in lower case.
    pub(super) headers: BTreeMap<String, Strings>,
    pub(super) query: BTreeMap<String, Strings>,
}

impl Condition {
    /// Takes every request.
    pub(super) fn any() -> Self {
        let (headers, query) = Default::default();
        Self { path: Strings::Any, method: None, headers, query }
    }

    /// Whether every request of `other` certainly is taken by this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.path.covers(&other.path)
            && (self.method.is_none() || self.method == other.method)
            && all_cover(&self.headers, &other.headers)
            && all_cover(&self.query, &other.query)
    }

    /// What both take.
    pub(super) fn meet(&self, other: &Self) -> Meet<Self> {
        if self.method.is_some() && other.method.is_some() && self.method != other.method {
            return Meet::Nothing;
        }
        let path = self.path.meet(&other.path);
        let (headers, query) = (meet(&self.headers, &other.headers), meet(&self.query, &other.query));
        match (path, headers, query) {
            (Meet::Nothing, ..) | (_, Meet::Nothing, _) | (.., Meet::Nothing) => Meet::Nothing,
            (Meet::Set(path), Meet::Set(headers), Meet::Set(query)) => {
                let method = self.method.clone().or_else(|| other.method.clone());
                Meet::Set(Self { path, method, headers, query })
            }
            _ => Meet::Unknown,
        }
    }
}

type Named = BTreeMap<String, Strings>;

fn all_cover(wide: &Named, narrow: &Named) -> bool {
    wide.iter().all(|(name, value)| narrow.get(name).is_some_and(|inner| value.covers(inner)))
}

fn meet(a: &Named, b: &Named) -> Meet<Named> {
    let (mut both, mut known) = (a.clone(), true);
    for (name, value) in b {
        let common = both.get(name).map_or_else(|| Meet::Set(value.clone()), |other| other.meet(value));
        match common {
            Meet::Nothing => return Meet::Nothing,
            Meet::Unknown => known = false,
            Meet::Set(common) => drop(both.insert(name.clone(), common)),
        }
    }
    if known { Meet::Set(both) } else { Meet::Unknown }
}
