//! Who uses the API, as the gateway knows them.

use std::sync::Arc;

/// A consumer of an API: the party that a credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Consumer {
    /// Unique name, `namespace/name` where it comes from a resource.
    pub name: Arc<str>,
}

impl Consumer {
    /// A consumer of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }
}
