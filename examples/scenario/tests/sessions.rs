//! Persistent sessions over sockets: a client comes back to where it was, and nowhere that it likes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use support::{Running, World, free, get, send, service_of, wait_for};

fn cookie(answer: &str) -> Option<&str> {
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
    line.split(';').next()
}

#[test]
fn a_client_comes_back_to_its_endpoint() {
    // Two services behind one rule, by weight, both kept by one session.
    let other = free();
    let _second = Running::start(&["service", "--name", "other", "--listen", &other.to_string()]);
    wait_for("the second service", || get(other, "/page").is_some());
    let rule = "    - matches: [{path: {type: PathPrefix, value: /cart}}]
      sessionPersistence: {sessionName: cart, absoluteTimeout: 1h, idleTimeout: 10m}
      backendRefs: [{name: app, port: 80}, {name: other, port: 80}]
";
    let world = World::start(rule, &service_of("other", other));
    let names =
        |answer: &str| answer.split("\"service\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for _ in 0..10 {
        let first = send(world.address, "GET /cart HTTP/1.1", "");
        let token = cookie(&first).unwrap_or_else(|| panic!("no cookie: {first}"));
        assert!(first.contains("; Path=/cart; HttpOnly; SameSite=Lax\r\n"), "{first}");
        for _ in 0..4 {
            let next = send(world.address, &format!("GET /cart/next HTTP/1.1\r\ncookie: a=b; {token}"), "");
            assert_eq!(names(&next), names(&first));
        }
    }
    // The address of an endpoint is no token: the session begins anew.
    let forged = send(world.address, &format!("GET /cart HTTP/1.1\r\ncookie: cart={other}"), "");
    assert!(forged.starts_with("HTTP/1.1 200 ") && cookie(&forged).is_some(), "{forged}");
    let elsewhere = send(world.address, "GET /page HTTP/1.1", "");
    assert!(cookie(&elsewhere).is_none(), "a rule without sessions gives none");
}
