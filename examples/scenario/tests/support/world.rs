//! A gateway whose routes a test adds to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{GATEWAY, Running, free, get, route, wait_for, write};

/// A gateway that logs to a file, in front of the application.
pub struct World {
    pub address: SocketAddr,
    dir: TempDir,
    port_map: String,
    _programs: [Running; 2],
}

impl World {
    /// `rule` goes before the application's own rule; `more` are further objects.
    pub fn start(rule: &str, more: &str) -> Self {
        let (app, address, admin) = (free(), free(), free());
        let service = Running::start(&["service", "--name", "app", "--listen", &app.to_string()]);
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        std::fs::create_dir(&config).unwrap();
        write(&config, "gateway.yaml", GATEWAY);
        let routes = route(app).replace("  rules:\n", &format!("  rules:\n{rule}"));
        write(&config, "route.yaml", &format!("{routes}---\n{more}"));
        let port_map = format!("edge/web:80={address}");
        let gateway = Running::start(&[
            "gateway",
            "--config",
            &config.display().to_string(),
            "--port-map",
            &port_map,
            "--admin",
            &admin.to_string(),
            "--access-log",
            &dir.path().join("access.log").display().to_string(),
            "--workers",
            "1",
        ]);
        wait_for("the service", || get(app, "/page").is_some());
        wait_for("the gateway", || get(admin, "/ready").is_some_and(|answer| answer.status == 200));
        Self { address, dir, port_map, _programs: [service, gateway] }
    }

    /// The directory that it serves.
    pub fn config(&self) -> String {
        self.dir.path().join("config").display().to_string()
    }

    /// Where its listeners are.
    pub fn port_map(&self) -> &str {
        &self.port_map
    }

    /// The line of the access log for a path, once it is there.
    pub fn logged(&self, path: &str) -> serde_json::Value {
        let file = self.dir.path().join("access.log");
        let find = |file: &Path| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let mut lines =
                text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.find(|line| line["path"] == path)
        };
        wait_for("the line in the log", || find(&file).is_some());
        find(&file).unwrap()
    }
}

/// Head and body of the answer to one request on a connection of its own, as they came.
pub fn send(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{head}\r\nhost: shop.example.com\r\nconnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A Service of this name with one endpoint.
pub fn service_of(name: &str, address: SocketAddr) -> String {
    let whole = route(address);
    let (_, service) = whole.split_once("---\n").unwrap();
    service
        .replace("name: app", &format!("name: {name}"))
        .replace("service-name: app", &format!("service-name: {name}"))
}
