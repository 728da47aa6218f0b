//! A proxy of one's own: two backends behind a split, one worker per core, drained on Ctrl-C.
//!
//! `cargo run --bin custom-proxy -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use tower::ServiceBuilder;
use towpath_gateway_core::{Backend, Balance, Endpoint, HttpService, Live, RescueLayer, RouteName};
use towpath_routing::{
    FilterLayer, Listener, NormalizeLayer, Route, RouteLayer, Routes, Rule, WeightedBackend,
};
use towpath_server::{ConnectionService, Drain, Limits, Serve, Workers, bind};
use towpath_upstream::{EDGE_CONNECT_TIMEOUT, TcpConnector, client};

fn backend(name: &str, address: SocketAddr) -> Arc<Backend> {
    Arc::new(Backend::new(name, Balance::LeastRequest, vec![Arc::new(Endpoint::plaintext(address))]))
}

/// Nine requests of ten go to the stable backend, one to the canary.
fn routes(stable: SocketAddr, canary: SocketAddr, port: u16) -> Routes {
    let split = vec![
        WeightedBackend::new(backend("stable", stable), 9),
        WeightedBackend::new(backend("canary", canary), 1),
    ];
    let rule = Rule::new(RouteName::new("site", "split"), Vec::new(), split);
    Routes::new(vec![Listener::http("public", port, vec![Route::new("site", vec![rule])])])
}

fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Result<Vec<SocketAddr>, _> = std::env::args().skip(1).map(|arg| arg.parse()).collect();
    let [listen, stable, canary] = addresses?[..] else {
        return Err("usage: custom-proxy LISTEN STABLE CANARY".into());
    };
    let (limits, drain) = (Limits::edge(), Drain::default());
    let workers = Workers::start(std::thread::available_parallelism()?.get())?;
    let routes = Live::new(routes(stable, canary, listen.port()));
    let draining = drain.clone();
    let stack = move |_worker| {
        let http = ServiceBuilder::new()
            .layer(RescueLayer::new())
            .layer(NormalizeLayer::edge())
            .layer(RouteLayer::new(routes.clone()))
            .layer(FilterLayer::new())
            .service(client(TcpConnector::new(EDGE_CONNECT_TIMEOUT)));
        ConnectionService::new(Serve::new(HttpService::new(http), limits, draining.clone()))
    };
    let listening = workers.open(bind(listen, workers.count())?, stack, &limits, &drain)?;
    println!("listening on {}", listening.local_addr());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::signal::ctrl_c().await?;
        drain.signal();
        drain.drained().await;
        workers.shutdown();
        Ok(())
    })
}
