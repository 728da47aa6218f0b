//! `HAProxy`.

use std::fmt::Write as _;
use std::path::Path;

use super::{Ground, Role, Start, prefix, written};
use crate::certificates::NAME;
use crate::{Failure, net, tools};

const HEAD: &str = "global
 nbthread 1
 maxconn 9000
defaults
 mode http
 timeout connect 5s
 timeout client 300s
 timeout server 300s
 timeout http-keep-alive 300s
 option http-keep-alive
 option forwardfor
 http-reuse always
 backlog 4096
frontend f
";

pub(super) fn start(role: Role, dir: &Path, ground: &Ground) -> Result<Start, Failure> {
    let plain = if role == Role::Accept { None } else { Some(net::free()?) };
    let tls = if matches!(role, Role::Edge | Role::Accept) { Some(net::free()?) } else { None };
    let mut text = HEAD.to_owned();
    if let Some(address) = plain {
        let _ = writeln!(text, " bind {address}");
    }
    let root = ground.certificates.root.display();
    if let Some(address) = tls {
        let asks =
            if role == Role::Accept { format!(" ca-file {root} verify required") } else { String::new() };
        let pair = ground.certificates.server.combined.display();
        let _ = writeln!(text, " bind {address} ssl crt {pair} alpn h2,http/1.1 ssl-min-ver TLSv1.3{asks}");
    }
    text.push_str(&rule(role, dir)?);
    text.push_str("backend u\n");
    let _ = match role {
        Role::Originate(next) => writeln!(
            text,
            " server u {next} ssl crt {} ca-file {root} verify required verifyhost {NAME} sni str({NAME}) \
             ssl-min-ver TLSv1.3",
            ground.certificates.client.combined.display()
        ),
        _ => writeln!(text, " server u {}", ground.backend),
    };
    let args = vec!["-db".into(), "-f".into(), written(dir, "haproxy.cfg", &text)?];
    Ok(Start { program: tools::HAPROXY.need()?, args, plain, tls })
}

fn rule(role: Role, dir: &Path) -> Result<String, Failure> {
    let Role::Table(count) = role else { return Ok(" default_backend u\n".to_owned()) };
    let lines: Vec<_> = (0..count).map(|number| format!("{} u\n", prefix(number))).collect();
    let map = lines.concat();
    Ok(format!(" use_backend %[path,map_beg({})]\n", written(dir, "routes.map", &map)?))
}
