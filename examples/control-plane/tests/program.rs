//! The program as its users meet it: its processes, their output, and what a workload gets from them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use towpath_ca::{JoinToken, TokenKey, request};
use towpath_control::PlaneClient;
use towpath_mesh_mtls::Identity;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

struct Plane {
    process: Child,
    address: SocketAddr,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("TOWPATH_LOG");
    command
}

fn output(args: &[&str]) -> (Output, String) {
    let output = program(args).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output, errors)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts the program on a free port and waits for the line that says it is ready.
fn start(state: &Path, config: &Path) -> Plane {
    let args = ["--listen", "127.0.0.1:0", "--state", text(state), "--config", text(config)];
    let mut process = program(&args).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let line =
        lines.by_ref().map(Result::unwrap).find(|line| line.contains("is ready")).expect("a ready line");
    let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // The pipe must not fill up.
    std::thread::spawn(move || lines.count());
    Plane { process, address }
}

fn token(state: &Path) -> JoinToken {
    let (output, errors) = output(&["token", "--state", text(state), "--identity", ID]);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "the token stands alone");
    JoinToken::parse(&text).unwrap()
}

#[tokio::test]
async fn a_workload_joins_with_a_printed_token_and_a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, config) = (dir.path().join("state"), dir.path().join("config"));
    fs::create_dir(&config).unwrap();
    fs::write(config.join("a.yaml"), "kind: Service\n").unwrap();
    // Before the plane ever ran: the token makes the state.
    let token = token(&state);
    let mut roots = Vec::new();
    for _ in 0..2 {
        let plane = start(&state, &config);
        let client = PlaneClient::new(&plane.address.to_string(), token.clone()).unwrap();
        let credential = request(&client, Some(&ID.parse().unwrap()), SystemTime::now).await.unwrap();
        roots.push(credential.bundle().to_pem());
        assert_eq!(client.fetch_config(None).await.unwrap().files[0].text, "kind: Service\n");
        // From now on the certificate is proof enough.
        let useless = TokenKey::generate().unwrap().mint(
            client.id(),
            token.root(),
            Duration::from_mins(1),
            SystemTime::now(),
        );
        let client =
            PlaneClient::new(&plane.address.to_string(), JoinToken::parse(&useless).unwrap()).unwrap();
        assert!(client.fetch_config(None).await.is_err());
        let client = client.with_identity(Identity::new(credential));
        assert_eq!(client.fetch_config(None).await.unwrap().files.len(), 1);
    }
    assert_eq!(roots[0], roots[1]);
    let minted =
        towpath_control_plane::mint_token(&state, &ID.parse().unwrap(), Duration::from_mins(1)).unwrap();
    assert_eq!(JoinToken::parse(&minted).unwrap().root(), token.root());
}

#[cfg(unix)]
#[test]
fn sigterm_ends_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = start(&dir.path().join("state"), dir.path());
    let pid = plane.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(plane.process.wait().unwrap().success());
}

#[test]
fn what_is_wrong_is_told_and_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (good, broken) = (dir.path().join("good"), dir.path().join("broken"));
    let (good, absent) = (text(&good), dir.path().join("absent"));
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("root.key"), "x").unwrap();
    let any = "127.0.0.1:0";
    for (args, expected) in [
        (vec!["--listen", &address, "--state", good], "already in use"),
        (vec!["--listen", any, "--state", good, "--config", text(&absent)], "absent"),
        (vec!["--listen", any, "--state", text(&broken)], "root.crt is missing"),
        (
            vec!["--listen", any, "--state", good, "--trust-domain", "other"],
            "trust domain cluster.local, not other",
        ),
        (vec!["token", "--state", good, "--identity", "spiffe://other/ns/a/sa/b"], "not other"),
        (
            vec![
                "token",
                "--state",
                good,
                "--identity",
                "spiffe://cluster.local/ns/towpath-system/sa/control-plane",
            ],
            "own identity",
        ),
        (vec![], "Usage"),
    ] {
        let (output, errors) = output(&args);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(errors.contains(expected), "{args:?}: {errors}");
    }
}
