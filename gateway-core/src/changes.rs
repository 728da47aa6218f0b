//! Word of changes, for who lives longer than the data that it was judged by.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

/// Tells that data behind [`Live`](crate::Live) handles was changed. Clones tell and hear the same.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let changes = towpath_gateway_core::Changes::new();
/// let next = changes.next();
/// changes.tell();
/// next.await;
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Changes(Arc<watch::Sender<()>>);

impl Changes {
    /// Nothing has changed yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }

    /// Wakes who waits. The data has to be in place before.
    pub fn tell(&self) {
        self.0.send_replace(());
    }

    /// Waits for the next change. The wait begins with the call, not with the first poll: to lose none, call this, then
    /// look at the data, then await.
    pub fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut heard = self.0.subscribe();
        let sender = Arc::clone(&self.0);
        async move {
            // `sender` keeps the channel open, so this cannot fail.
            let _ = heard.changed().await;
            drop(sender);
        }
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}
