//! What an error of a connection says about the request that it carried.

use std::error::Error;

use towpath_gateway_core::{Destination, Fault, Reason, Replay};

/// The fault of a request that was sent, or began to be, and got no answer.
pub(super) fn of(error: hyper::Error, destination: &Destination) -> Fault {
    // A body that a layer or the client broke off carries its own reason.
    if let Some(fault) = find::<Fault>(&error) {
        return fault.clone();
    }
    let (reason, replay) = judge(&error);
    Fault::new(reason)
        .with_replay(replay)
        .with_detail(destination.endpoint.address.to_string())
        .with_source(error)
}

/// The fault of a request of which not one byte was written.
pub(super) fn unsent(error: impl Into<Box<dyn Error + Send + Sync>>, destination: &Destination) -> Fault {
    let address = destination.endpoint.address.to_string();
    Fault::new(Reason::UpstreamReset).with_replay(Replay::Always).with_detail(address).with_source(error)
}

fn judge(error: &hyper::Error) -> (Reason, Replay) {
    let plain = |reason: Reason| (reason, reason.replay());
    if error.is_parse() {
        return plain(Reason::UpstreamInvalid);
    }
    if error.is_user() {
        return plain(Reason::ClientGone);
    }
    match find::<h2::Error>(error) {
        Some(error) if is_unprocessed(error) => (Reason::UpstreamReset, Replay::Always),
        Some(error) if error.is_library() => plain(Reason::UpstreamInvalid),
        _ => plain(Reason::UpstreamReset),
    }
}

/// Whether the other side gave its word that it did not look at the request: it refused the stream, or went away and
/// named an earlier stream as its last (RFC 9113 sections 6.8 and 8.7). The h2 crate gives a stream the error of a
/// `GOAWAY` only if the stream is above that last one; streams below it end with an I/O error.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error.downcast_ref().or_else(|| find(error.source()?))
}
