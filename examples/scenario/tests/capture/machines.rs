//! Machines that are network namespaces, a wire between two of them, and what runs on each.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::support::{MeshDir, wait_for};

const SCENARIO: &str = env!("CARGO_BIN_EXE_scenario");

/// What rules are written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Nft,
    Iptables,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Nft => Self::Iptables,
            Self::Iptables => Self::Nft,
        }
    }

    /// The commands that list all rules.
    fn listings(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Nft => &[&["nft", "list", "ruleset"]],
            Self::Iptables => &[&["iptables", "-t", "nat", "-S"], &["ip6tables", "-t", "nat", "-S"]],
        }
    }
}

/// Whether a program is installed; says so if not.
fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: `{program}` is not installed");
    }
    there
}

/// Two machines with a wire between them.
pub struct Wire {
    pub near: Machine,
    pub far: Machine,
}

impl Wire {
    /// Lays it, with the addresses of the two and routes from the near one to `services` by the far one. `None`, and a word
    /// of why, where namespaces or the tool are not to be had.
    pub fn laid(tool: Tool, near: [&str; 2], far: [&str; 2], services: [&str; 2]) -> Option<Self> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("towpath-{}-{number}-{side}", std::process::id());
        let (a, b) = (name("a"), name("b"));
        if !["ip", tool.name(), "setpriv", "bash"].into_iter().all(installed) {
            return None;
        }
        let mut machines = Vec::new();
        for name in [a, b] {
            if let Err(why) = tried(&["ip", "netns", "add", &name]) {
                eprintln!("skipped: no network namespaces can be made here: {why}");
                return None;
            }
            machines.push(Machine { name, tool, rules_before: String::new() });
        }
        let [near_machine, far_machine] = <[Machine; 2]>::try_from(machines).ok()?;
        let (a, b) = (&near_machine.name, &far_machine.name);
        done(&["ip", "-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b]);
        for (machine, addresses) in [(&near_machine, near), (&far_machine, far)] {
            let name = &machine.name;
            done(&["ip", "-n", name, "link", "set", "lo", "up"]);
            done(&["ip", "-n", name, "link", "set", "wire", "up"]);
            done(&["ip", "-n", name, "address", "add", &format!("{}/24", addresses[0]), "dev", "wire"]);
            let v6 = format!("{}/64", addresses[1]);
            done(&["ip", "-n", name, "address", "add", &v6, "dev", "wire", "nodad"]);
        }
        for (service, via) in services.iter().zip(far) {
            done(&["ip", "-n", a, "route", "add", service, "via", via]);
        }
        let mut wire = Self { near: near_machine, far: far_machine };
        for machine in [&mut wire.near, &mut wire.far] {
            for listing in tool.listings() {
                if let Err(why) = tried(&machine.inside(listing)) {
                    eprintln!("skipped: {} does not work in a namespace here: {why}", listing[0]);
                    return None;
                }
            }
            machine.rules_before = machine.rules();
        }
        Some(wire)
    }
}

/// A network namespace of its own.
pub struct Machine {
    name: String,
    tool: Tool,
    pub rules_before: String,
}

impl Machine {
    fn inside<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        ["ip", "netns", "exec", &self.name].into_iter().chain(command.iter().copied()).collect()
    }

    fn start(&self, command: &[&str]) -> Process {
        let line = self.inside(command);
        let mut process = Command::new(line[0]);
        process.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Process(process.spawn().unwrap())
    }

    /// The example application.
    pub fn service(&self, address: &str) -> Process {
        let process = self.start(&[SCENARIO, "service", "--listen", address]);
        let (_, port) = address.rsplit_once(':').unwrap();
        wait_for("the application", || !self.get(&[], "127.0.0.1", port.parse().unwrap()).is_empty());
        process
    }

    /// The sidecar of a pod, as root, which is not captured.
    pub fn sidecar(&self, config: &MeshDir, account: &str) -> Process {
        self.sidecar_before("127.0.0.1", config, account)
    }

    /// The same, for an application at this address.
    pub fn sidecar_before(&self, application: &str, config: &MeshDir, account: &str) -> Process {
        let (files, identity, workload) = (config.config(), config.identity(account), format!("{account}-0"));
        let process = self.start(&[
            SCENARIO,
            "sidecar",
            "--config",
            &files,
            "--workload",
            &workload,
            "--identity",
            &identity,
            "--capture-inbound",
            "0.0.0.0:15006,[::]:15006",
            "--capture-outbound",
            "127.0.0.1:15001,[::1]:15001",
            "--capture-app",
            application,
            "--admin",
            "127.0.0.1:15021",
            "--workers",
            "1",
        ]);
        wait_for("the sidecar", || self.get(&[], "127.0.0.1", 15021).starts_with("HTTP/1.1 "));
        process
    }

    /// Runs `capture` and says what it said.
    pub fn capture(&self, args: &[&str]) -> String {
        let args = [args, &["--tool", self.tool.name()]].concat();
        self.capture_under(&[], &args).unwrap_or_else(|why| panic!("{}: {why}", args.join(" ")))
    }

    /// Runs `capture` under another command, with the tool that its arguments name: what it said, or why it failed.
    pub fn capture_under(&self, command: &[&str], args: &[&str]) -> Result<String, String> {
        tried(&self.inside(&[command, &[SCENARIO, "sidecar", "capture"], args].concat()))
    }

    /// All rules there are.
    pub fn rules(&self) -> String {
        self.rules_of(self.tool)
    }

    /// All rules that this tool knows of.
    pub fn rules_of(&self, tool: Tool) -> String {
        tool.listings().iter().map(|listing| done(&self.inside(listing))).collect()
    }

    /// What a client that knows of no sidecar is answered; empty if the connection is refused or closed.
    pub fn client_get(&self, host: &str, port: u16) -> String {
        self.get(&AS_CLIENT, host, port)
    }

    /// The same for a client that is not captured.
    pub fn sidecars_user_get(&self, host: &str, port: u16) -> String {
        self.get(&[], host, port)
    }

    /// Connects again and again, and ends with the first connection that comes about.
    pub fn knocking(&self, host: &str, port: u16) -> Process {
        self.start(&["bash", "-c", &format!("until : <>/dev/tcp/{host}/{port}; do :; done")])
    }

    fn get(&self, user: &[&str], host: &str, port: u16) -> String {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} || exit 0; printf 'GET /headers HTTP/1.1\\r\\nHost: app\\r\\nConnection: \
             close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let line = [user, &["timeout", "10", "bash", "-c", &script]].concat();
        let output = Command::new("ip").args(&self.inside(&line)[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A user that is neither root nor anybody who owns something.
const AS_CLIENT: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = tried(&["ip", "netns", "del", &self.name]);
    }
}

/// Ended with its handle.
pub struct Process(Child);

impl Process {
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tried(line: &[&str]) -> Result<String, String> {
    let output = Command::new(line[0]).args(&line[1..]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn done(line: &[&str]) -> String {
    tried(line).unwrap_or_else(|why| panic!("{}: {why}", line.join(" ")))
}
