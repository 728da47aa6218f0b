//! The name of the rule that took a request.

use std::fmt;
use std::sync::Arc;

/// Which route and rule matched, as logs and metrics name it. Made when configuration is applied; clones are cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteName {
    /// `namespace/name` of the route resource.
    pub route: Arc<str>,
    /// The rule's own name, or its index in the route.
    pub rule: Arc<str>,
}

impl RouteName {
    /// A name from its two parts.
    pub fn new(route: impl Into<Arc<str>>, rule: impl Into<Arc<str>>) -> Self {
        Self { route: route.into(), rule: rule.into() }
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.route, self.rule)
    }
}
