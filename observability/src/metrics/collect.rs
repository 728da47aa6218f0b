//! Sums the shards when metrics are scraped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::series::{FlowKey, RefusalKey, RequestKey, Told, ToldKey, Totals};
use super::shard::Shared;

/// Label of a route or reason that there is not.
const NONE: &str = "none";

type NoLabels = [(&'static str, &'static str); 0];

#[derive(Debug)]
pub(super) struct Sum(pub(super) Arc<Shared>);

impl Collector for Sum {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let requests = self.requests();
        encode_requests(&mut encoder, &requests)?;
        encode_durations(&mut encoder, &requests)?;
        encode_flows(&mut encoder, &self.flows())?;
        encode_refusals(&mut encoder, &self.refusals())?;
        let told = self.told();
        encode_dry_runs(&mut encoder, &told)?;
        encode_audits(&mut encoder, &told)?;
        let help = "Access log lines that were dropped";
        let mut dropped = encoder.encode_descriptor("access_log_dropped", help, None, MetricType::Counter)?;
        encode_count(&mut dropped, self.0.dropped_lines())
    }
}

impl Sum {
    fn requests(&self) -> BTreeMap<RequestKey, Totals> {
        let mut sums: BTreeMap<RequestKey, Totals> = BTreeMap::new();
        self.0.requests.for_each(|key, series| sums.entry(key.clone()).or_default().add(series));
        sums
    }

    /// Count, bytes in and bytes out.
    fn flows(&self) -> BTreeMap<FlowKey, [u64; 3]> {
        let mut sums: BTreeMap<FlowKey, [u64; 3]> = BTreeMap::new();
        self.0.flows.for_each(|key, flows| {
            let here = [&flows.count, &flows.bytes_in, &flows.bytes_out];
            let sum = sums.entry(key.clone()).or_default();
            sum.iter_mut().zip(here).for_each(|(sum, here)| *sum += here.load(Ordering::Relaxed));
        });
        sums
    }

    fn told(&self) -> BTreeMap<ToldKey, u64> {
        let mut sums: BTreeMap<ToldKey, u64> = BTreeMap::new();
        self.0.told.for_each(|key, count| {
            *sums.entry(key.clone()).or_default() += count.load(Ordering::Relaxed);
        });
        sums
    }

    fn refusals(&self) -> BTreeMap<RefusalKey, u64> {
        let mut sums: BTreeMap<RefusalKey, u64> = BTreeMap::new();
        self.0.refusals.for_each(|key, count| {
            *sums.entry(key.clone()).or_default() += count.load(Ordering::Relaxed);
        });
        sums
    }
}

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<RequestKey, Totals>) -> fmt::Result {
    let help = "Requests that ended";
    let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (key, totals) in sums {
        let code = key.code.to_string();
        let labels = [
            ("role", &*key.role),
            ("listener", &*key.listener),
            ("route", key.route.as_deref().unwrap_or(NONE)),
            ("code", &code),
            ("reason", key.reason.unwrap_or(NONE)),
        ];
        encode_count(&mut labelled(&mut family, &labels)?, totals.count())?;
    }
    Ok(())
}

/// Codes of one class share a histogram.
fn encode_durations(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<RequestKey, Totals>) -> fmt::Result {
    let mut classes: BTreeMap<_, Totals> = BTreeMap::new();
    for (key, totals) in sums {
        let class = (&*key.role, &*key.listener, key.route.as_deref().unwrap_or(NONE), code_class(key.code));
        classes.entry(class).or_default().merge(totals);
    }
    let help = "Time from the arrival of a request to the end of its response";
    let mut family =
        encoder.encode_descriptor("request_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for ((role, listener, route, class), totals) in &classes {
        let labels = [("role", *role), ("listener", *listener), ("route", *route), ("code_class", *class)];
        let mut histogram = labelled(&mut family, &labels)?;
        histogram.encode_histogram::<NoLabels>(totals.seconds(), totals.count(), &totals.buckets(), None)?;
    }
    Ok(())
}

fn encode_flows(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<FlowKey, [u64; 3]>) -> fmt::Result {
    let families = [
        ("flows", "Connections and UDP flows of layer 4 that ended", None),
        ("flow_received", "Bytes that clients of ended flows sent", Some(&Unit::Bytes)),
        ("flow_sent", "Bytes that clients of ended flows were sent", Some(&Unit::Bytes)),
    ];
    for (place, (name, help, unit)) in families.into_iter().enumerate() {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (key, sum) in sums {
            let labels = [
                ("role", &*key.role),
                ("listener", &*key.listener),
                ("protocol", key.protocol),
                ("route", key.route.as_deref().unwrap_or(NONE)),
                ("reason", key.reason.unwrap_or(NONE)),
            ];
            encode_count(&mut labelled(&mut family, &labels)?, sum.get(place).copied().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn encode_refusals(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<RefusalKey, u64>) -> fmt::Result {
    let help = "Requests that a policy refused";
    let mut family = encoder.encode_descriptor("requests_refused", help, None, MetricType::Counter)?;
    for (key, count) in sums {
        let labels = [("policy", &*key.policy), ("reason", key.reason)];
        encode_count(&mut labelled(&mut family, &labels)?, *count)?;
    }
    Ok(())
}

fn encode_dry_runs(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<ToldKey, u64>) -> fmt::Result {
    let help = "Decisions that authorization policies in dry-run would have made";
    let mut family = encoder.encode_descriptor("authorization_dry_run", help, None, MetricType::Counter)?;
    for (key, count) in sums {
        let verdict = match key.verdict {
            Told::Allow => "allow",
            Told::Deny => "deny",
            Told::Audit => continue,
        };
        let labels = [("policy", key.policy.as_deref().unwrap_or(NONE)), ("verdict", verdict)];
        encode_count(&mut labelled(&mut family, &labels)?, *count)?;
    }
    Ok(())
}

fn encode_audits(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<ToldKey, u64>) -> fmt::Result {
    let help = "Requests and flows that an AUDIT policy matches";
    let mut family = encoder.encode_descriptor("authorization_audit", help, None, MetricType::Counter)?;
    for (key, count) in sums.iter().filter(|(key, _)| key.verdict == Told::Audit) {
        let labels = [("policy", key.policy.as_deref().unwrap_or(NONE))];
        encode_count(&mut labelled(&mut family, &labels)?, *count)?;
    }
    Ok(())
}

fn labelled<'a>(
    family: &'a mut MetricEncoder<'_>,
    labels: &'a impl EncodeLabelSet,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    family.encode_family(labels)
}

fn encode_count(encoder: &mut MetricEncoder<'_>, count: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabels, u64, f64>(&count, None)
}

fn code_class(code: u16) -> &'static str {
    match code / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => NONE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_gateway_core::{Decision, DryRun, Fault, Reason, RouteName};

    use crate::record::End;
    use crate::recorder::Origin;
    use crate::{Metrics, ProcessFacts};

    fn origin() -> Origin {
        Origin { facts: ProcessFacts::new("gateway", "", ""), pid: 1, listener: "public".into() }
    }

    fn end(status: u16) -> End {
        let duration = Duration::from_millis(2);
        End { status: Some(status), duration, bytes_in: 0, bytes_out: 0, complete: true }
    }

    #[test]
    fn shards_are_summed() {
        let metrics = Metrics::new();
        let route = RouteName::new("shop/pages", "0");
        for _ in 0..2 {
            let shard = metrics.shard();
            shard.observe(&origin(), Some(&route), None, end(200));
            shard.observe(&origin(), Some(&route), None, end(201));
        }
        let text = metrics.encode().unwrap();
        for line in [
            "towpath_requests_total{role=\"gateway\",listener=\"public\",route=\"shop/pages\",code=\"200\",reason=\"none\"} 2",
            "towpath_request_duration_seconds_count{role=\"gateway\",listener=\"public\",route=\"shop/pages\",code_class=\"2xx\"} 4",
            "towpath_request_duration_seconds_bucket{le=\"0.0025\",role=\"gateway\",listener=\"public\",route=\"shop/pages\",code_class=\"2xx\"} 4",
            "towpath_access_log_dropped_total 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(text.contains("request_duration_seconds_bucket{le=\"0.001\",role=\"gateway\",listener=\"public\",route=\"shop/pages\",code_class=\"2xx\"} 0"));
        assert!(text.contains("le=\"+Inf\""));
    }

    #[test]
    fn what_no_route_took_has_one_bounded_series() {
        let metrics = Metrics::new();
        metrics.shard().observe(&origin(), None, Some(&Fault::new(Reason::NoRoute)), end(404));
        let text = metrics.encode().unwrap();
        assert!(text.contains("route=\"none\",code=\"404\",reason=\"no_route\"} 1"), "{text}");
        assert!(!text.contains("refused_total{"), "{text}");
    }

    #[test]
    fn refusals_name_their_policy() {
        let metrics = Metrics::new();
        let fault = Fault::new(Reason::Denied).with_policy("shop/deny".into());
        metrics.shard().observe(&origin(), None, Some(&fault), end(403));
        let text = metrics.encode().unwrap();
        let line = "towpath_requests_refused_total{policy=\"shop/deny\",reason=\"denied\"} 1";
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn policies_that_are_not_enforced_are_counted() {
        let metrics = Metrics::new();
        let told = |audit: Option<&str>, dry_run| Decision {
            audit: audit.map(Into::into),
            dry_run,
            ..Decision::by(true, None)
        };
        let denied = DryRun { allowed: false, policy: Some("shop/try".into()) };
        let shard = metrics.shard();
        shard.tell(&told(Some("shop/audit"), Some(denied)));
        shard.tell(&told(None, Some(DryRun { allowed: true, policy: None })));
        let text = metrics.encode().unwrap();
        for line in [
            "towpath_authorization_dry_run_total{policy=\"shop/try\",verdict=\"deny\"} 1",
            "towpath_authorization_dry_run_total{policy=\"none\",verdict=\"allow\"} 1",
            "towpath_authorization_audit_total{policy=\"shop/audit\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{text}");
        }
    }

    #[test]
    fn names_from_outside_cannot_break_the_format() {
        let metrics = Metrics::new();
        let route = RouteName::new("a\"b\\c\nd", "0");
        metrics.shard().observe(&origin(), Some(&route), None, end(200));
        assert!(metrics.encode().unwrap().contains(r#"route="a\"b\\c\nd""#));
    }

    #[test]
    fn others_register_their_own() {
        let metrics = Metrics::new();
        let gauge: prometheus_client::metrics::gauge::Gauge =
            prometheus_client::metrics::gauge::Gauge::default();
        gauge.set(7);
        metrics.register(|registry| registry.register("certificate_expiry_seconds", "When", gauge));
        assert!(metrics.encode().unwrap().contains("towpath_certificate_expiry_seconds 7"));
    }
}
