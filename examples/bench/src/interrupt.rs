//! Ctrl-C and SIGTERM: noticed by every wait, so that handles end their processes on the way out.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Failure;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for the two signals.
pub(crate) fn watch() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(wait()))?;
    Ok(())
}

async fn wait() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    ASKED.store(true, Ordering::Relaxed);
}

/// An error once one of the signals came.
pub(crate) fn check() -> Result<(), Failure> {
    if ASKED.load(Ordering::Relaxed) {
        return Err("interrupted: every process was stopped".into());
    }
    Ok(())
}
