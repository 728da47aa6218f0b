//! Serves the application on one port and its admin endpoints on another.
//!
//! Try `curl -H 'x-api-key: alice-demo-key' http://127.0.0.1:8080/` six times, then
//! `curl http://127.0.0.1:8081/metrics`.

use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use towpath_embed_axum::{Arrived, app};
use towpath_gateway_core::Live;
use towpath_observability::{AccessLog, Admin, Metrics, ProcessFacts, Readiness, Recorder};

#[tokio::main]
async fn main() -> io::Result<()> {
    let (metrics, ready) = (Metrics::new(), Readiness::new());
    let facts = ProcessFacts::new("embed-axum", "demo/embed-axum", "local");
    let log = AccessLog::stdout()?;
    let recorder = Recorder::new(facts, metrics.shard(), log.clone());
    let admin: Router = Router::new().fallback_service(Admin::new(ready.clone(), metrics, Live::default()));

    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    let admin_listener = TcpListener::bind("127.0.0.1:8081").await?;
    eprintln!("http://127.0.0.1:8080/ (key alice-demo-key), admin http://127.0.0.1:8081/");
    // The admin endpoints stay up while the application drains, so that probes see it.
    tokio::spawn(async move { axum::serve(admin_listener, admin).await });
    let service = app(recorder.listener("http")).into_make_service_with_connect_info::<Arrived>();
    axum::serve(listener, service).with_graceful_shutdown(stopped(ready)).await?;
    // The lines of the last requests may still wait for their writer.
    log.flush(Duration::from_secs(1));
    Ok(())
}

async fn stopped(ready: Readiness) {
    // Without a handler for the signal the process ends by it, which is what was asked for.
    let _ = tokio::signal::ctrl_c().await;
    ready.draining();
}
