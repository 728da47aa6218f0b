//! Messages of the process itself, on standard error; requests are the access log's.

use std::fmt::Display;
use std::io::Write;

use tracing_subscriber::EnvFilter;

/// Starts messages on standard error. `TOWPATH_LOG` sets what is shown, as in `TOWPATH_LOG=debug`; the default is
/// `info`. A second call changes nothing.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("TOWPATH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let messages = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // It would tell of a reader that is gone by `eprintln!`, which panics.
        .log_internal_errors(false);
    // An embedder may have its own already; then that one stays.
    let _ = messages.try_init();
}

/// One line on standard error. A reader that is gone is no reason to end: `eprintln!` would panic.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
