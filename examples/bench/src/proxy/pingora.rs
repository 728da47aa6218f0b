//! pingora: a library, so that the program is the caller's. It is called with its listeners, the backend, a certificate
//! with key, and the number of threads.

use super::{Ground, Role, Start};
use crate::{Failure, net, tools};

pub(super) fn start(role: Role, ground: &Ground) -> Result<Option<Start>, Failure> {
    if role != Role::Edge {
        return Ok(None);
    }
    let (plain, tls) = (net::free()?, net::free()?);
    let server = &ground.certificates.server;
    let args = vec![
        plain.to_string(),
        tls.to_string(),
        ground.backend.to_string(),
        server.certificate.display().to_string(),
        server.key.display().to_string(),
        "1".to_owned(),
    ];
    Ok(Some(Start { program: tools::PINGORA.need()?, args, plain: Some(plain), tls: Some(tls) }))
}
