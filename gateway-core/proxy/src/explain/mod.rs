//! `explain`: where a request goes, and why nowhere else.

mod facts;
mod report;
mod request;

use std::process::ExitCode;
use std::time::SystemTime;

use http::StatusCode;
use towpath_config::{Duty, Listener, Snapshot, compile};
use towpath_gateway_core::Fault;
use towpath_routing::{Normalization, Routes};
use towpath_stacks::{Explained, Side, explain as ask};

use crate::args::{ExplainArgs, Output};
use crate::check::{options, print, read};
use crate::listener::edge_certificates;
use crate::{Failure, Program};

#[cfg(test)]
pub(crate) use facts::decide;
pub(crate) use request::{HeaderLine, Line};

/// What becomes of a request before the table of a socket is asked.
enum Refused {
    /// No certificate is for the name: the handshake ends.
    Handshake(String),
    /// It is answered with this.
    Answer(Fault),
}

/// What is said about one socket.
struct Told<'t> {
    socket: &'t Listener,
    answer: Result<Explained<'t>, Refused>,
}

/// Prints what becomes of a request, or of each of many.
pub(crate) fn explain(program: Program, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    match (&args.facts, &args.request, &args.from) {
        (Some(file), ..) => facts::explain(program, args, file),
        (None, Some(line), Some(peer)) => facts::explain_from(program, args, line, peer),
        (None, Some(line), None) => explain_request(program, args, line),
        (None, None, _) => Err("give --request or --facts".into()),
    }
}

/// Prints what the sockets that the request reaches do with it.
fn explain_request(program: Program, args: &ExplainArgs, line: &Line) -> Result<ExitCode, Failure> {
    let source = read(&args.compile)?;
    let snapshot = compile(&source, &options(program, &args.compile, SystemTime::now()), None);
    let sockets = reached(&snapshot, args, line)?;
    let tables: Vec<_> =
        sockets.iter().map(|(socket, routes)| (*socket, Routes::new(routes.to_vec()))).collect();
    let side = match program {
        Program::Gateway | Program::Ingress => Side::Edge,
        Program::Sidecar => Side::Mesh,
    };
    let mut told = Vec::new();
    for (socket, routes) in &tables {
        told.push(Told { socket, answer: answer(side, socket, routes, (args, line))? });
    }
    match args.output {
        Output::Json => print(&format_args!("{:#}\n", report::json((args, line), &snapshot, &told))),
        Output::Text => print(&report::text((args, line), &snapshot, program, &told)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The sockets for the URL's scheme and port: by the port that the resources name, else by the one that is listened on.
fn reached<'s>(
    snapshot: &'s Snapshot,
    args: &ExplainArgs,
    line: &Line,
) -> Result<Vec<(&'s Listener, &'s [towpath_routing::Listener])>, Failure> {
    let listeners = snapshot.listeners.iter().flat_map(Listener::all);
    let http = listeners.filter_map(|listener| match &listener.duty {
        Duty::Edge { tls, routes, .. } => Some((listener, routes.as_slice(), tls.is_some())),
        Duty::Outbound { routes, .. } => Some((listener, routes.as_slice(), false)),
        _ => None,
    });
    let all: Vec<_> = http.collect();
    let named = |listener: &Listener| {
        args.listener
            .as_ref()
            .is_none_or(|name| *name == *listener.name || *name == listener.address.to_string())
    };
    let by = |on: &dyn Fn(&Listener, &[towpath_routing::Listener]) -> bool| -> Vec<_> {
        let fits = |(listener, routes, https): &&(&'s Listener, &'s [towpath_routing::Listener], bool)| {
            *https == line.https && on(listener, routes) && named(listener)
        };
        all.iter().filter(fits).map(|(listener, routes, _)| (*listener, *routes)).collect()
    };
    let mut found = by(&|_, routes| routes.iter().any(|listener| listener.port == line.port));
    if found.is_empty() {
        found = by(&|listener, _| listener.address.port() == line.port);
    }
    if found.is_empty() {
        let there: Vec<_> = all
            .iter()
            .map(|(listener, _, https)| {
                format!(
                    "{} ({} on {})",
                    listener.name,
                    if *https { "https" } else { "http" },
                    listener.address
                )
            })
            .collect();
        let scheme = if line.https { "https" } else { "http" };
        let there = if there.is_empty() { "none at all".to_owned() } else { there.join(", ") };
        let port = line.port;
        return Err(format!("no socket takes {scheme} requests on port {port}; there is {there}").into());
    }
    Ok(found)
}

fn answer<'t>(
    side: Side,
    socket: &Listener,
    routes: &'t Routes,
    (args, line): (&ExplainArgs, &Line),
) -> Result<Result<Explained<'t>, Refused>, Failure> {
    let server_name = request::server_name(line, args.server_name.as_deref());
    if let Duty::Edge { tls: Some(tls), .. } = &socket.duty
        && !edge_certificates(tls)?.serves(server_name)
    {
        let name = server_name.unwrap_or("a client that names no host");
        return Ok(Err(Refused::Handshake(format!("no certificate is for {name}"))));
    }
    let request = request::request(line, &args.header, server_name, socket.address)?;
    let normalization = match &socket.duty {
        Duty::Edge { guard, .. } | Duty::Inbound { guard, .. } => guard.normalization,
        Duty::Outbound { normalization, .. } => *normalization,
        _ => Normalization::mesh(),
    };
    Ok(ask(side, normalization, routes, request).map_err(Refused::Answer))
}

/// The answer to a request that no rule takes.
fn not_found() -> (StatusCode, &'static str) {
    let reason = towpath_gateway_core::Reason::NoRoute;
    (reason.status(), reason.label())
}
