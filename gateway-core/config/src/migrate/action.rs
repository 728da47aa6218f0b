//! What a rule does with the requests that it takes.

use serde_json::{Map, Value, json};

use super::cursor::{Cursor, Fields};
use super::destination::Destinations;
use super::tree::number;
use towpath_routing::Hostname;

/// Most backends of a rule (Gateway API, `HTTPRouteRule.backendRefs`).
const MAX_BACKENDS: usize = 16;

pub(super) const HTTP_ROUTE: &str = "HTTPRoute";

/// The parts of a rule of a route, but for its matches.
#[derive(Default)]
pub(super) struct Action<'a> {
    /// Filters, but for the rewrite of the path, which depends on the match.
    pub(super) filters: Vec<Value>,
    pub(super) backends: Vec<Value>,
    pub(super) timeouts: Map<String, Value>,
    pub(super) retry: Option<Value>,
    /// `spec` of an `HTTPRouteFilter`.
    pub(super) extension: Map<String, Value>,
    /// `rewrite.authority`.
    pub(super) host: Option<String>,
    /// `rewrite.uri`.
    pub(super) uri: Option<(String, Cursor<'a>)>,
}

/// Reads all of a rule but its matches and its name.
pub(super) fn read<'a>(
    rule: &Cursor<'a>,
    fields: &Fields<'a>,
    destinations: &Destinations<'_>,
) -> Action<'a> {
    let mut action = Action::default();
    fields.skip("websocketUpgrade", "upgrades to WebSocket are always passed on");
    if let Some(rewrite) = fields.take("rewrite") {
        let inner = rewrite.fields();
        inner.refuse("uriRegexRewrite", "a path is replaced whole or by its prefix: it stays as it is");
        if let Some(field) = inner.take("authority") {
            let host = hostname(&field);
            if host.as_ref().is_some_and(|(_, port)| port.is_some()) {
                field.changed("a host is put in its place without a port");
            }
            action.host = host.map(|(name, _)| name);
        }
        action.uri = inner.take("uri").and_then(|uri| Some((uri.text()?.to_owned(), uri)));
    }
    if let Some(headers) = fields.take("headers") {
        action.filters.extend(header_filters(&headers));
    }
    if let Some(cors) = fields.take("corsPolicy") {
        action.filters.push(self::cors(&cors));
    }
    mirrors(&mut action, fields, destinations);
    if let Some(fault) = fields.take("fault") {
        self::fault(&mut action, &fault);
    }
    timeouts(&mut action, fields);
    match (fields.take("redirect"), fields.take("directResponse"), fields.take("route")) {
        (Some(redirect), None, None) => {
            if action.host.take().is_some() | action.uri.take().is_some() {
                redirect.changed("`rewrite` beside it has no effect: a redirect answers by itself");
            }
            action.filters.extend(self::redirect(&redirect));
            // It answers by itself.
            action.timeouts.clear();
            action.retry = None;
        }
        (None, Some(direct), None) => direct_response(&mut action, &direct),
        (None, None, Some(route)) => {
            if action.retry.is_none() {
                rule.note("Istio tries twice more by default; here it is once, where the request certainly was not processed");
            }
            action.backends = backends(&route, destinations, HTTP_ROUTE);
        }
        _ => rule.lost("has not one of `route`, `redirect` and `directResponse`: its requests end as 500"),
    }
    action
}

/// The destinations of a route of this kind, with their shares.
pub(super) fn backends(route: &Cursor<'_>, destinations: &Destinations<'_>, kind: &str) -> Vec<Value> {
    let items = route.items();
    if items.len() > MAX_BACKENDS {
        route.lost(format!("there are {} destinations, and a rule has {MAX_BACKENDS} at most", items.len()));
    }
    let mut backends = Vec::new();
    for item in items.iter().take(MAX_BACKENDS) {
        let fields = item.fields();
        let weight = fields.take("weight").and_then(|weight| weight.whole(1_000_000));
        // One alone takes all; of several, one without a weight takes none (Istio, `HTTPRouteDestination.weight`).
        let weight = if items.len() == 1 { 1 } else { weight.unwrap_or(0) };
        // Elsewhere it is no field of Istio's either.
        let headers = if kind == HTTP_ROUTE { fields.take("headers") } else { None };
        let filters = headers.map(|headers| header_filters(&headers)).unwrap_or_default();
        let reference = fields.take("destination").and_then(|field| destinations.reference(&field, kind));
        // Its share must not go to the others.
        let mut reference = reference.unwrap_or_else(|| {
            item.changed("its share of the requests ends as 500, or as a closed connection");
            Map::from_iter([("name".to_owned(), "nowhere".into()), ("port".to_owned(), 80.into())])
        });
        reference.insert("weight".into(), weight.into());
        if !filters.is_empty() {
            reference.insert("filters".into(), filters.into());
        }
        backends.push(reference.into());
    }
    backends
}

fn header_filters(headers: &Cursor<'_>) -> Vec<Value> {
    let fields = headers.fields();
    let mut filters = Vec::new();
    for (side, kind, field) in [
        ("request", "RequestHeaderModifier", "requestHeaderModifier"),
        ("response", "ResponseHeaderModifier", "responseHeaderModifier"),
    ] {
        let Some(operations) = fields.take(side) else { continue };
        let inner = operations.fields();
        let mut modifier = Map::new();
        for name in ["set", "add"] {
            let entries: Vec<_> =
                inner.take(name).iter().flat_map(Cursor::entries).filter_map(pair).collect();
            if !entries.is_empty() {
                modifier.insert(name.into(), entries.into());
            }
        }
        let removed = inner.take("remove");
        let removed = removed.iter().flat_map(Cursor::texts).filter(|(name, field)| is_plain(name, field));
        let removed: Vec<_> = removed.map(|(name, _)| name.to_owned()).collect();
        if !removed.is_empty() {
            modifier.insert("remove".into(), removed.into());
        }
        if !modifier.is_empty() {
            filters.push(json!({"type": kind, field: modifier}));
        }
    }
    filters
}

/// Whether a header may be changed as such.
fn is_plain(name: &str, field: &Cursor<'_>) -> bool {
    let host = name.starts_with(':') || name.eq_ignore_ascii_case("host");
    if host {
        field.lost("the host is changed by `rewrite.authority` alone");
    }
    !host
}

fn pair((name, value): (&str, Cursor<'_>)) -> Option<Value> {
    if !is_plain(name, &value) {
        return None;
    }
    let text = value.text()?;
    if text.contains('%') {
        value.changed("`%…%` is not replaced by anything: it is sent as it is written");
    }
    Some(json!({"name": name, "value": text}))
}

fn redirect(redirect: &Cursor<'_>) -> Option<Value> {
    let fields = redirect.fields();
    fields.refuse("derivePort", "the port is the listener's, or that of the scheme");
    let mut filter = Map::new();
    let status = fields.take("redirectCode").map_or(Some(301), |code| {
        let known = code.whole(999).filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
        if known.is_none() {
            code.lost("is none of 301, 302, 303, 307 and 308: 301 is taken");
        }
        known.or(Some(301))
    });
    filter.insert("statusCode".into(), status.into());
    if let Some((name, port)) = fields.take("authority").and_then(|host| hostname(&host)) {
        filter.insert("hostname".into(), name.into());
        if let Some(port) = port {
            filter.insert("port".into(), port.into());
        }
    }
    if let Some(port) = fields.take("port").and_then(|port| port.port()) {
        filter.insert("port".into(), port.into());
    }
    if let Some(scheme) = fields.take("scheme").and_then(|scheme| scheme.text()) {
        filter.insert("scheme".into(), scheme.into());
    }
    if let Some(uri) = fields.take("uri") {
        let path = uri.text()?;
        if path.starts_with('/') && !path.contains(['?', '#', '%']) {
            filter.insert("path".into(), json!({"type": "ReplaceFullPath", "replaceFullPath": path}));
        } else {
            uri.lost("is not a plain path: the request's own is kept");
        }
    }
    Some(json!({"type": "RequestRedirect", "requestRedirect": filter}))
}

fn direct_response(action: &mut Action<'_>, direct: &Cursor<'_>) {
    let fields = direct.fields();
    let mut response = Map::new();
    if let Some(status) = fields.take("status").and_then(|status| status.whole(599)) {
        response.insert("status".into(), status.into());
    }
    if let Some(body) = fields.take("body") {
        let inner = body.fields();
        inner.refuse("bytes", "a body is a text");
        if let Some(text) = inner.take("string").and_then(|text| text.text()) {
            response.insert("body".into(), text.into());
        }
    }
    action.extension.insert("directResponse".into(), response.into());
    action.timeouts.clear();
    action.retry = None;
}

fn fault(action: &mut Action<'_>, fault: &Cursor<'_>) {
    let fields = fault.fields();
    let mut injected = Map::new();
    if let Some(delay) = fields.take("delay") {
        let inner = delay.fields();
        inner.refuse("exponentialDelay", "delays are fixed");
        let wait = inner.take("fixedDelay").and_then(|wait| duration(&wait));
        if let (Some(wait), Some(percentage)) = (wait, percentage(&inner, &delay)) {
            injected.insert("delay".into(), json!({"fixedDelay": wait, "percentage": percentage}));
        }
    }
    if let Some(abort) = fields.take("abort") {
        let inner = abort.fields();
        let mut status = Map::new();
        if let Some(code) = inner.take("httpStatus").and_then(|code| code.whole(599)) {
            status.insert("httpStatus".into(), code.into());
        }
        if let Some(code) = inner.take("grpcStatus").and_then(|code| code.text()) {
            status.insert("grpcStatus".into(), code.into());
        }
        inner.refuse("http2Error", "aborts are answers");
        if let Some(percentage) = percentage(&inner, &abort).filter(|_| !status.is_empty()) {
            status.insert("percentage".into(), percentage);
            injected.insert("abort".into(), status.into());
        }
    }
    if !injected.is_empty() {
        action.extension.insert("fault".into(), injected.into());
    }
}

/// Without one Istio injects nothing.
fn percentage(fields: &Fields<'_>, of: &Cursor<'_>) -> Option<Value> {
    let value = match fields.take("percentage") {
        Some(field) => {
            let inner = field.fields();
            inner.take("value").and_then(|value| value.number())
        }
        None => fields.take("percent").and_then(|percent| percent.number()),
    };
    if value.is_none() {
        of.note("no percentage: Istio injects nothing, and nothing is injected");
    }
    value.map(number)
}

fn mirrors(action: &mut Action<'_>, fields: &Fields<'_>, destinations: &Destinations<'_>) {
    let own = fields.take("mirrorPercentage");
    let old = fields.take("mirrorPercent").or_else(|| fields.take("mirror_percent"));
    if let Some(mirror) = fields.take("mirror") {
        let share = own.map(|field| share(&field)).or_else(|| old.and_then(|old| old.number()));
        action.filters.extend(self::mirror(destinations.reference(&mirror, HTTP_ROUTE), share));
    }
    for mirror in fields.take("mirrors").iter().flat_map(Cursor::items) {
        let inner = mirror.fields();
        let share = inner.take("percentage").map(|field| share(&field));
        let reference =
            inner.take("destination").and_then(|field| destinations.reference(&field, HTTP_ROUTE));
        action.filters.extend(self::mirror(reference, share));
    }
}

fn share(field: &Cursor<'_>) -> f64 {
    let fields = field.fields();
    // A percentage without a value is 0.
    fields.take("value").and_then(|value| value.number()).unwrap_or(0.0)
}

/// A name that a route can put in place of the host's, with the port that was beside it.
fn hostname(field: &Cursor<'_>) -> Option<(String, Option<u16>)> {
    let text = field.text()?;
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, Some(port)),
        _ => (text, None),
    };
    let number = port.map(str::parse::<u16>);
    let is_name = matches!(name.parse(), Ok(Hostname::Exact(_)));
    if !is_name || number.as_ref().is_some_and(Result::is_err) {
        field.lost(format!("`{text}` is not a DNS name: the host stays as it is"));
        return None;
    }
    Some((name.to_owned(), number.and_then(Result::ok)))
}

/// Without a share all requests are copied.
fn mirror(reference: Option<Map<String, Value>>, percent: Option<f64>) -> Option<Value> {
    let mut filter = Map::new();
    filter.insert("backendRef".into(), reference?.into());
    if let Some(percent) = percent {
        let million = (percent * 10_000.0).round();
        filter.insert("fraction".into(), json!({"numerator": number(million), "denominator": 1_000_000}));
    }
    Some(json!({"type": "RequestMirror", "requestMirror": filter}))
}

fn cors(policy: &Cursor<'_>) -> Value {
    let fields = policy.fields();
    fields.refuse("unmatchedPreflights", "preflights of other origins are answered without CORS headers");
    let mut cors = Map::new();
    let mut origins: Vec<String> =
        fields.take("allowOrigin").iter().flat_map(Cursor::texts).map(|(text, _)| text.to_owned()).collect();
    for origin in fields.take("allowOrigins").iter().flat_map(Cursor::items) {
        let inner = origin.fields();
        let other = inner.refuse("prefix", "origins are named") | inner.refuse("regex", "origins are named");
        match inner.take("exact").and_then(|exact| exact.text()) {
            Some(exact) => origins.push(exact.to_owned()),
            None if !other => origin.lost("has no `exact`"),
            None => {}
        }
    }
    cors.insert("allowOrigins".into(), origins.into());
    for name in ["allowMethods", "allowHeaders", "exposeHeaders"] {
        let list: Vec<_> =
            fields.take(name).iter().flat_map(Cursor::texts).map(|(text, _)| text.to_owned()).collect();
        if !list.is_empty() {
            cors.insert(name.into(), list.into());
        }
    }
    if let Some(credentials) = fields.take("allowCredentials").and_then(|field| field.boolean()) {
        cors.insert("allowCredentials".into(), credentials.into());
    }
    if let Some(age) = fields.take("maxAge").and_then(|age| milliseconds(&age)) {
        cors.insert("maxAge".into(), (age / 1000).into());
    }
    json!({"type": "CORS", "cors": cors})
}

fn timeouts(action: &mut Action<'_>, fields: &Fields<'_>) {
    // Without one Istio waits for as long as it takes.
    let whole = fields.take("timeout");
    let request = whole.as_ref().and_then(duration);
    action.timeouts.insert("request".into(), request.unwrap_or_else(|| "0s".to_owned()).into());
    let Some(retries) = fields.take("retries") else { return };
    let inner = retries.fields();
    let attempts = inner.take("attempts").and_then(|attempts| attempts.whole(100)).unwrap_or(0);
    let mut retry = json!({ "attempts": attempts });
    if let Some(limit) = inner.take("perTryTimeout") {
        let (tried, whole) = (milliseconds(&limit), whole.as_ref().and_then(milliseconds));
        if whole.zip(tried).is_some_and(|(whole, tried)| whole > 0 && tried >= whole) {
            limit.note("is no shorter than `timeout`, which covers all tries");
        } else if let Some(tried) = duration(&limit) {
            action.timeouts.insert("backendRequest".into(), tried.into());
        }
    }
    let on = inner.take("retryOn");
    if on.is_none() && attempts > 0 {
        retries.changed(
            "without `retryOn` Istio has conditions of its own; here it is failures where that is safe",
        );
    }
    if let Some(on) = on {
        let codes = codes(&on);
        if !codes.is_empty() {
            on.changed(format!("answers of {codes:?} are retried for idempotent methods alone"));
        }
        if let (false, Some(fields)) = (codes.is_empty(), retry.as_object_mut()) {
            fields.insert("codes".into(), codes.into());
        }
    }
    if let (Some(wait), Some(fields)) =
        (inner.take("backoff").and_then(|wait| duration(&wait)), retry.as_object_mut())
    {
        fields.insert("backoff".into(), wait.into());
    }
    inner.refuse("retryRemoteLocalities", "endpoints are chosen wherever they are");
    inner.refuse("retryIgnorePreviousHosts", "each try chooses an endpoint anew");
    action.retry = Some(retry);
}

fn codes(on: &Cursor<'_>) -> Vec<u16> {
    let mut codes = Vec::new();
    for word in on.text().unwrap_or_default().split(',').map(str::trim) {
        match word {
            "5xx" => codes.extend([500, 502, 503, 504]),
            "gateway-error" => codes.extend([502, 503, 504]),
            "retriable-4xx" => codes.push(409),
            "" | "connect-failure" | "refused-stream" | "reset" | "reset-before-request" => {}
            code if code.parse::<u16>().is_ok_and(|code| (400..600).contains(&code)) => {
                codes.extend(code.parse::<u16>());
            }
            other => on.changed(format!(
                "`{other}` is no status: failures are retried where the request certainly was not processed"
            )),
        }
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// A duration of protobuf (`1.5s`) or Go (`1m30s`) in the Gateway API's form.
fn duration(field: &Cursor<'_>) -> Option<String> {
    let millis = milliseconds(field)?;
    Some(match (millis % 1000, millis / 1000) {
        (0, seconds) if seconds < 100_000 => format!("{seconds}s"),
        (_, seconds) if seconds >= 100_000 => {
            let (hours, minutes) = ((seconds / 3600).min(99_999), seconds / 60 % 60);
            format!("{hours}h{minutes}m{}s", seconds % 60)
        }
        (_, _) if millis < 100_000 => format!("{millis}ms"),
        (rest, seconds) => format!("{seconds}s{rest}ms"),
    })
}

fn milliseconds(field: &Cursor<'_>) -> Option<u64> {
    let text = field.text()?;
    let read = || {
        let (mut rest, mut total) = (text, 0.0);
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (digits, unit) = rest.split_at(end);
            let number: f64 = digits.parse().ok()?;
            let (factor, length) = match unit {
                unit if unit.starts_with("ms") => (1.0, 2),
                unit if unit.starts_with('s') => (1000.0, 1),
                unit if unit.starts_with('m') => (60_000.0, 1),
                unit if unit.starts_with('h') => (3_600_000.0, 1),
                _ => return None,
            };
            total += number * factor;
            rest = unit.get(length..)?;
        }
        serde_json::Value::from(number_of(total)?).as_u64()
    };
    let found = read();
    if found.is_none() {
        field.lost(format!("`{text}` is not a duration"));
    }
    found
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was just asked")]
fn number_of(millis: f64) -> Option<u64> {
    // What is more than nothing stays so: 0 would be without limit.
    (0.0..=9e12).contains(&millis).then(|| millis.ceil() as u64)
}
