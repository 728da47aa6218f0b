//! Who looks on while the table is searched.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::bucket::Bucket;
use super::entry::Entry;
use super::paths::Paths;

/// Looks on while the table is searched. There is one search: what a request gets and what is said about it come from the
/// same steps, and differ in when they end.
pub(super) trait Watch<'t> {
    /// The search has come to the rules of a host name.
    fn at_host(&mut self, _paths: &'t Paths) {}

    /// The search has come to the rules of a path.
    fn at_path(&mut self, _bucket: &'t Bucket) {}

    /// The search has come to the rules with expressions over the path.
    fn at_expressions(&mut self) {}

    /// A rule takes the request; they come in order of precedence.
    fn taken(&mut self, entry: &'t Arc<Entry>) -> ControlFlow<()>;
}

/// Ends the search at the first rule: what requests do.
#[derive(Default)]
pub(super) struct First<'t>(pub(super) Option<&'t Entry>);

impl<'t> Watch<'t> for First<'t> {
    fn taken(&mut self, entry: &'t Arc<Entry>) -> ControlFlow<()> {
        self.0 = Some(entry);
        ControlFlow::Break(())
    }
}
