//! Settings of layers as a route carries them.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

/// Marks a layer's settings, so that a route can carry them and the layer can find them.
///
/// The marker is there so that a look-up by a wrong type does not compile: `Policies::get::<Arc<MyPolicy>>()`
/// would else find nothing and silently apply the default.
///
/// ```
/// use towpath_gateway_core::{Policies, Policy};
///
/// #[derive(Debug, PartialEq)]
/// struct MaxSize(u64);
/// impl Policy for MaxSize {}
///
/// let policies = Policies::builder().with(MaxSize(10)).build();
/// assert_eq!(policies.get::<MaxSize>(), Some(&MaxSize(10)));
/// ```
///
/// ```compile_fail
/// # use std::sync::Arc;
/// # use towpath_gateway_core::{Policies, Policy};
/// # #[derive(Debug)]
/// # struct MaxSize(u64);
/// # impl Policy for MaxSize {}
/// let policies = Policies::builder().with(MaxSize(10)).build();
/// policies.get::<Arc<MaxSize>>(); // `Arc<MaxSize>` is not a policy
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a policy",
    note = "implement the marker `towpath_gateway_core::Policy` for the settings type itself, not for a wrapper of it"
)]
pub trait Policy: fmt::Debug + Send + Sync + 'static {}

/// The settings of one route, by type. Built when configuration is applied; a clone is one reference count.
#[derive(Clone, Default)]
pub struct Policies(Arc<[Entry]>);

type Entry = (TypeId, Arc<dyn AnyPolicy>);

trait AnyPolicy: Any + Send + Sync + fmt::Debug {
    fn as_any(&self) -> &dyn Any;
}

impl<P: Policy> AnyPolicy for P {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Policies {
    /// Starts an empty set.
    pub fn builder() -> PoliciesBuilder {
        PoliciesBuilder::default()
    }

    /// The settings of type `P`, if the route carries any.
    pub fn get<P: Policy>(&self) -> Option<&P> {
        let wanted = TypeId::of::<P>();
        // A route carries a handful of settings: a walk beats a hash.
        self.0.iter().find(|(id, _)| *id == wanted)?.1.as_ref().as_any().downcast_ref()
    }

    /// The same set plus the entries of `other`; where both hold a type, `other` wins.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut builder = PoliciesBuilder(self.0.to_vec());
        for entry in other.0.iter() {
            builder.put(entry.clone());
        }
        builder.build()
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(_, policy)| policy)).finish()
    }
}

/// Builds [`Policies`].
#[derive(Default)]
pub struct PoliciesBuilder(Vec<Entry>);

impl PoliciesBuilder {
    /// Adds settings; a second value of the same type replaces the first.
    #[must_use]
    pub fn with<P: Policy>(mut self, policy: P) -> Self {
        self.put((TypeId::of::<P>(), Arc::new(policy)));
        self
    }

    /// The finished set.
    pub fn build(self) -> Policies {
        Policies(self.0.into())
    }

    fn put(&mut self, entry: Entry) {
        self.0.retain(|(id, _)| *id != entry.0);
        self.0.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct A(u8);
    impl Policy for A {}

    #[derive(Debug, PartialEq)]
    struct B(u8);
    impl Policy for B {}

    #[test]
    fn each_type_has_one_place() {
        let policies = Policies::builder().with(A(1)).with(B(2)).with(A(3)).build();
        assert_eq!(policies.get::<A>(), Some(&A(3)));
        assert_eq!(policies.get::<B>(), Some(&B(2)));
    }

    #[test]
    fn the_more_specific_set_wins_a_merge() {
        let low = Policies::builder().with(A(1)).with(B(2)).build();
        let high = Policies::builder().with(A(9)).build();
        let both = low.merged(&high);
        assert_eq!((both.get::<A>(), both.get::<B>()), (Some(&A(9)), Some(&B(2))));
        assert_eq!(low.get::<A>(), Some(&A(1)));
    }

    #[test]
    fn an_absent_type_is_none() {
        assert_eq!(Policies::default().get::<A>(), None);
    }
}
