//! What `explain` prints.

use std::fmt::Write as _;

use serde_json::{Value, json};
use towpath_config::{ClientValidationMode, Duty, Snapshot, rule_settings};
use towpath_gateway_core::Fault;
use towpath_routing::{Candidate, Explanation, Lost};

use super::{Line, Refused, Told, not_found};
use crate::Program;
use crate::args::ExplainArgs;

/// How many candidates the text shows unless all are asked for.
const SHOWN: usize = 20;

pub(super) fn json((args, line): (&ExplainArgs, &Line), snapshot: &Snapshot, told: &[Told<'_>]) -> Value {
    let headers: Vec<_> = args
        .header
        .iter()
        .map(|header| format!("{}: {}", header.0, String::from_utf8_lossy(header.1.as_bytes())))
        .collect();
    let request = json!({
        "method": line.method.as_str(),
        "url": line.url.to_string(),
        "headers": headers,
    });
    json!({
        "request": request,
        "errors": snapshot.errors().count(),
        "sockets": told.iter().map(socket).collect::<Vec<_>>(),
    })
}

fn socket(told: &Told<'_>) -> Value {
    let (name, address) = (&*told.socket.name, told.socket.address.to_string());
    let (seen, decision, candidates) = match &told.answer {
        Err(refused) => (Value::Null, refusal(refused), Vec::new()),
        Ok(explained) => {
            let seen = json!({"host": explained.host, "target": explained.target});
            match &explained.answer {
                Err(fault) => (seen, refused_by(fault), Vec::new()),
                Ok(explanation) => (seen, decision(explanation), candidates(explanation)),
            }
        }
    };
    json!({
        "name": name,
        "address": address,
        "clients": clients(told),
        "seen": seen,
        "decision": decision,
        "candidates": candidates,
    })
}

/// What the handshake asks of the client, whatever the request.
fn clients(told: &Told<'_>) -> Option<&'static str> {
    let Duty::Edge { tls: Some(tls), .. } = &told.socket.duty else { return None };
    Some(match tls.clients.as_ref()?.mode {
        ClientValidationMode::AllowValidOnly => {
            "show a certificate of the listener's authorities, or the handshake fails"
        }
        ClientValidationMode::AllowInsecureFallback => "are asked for a certificate, and taken without one",
    })
}

fn refusal(refused: &Refused) -> Value {
    match refused {
        Refused::Handshake(why) => json!({"outcome": "handshake", "message": why}),
        Refused::Answer(fault) => refused_by(fault),
    }
}

fn refused_by(fault: &Fault) -> Value {
    answer(fault.status().as_u16(), fault.reason().label(), fault.detail())
}

fn answer(status: u16, reason: &str, message: &str) -> Value {
    json!({"outcome": "answer", "status": status, "reason": reason, "message": message})
}

fn decision(explanation: &Explanation<'_>) -> Value {
    let Some(winner) = explanation.winner else {
        let (status, reason) = not_found();
        return answer(status.as_u16(), reason, "no rule takes the request");
    };
    let mut value = candidate(winner);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("outcome".into(), "rule".into());
        fields.insert("settings".into(), rule_settings(winner.matched()));
    }
    value
}

fn candidates(explanation: &Explanation<'_>) -> Vec<Value> {
    let lost = explanation.lost.iter().map(|(lost, why)| {
        let mut value = candidate(*lost);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("reason".into(), why.reason().into());
            fields.insert("message".into(), why.to_string().into());
        }
        value
    });
    lost.collect()
}

fn candidate(candidate: Candidate<'_>) -> Value {
    let matched = candidate.matched();
    json!({
        "listener": &*matched.listener,
        "rule": matched.name.to_string(),
        "match": candidate.place(),
        "conditions": candidate.to_string(),
    })
}

pub(super) fn text(
    (args, asked): (&ExplainArgs, &Line),
    snapshot: &Snapshot,
    program: Program,
    told: &[Told<'_>],
) -> String {
    let mut text = format!("request   {} {}\n", asked.method, asked.url);
    for told in told {
        let _ = writeln!(text, "socket    {} on {}", told.socket.name, told.socket.address);
        if let Some(clients) = clients(told) {
            let _ = writeln!(text, "clients   {clients}");
        }
        match &told.answer {
            Err(Refused::Handshake(why)) => {
                let _ = writeln!(text, "answer    none: the TLS handshake ends, for {why}");
            }
            Err(Refused::Answer(fault)) => {
                let _ = writeln!(text, "{}", line(fault));
            }
            Ok(explained) => {
                let _ = writeln!(text, "seen as   {} with host {}", explained.target, explained.host);
                match &explained.answer {
                    Err(fault) => {
                        let _ = writeln!(text, "{}", line(fault));
                    }
                    Ok(explanation) => outcome(&mut text, explanation, args.all),
                }
            }
        }
    }
    let errors = snapshot.errors().count();
    if errors > 0 {
        let (program, plural) = (program.name(), if errors == 1 { "" } else { "s" });
        let _ =
            writeln!(text, "note      the configuration has {errors} error{plural}: see `{program} check`");
    }
    text
}

fn line(fault: &Fault) -> String {
    format!("answer    {} {}: {}", fault.status().as_u16(), fault.reason(), fault.detail())
}

fn outcome(text: &mut String, explanation: &Explanation<'_>, all: bool) {
    if let Some(winner) = explanation.winner {
        let matched = winner.matched();
        let _ = writeln!(text, "listener  {}\nrule      {}: {winner}", matched.listener, matched.name);
        let rule = rule_settings(matched);
        for backend in rule.get("backends").and_then(Value::as_array).into_iter().flatten() {
            let _ = writeln!(text, "backend   {}", self::backend(backend));
        }
        for part in ["filters", "policies"] {
            match rule.get(part) {
                Some(given) if *given != json!([]) && *given != json!({}) => {
                    let _ = writeln!(text, "{part:9} {given}");
                }
                _ => {}
            }
        }
    } else {
        let (status, reason) = not_found();
        let _ = writeln!(text, "answer    {} {reason}: no rule takes the request", status.as_u16());
    }
    lost(text, explanation, all);
}

fn backend(backend: &Value) -> String {
    let name = backend.get("name").and_then(Value::as_str).unwrap_or_default();
    let endpoints = backend.get("endpoints").and_then(Value::as_array).map(Vec::len);
    let state = match (backend.get("resolved").and_then(Value::as_bool), endpoints.unwrap_or_default()) {
        (Some(false), _) => "nothing behind the name: 500".to_owned(),
        (_, 0) => "no endpoint is ready: 503".to_owned(),
        (_, 1) => "1 endpoint".to_owned(),
        (_, count) => format!("{count} endpoints"),
    };
    let weight = backend.get("weight").and_then(Value::as_u64).unwrap_or_default();
    format!("{name}, weight {weight}, {state}")
}

fn lost(text: &mut String, explanation: &Explanation<'_>, all: bool) {
    let shown = if all { explanation.lost.len() } else { SHOWN.min(explanation.lost.len()) };
    let place = |(candidate, why): &(Candidate<'_>, Lost<'_>)| {
        let matched = candidate.matched();
        match why {
            Lost::ListenerHostname | Lost::ListenerIsolation => {
                format!("{} at {}", matched.name, matched.listener)
            }
            _ => matched.name.to_string(),
        }
    };
    let lines: Vec<_> = explanation
        .lost
        .iter()
        .take(shown)
        .map(|lost| (place(lost), lost.0.to_string(), lost.1.to_string()))
        .collect();
    let width = |of: fn(&(String, String, String)) -> &String| lines.iter().map(|line| of(line).len()).max();
    let widths = (width(|line| &line.0).unwrap_or_default(), width(|line| &line.1).unwrap_or_default());
    for (name, conditions, why) in &lines {
        let _ = writeln!(text, "not       {name:0$}  {conditions:1$}  {why}", widths.0, widths.1);
    }
    if shown < explanation.lost.len() {
        let _ = writeln!(text, "          and {} more: --all shows them", explanation.lost.len() - shown);
    }
}
