//! What stands behind every proxy: nginx with a fixed answer, or our own `service` where there is no nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::process::{Pin, Process};
use crate::{Failure, client, net, tools};

/// Bytes of the small answer.
pub(crate) const SMALL: usize = 128;
/// Bytes of the large answer.
pub(crate) const LARGE: usize = 1 << 20;

/// A running backend.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
    _process: Process,
}

impl Backend {
    /// Starts it and waits for its first answer.
    pub(crate) fn start(dir: &Path, pin: &Pin) -> Result<Self, Failure> {
        let address = net::free()?;
        let (name, program, args) = match tools::NGINX.find() {
            Some(nginx) => ("nginx", nginx, nginx_args(dir, address)?),
            None => ("service", std::env::current_exe()?, service_args(address)),
        };
        let mut process = Process::start(pin, "backend", &program, &args, dir)?;
        client::wait_for_answer(&mut process, address, None, "/", None)?;
        Ok(Self { address, name, _process: process })
    }

    /// Bytes of its answer to a path, where they are known.
    pub(crate) fn answers(&self, path: &str) -> Option<usize> {
        match (self.name, path) {
            ("nginx", "/large") => Some(LARGE),
            ("nginx", _) => Some(SMALL),
            _ => None,
        }
    }

    /// Path of the large answer.
    pub(crate) fn large(&self) -> String {
        if self.name == "nginx" { "/large".to_owned() } else { format!("/download?bytes={LARGE}") }
    }
}

fn service_args(address: SocketAddr) -> Vec<String> {
    vec!["service".to_owned(), format!("--listen={address}")]
}

fn nginx_args(dir: &Path, address: SocketAddr) -> Result<Vec<String>, Failure> {
    let files = dir.join("files");
    fs::create_dir_all(&files)?;
    fs::write(files.join("large"), vec![b'x'; LARGE])?;
    let server = format!(
        "open_file_cache max=16 inactive=600s; output_buffers 2 256k; default_type text/plain;\n\
         server {{ listen {address} backlog=4096; root {};\n\
         location / {{ return 200 '{}'; }} location = /large {{ tcp_nopush on; }} }}",
        files.display(),
        "x".repeat(SMALL)
    );
    let file = nginx_file(dir, "backend", &server)?;
    Ok(vec!["-p".into(), dir.display().to_string(), "-c".into(), file.display().to_string()])
}

/// Writes an nginx configuration of one process in the foreground around `http`; also used by nginx as a proxy.
pub(crate) fn nginx_file(dir: &Path, name: &str, http: &str) -> Result<PathBuf, Failure> {
    let own = dir.join(format!("nginx-{name}"));
    fs::create_dir_all(&own)?;
    let own_path = own.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own_path}/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {own_path}/pid; error_log stderr crit;\n\
         worker_rlimit_nofile 20000; events {{ worker_connections 8192; }}\n\
         http {{ access_log off; {temporary} sendfile on; tcp_nodelay on;\n\
         keepalive_timeout 300; keepalive_requests 1000000000;\n{http}\n}}\n"
    );
    let file = own.join("nginx.conf");
    fs::write(&file, text)?;
    Ok(file)
}
