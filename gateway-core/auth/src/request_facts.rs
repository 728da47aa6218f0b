//! What authorization policies are asked about a request.

use http::header::HOST;
use http::{HeaderMap, Request, Uri};
use towpath_gateway_core::{Connection, Context, Fault, Reason};

use crate::{Facts, Http, HttpFacts};

/// Gives `look` the facts of a request. `port` takes the place of the connection's.
pub(crate) fn with_facts<B, T>(
    request: &Request<B>,
    context: &Context,
    port: Option<u16>,
    look: impl FnOnce(&Facts<'_>) -> T,
) -> Result<T, Fault> {
    let http = Http::Request(HttpFacts {
        method: request.method().as_str(),
        host: host(request.uri(), request.headers())?,
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        token: context.token(),
    });
    let mut facts = match context.connection() {
        Some(connection) => of_connection(connection, port, http),
        None => Facts { port, http, ..Facts::default() },
    };
    if let Some(client) = context.client() {
        facts.remote_ip = Some(*client);
    }
    Ok(look(&facts))
}

/// The facts of a connection.
pub(crate) fn of_connection<'a>(connection: &'a Connection, port: Option<u16>, http: Http<'a>) -> Facts<'a> {
    Facts {
        principal: connection.identity(),
        source_ip: Some(connection.peer.ip()),
        remote_ip: Some(connection.peer.ip()),
        destination_ip: Some(connection.local.ip()),
        port: Some(port.unwrap_or(connection.local.port())),
        server_name: connection.server_name(),
        http,
    }
}

/// The host with port, as sent: the authority of the target, else the one `Host` field (RFC 9112 section 3.2).
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Fault> {
    if let Some(authority) = uri.authority() {
        let authority = authority.as_str();
        return Ok(Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host)));
    }
    let mut fields = headers.get_all(HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        // A host that no pattern can be compared with must not slip past a DENY policy.
        (Some(host), None) => host.to_str().map(Some).map_err(|error| bad_host().with_source(error)),
        (Some(_), Some(_)) => Err(bad_host()),
    }
}

fn bad_host() -> Fault {
    Fault::new(Reason::BadRequest).with_detail("several Host fields, or one that is not text")
}
