//! nginx as a proxy.

use std::fmt::Write as _;
use std::path::Path;

use super::{Ground, Role, Start, prefix};
use crate::backend::nginx_file;
use crate::certificates::NAME;
use crate::{Failure, net, tools};

const PASS: &str = "proxy_pass http://u;";

pub(super) fn start(role: Role, dir: &Path, ground: &Ground) -> Result<Start, Failure> {
    let plain = if role == Role::Accept { None } else { Some(net::free()?) };
    let tls = if matches!(role, Role::Edge | Role::Accept) { Some(net::free()?) } else { None };
    let mut servers = String::new();
    if let Some(address) = plain {
        let _ = writeln!(servers, "server {{ listen {address} backlog=4096; {} }}", locations(role, ground));
    }
    if let Some(address) = tls {
        let asks = if role == Role::Accept { "ssl_verify_client on;" } else { "" };
        let ends = ending(ground);
        let _ = writeln!(
            servers,
            "server {{ listen {address} ssl http2 backlog=4096; {ends} {asks} location / {{ {PASS} }} }}"
        );
    }
    let next = if let Role::Originate(next) = role { next } else { ground.backend };
    let http = format!(
        "upstream u {{ server {next}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 300s; }}\n\
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_max_temp_file_size 0;\n{servers}"
    );
    let file = nginx_file(dir, "proxy", &http)?;
    let args = vec!["-p".into(), dir.display().to_string(), "-c".into(), file.display().to_string()];
    Ok(Start { program: tools::NGINX.need()?, args, plain, tls })
}

fn locations(role: Role, ground: &Ground) -> String {
    let (client, root) = (&ground.certificates.client, ground.certificates.root.display());
    match role {
        Role::Table(count) => {
            let all: Vec<_> =
                (0..count).map(|number| format!("location {} {{ {PASS} }}\n", prefix(number))).collect();
            all.concat()
        }
        Role::Originate(_) => format!(
            "proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; proxy_ssl_protocols TLSv1.3;\n\
             proxy_ssl_trusted_certificate {root}; proxy_ssl_verify on; proxy_ssl_server_name on;\n\
             proxy_ssl_name {NAME}; location / {{ proxy_pass https://u; }}",
            client.certificate.display(),
            client.key.display(),
        ),
        Role::Edge | Role::Accept | Role::Logging(_) => format!("location / {{ {PASS} }}"),
    }
}

fn ending(ground: &Ground) -> String {
    let server = &ground.certificates.server;
    format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; ssl_client_certificate {};",
        server.certificate.display(),
        server.key.display(),
        ground.certificates.root.display(),
    )
}
