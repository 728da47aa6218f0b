//! Whether what a connection's other side proved still counts.

use std::fmt;
use std::sync::Arc;

/// Says of a connection that is kept whether new requests may go over it: whom to trust may have changed since its handshake.
/// Clones ask the same. Any two are equal: it is no fact about a connection.
///
/// ```
/// use towpath_gateway_core::Standing;
///
/// assert!(Standing::default().holds());
/// assert!(!Standing::new(|| false).holds());
/// ```
#[derive(Clone, Default)]
pub struct Standing(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Standing {
    /// Asks `holds`, for every request that finds the connection: it must be quick.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(holds)))
    }

    /// Whether it counts now. Where nothing was proved, nothing is lost.
    pub fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|holds| holds())
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Standing").field(&self.holds()).finish()
    }
}

impl PartialEq for Standing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Standing {}
