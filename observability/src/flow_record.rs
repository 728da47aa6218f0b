//! What is logged of one flow of layer 4.

use std::time::{Duration, SystemTime};

use towpath_gateway_core::{Context, Fault, Reason};

use crate::json::Object;
use crate::record::{AttemptRecord, Detail, DownstreamRecord, told};
use crate::recorder::Origin;
use crate::time::Rfc3339;

/// How a flow ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlowEnd {
    /// When it began.
    pub(crate) time: SystemTime,
    /// `TCP`, `TLS` or `UDP`.
    pub(crate) protocol: &'static str,
    pub(crate) duration: Duration,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Appends the record as one JSON object, with the fields of a request's record as far as a flow has them.
pub(crate) fn write_json(
    out: &mut Vec<u8>,
    origin: &Origin,
    end: &FlowEnd,
    context: &Context,
    fault: Option<&Fault>,
) {
    let attempts = context.attempts();
    Object::write(out, |object| {
        object.plain("time", Rfc3339(end.time));
        object.text("role", &origin.facts.role);
        object.filled("workload", &origin.facts.workload);
        object.filled("cluster", &origin.facts.cluster);
        object.number("pid", u64::from(origin.pid));
        object.filled("listener", &origin.listener);
        object.text("protocol", end.protocol);
        object.number("duration_us", u64::try_from(end.duration.as_micros()).unwrap_or(u64::MAX));
        object.number("bytes_in", end.bytes_in);
        object.number("bytes_out", end.bytes_out);
        verdict(object, context, fault);
        if let Some(name) = context.route() {
            object.text("route", &name.route);
            object.text("rule", &name.rule);
        }
        object.some("backend", context.backend().map(|backend| &*backend.name));
        object.flag("complete", fault.is_none());
        if let Some(connection) = context.connection() {
            object.object("downstream", |object| DownstreamRecord::new(connection).fill(object));
        }
        let attempts: Vec<_> = attempts.iter().map(AttemptRecord::new).collect();
        if !attempts.is_empty() {
            object.list("attempts", &attempts, AttemptRecord::fill);
        }
    });
}

fn verdict(object: &mut Object<'_>, context: &Context, fault: Option<&Fault>) {
    let reason = fault.map(Fault::reason);
    object.some("reason", reason.map(Reason::label));
    object.some("flag", reason.map(Reason::flag));
    if let Some(detail) = fault.and_then(Detail::of) {
        object.text("detail", &detail.to_string());
    }
    let decided = || context.decision().and_then(|decision| decision.policy.as_deref());
    object.some("policy", fault.and_then(|fault| fault.policy().map(|name| &**name)).or_else(decided));
    let decision = context.decision();
    told(
        object,
        decision.and_then(|decision| decision.audit.as_deref()),
        decision.and_then(|decision| decision.dry_run.as_ref()),
    );
}
