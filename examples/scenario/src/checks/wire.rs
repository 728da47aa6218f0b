//! What the recorder on the edge leg saw.

use towpath_config::Scenario;

use super::{Check, World, holds};

const BODIES: u64 = 2 * 20 * 1024 * 1024;

/// Carries the check out; it needs the traffic of all others behind it.
pub(super) fn run(world: &World, done: &mut impl FnMut(Check)) {
    let open = matches!(world.plan.scenario, Scenario::Ingress | Scenario::InCluster);
    let seen = &world.recorder;
    let text = format!(
        "marker {}, {} of {} connections began with a ClientHello, {} MiB",
        if seen.found_marker() { "found" } else { "not found" },
        seen.client_hellos(),
        seen.connections(),
        seen.bytes() / 1024 / 1024,
    );
    let enough = seen.bytes() >= BODIES && seen.connections() > 0;
    let (expected, ok) = if open {
        ("the scan finds the marker: this leg is known to be open", enough && seen.found_marker())
    } else {
        let all_tls = seen.client_hellos() == seen.connections();
        (
            "no marker in the clear, every connection TLS, all bodies passed",
            enough && all_tls && !seen.found_marker(),
        )
    };
    done(holds("the bytes on the edge leg", expected, text, ok));
}
