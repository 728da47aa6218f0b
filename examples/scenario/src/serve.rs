//! Keeps a scenario up for trying things by hand.

use std::path::Path;

use crate::checks::World;
use crate::client::HOST;
use crate::launch;
use crate::plan::{HTTP, HTTPS};

/// Prints what to try, and waits for Ctrl-C.
pub(crate) async fn until_interrupted(world: &World, dir: &Path) {
    let edge = world.plan.gateway.at(HTTPS);
    let ca = dir.join("edge-ca.crt");
    let curl = format!("curl --cacert {} --resolve {HOST}:{}:{}", ca.display(), edge.port(), edge.ip());
    let url = format!("https://{HOST}:{}", edge.port());
    println!("Everything stays up. Try:\n");
    println!("  {curl} {url}/page");
    println!("  {curl} -H 'x-api-key: alice-demo-key' {url}/api/books");
    println!("  {curl} {url}/admin                    # refused by a policy");
    println!("  curl -i -H 'Host: {HOST}' http://{}/page", world.plan.gateway.at(HTTP));
    for (name, path) in [("metrics", "metrics"), ("configuration", "config")] {
        println!(
            "  curl http://{}/{path}            # the {name} of the front sidecar",
            world.plan.front.admin()
        );
    }
    println!("\nResources: {} (edit a file: it takes effect at once)", dir.join("config").display());
    println!("Logs:      {}\n\nCtrl-C stops every process.", dir.join("logs").display());
    launch::interrupted().await;
}
