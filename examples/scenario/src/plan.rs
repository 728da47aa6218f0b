//! Which processes a scenario is made of, where each runs and how it is started. Pure: nothing is started here.

use std::net::SocketAddr;
use std::path::Path;

use towpath_config::Scenario;

use crate::net::{Host, Network};

/// Port that stands for the Gateway's port 80 at gateway and ingress.
pub(crate) const HTTP: u16 = 8080;
/// Port that stands for the Gateway's port 443 at gateway and ingress.
pub(crate) const HTTPS: u16 = 8443;
/// Inbound port of every sidecar.
pub(crate) const INBOUND: u16 = 15006;
const ADMIN: u16 = 15000;
const SIDECAR_ADMIN: u16 = 15020;
const OUTBOUND: u16 = 15101;
const APP: u16 = 9080;
const PLANE: u16 = 15012;

/// Everything that a run starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) gateway: Host,
    pub(crate) ingress: Host,
    pub(crate) plane: Host,
    pub(crate) recorder: SocketAddr,
    /// The first service behind the edge.
    pub(crate) front: Workload,
    /// Every service instance, the front one included.
    pub(crate) workloads: Vec<Workload>,
}

/// One service instance with its sidecar.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) pod: &'static str,
    pub(crate) app: &'static str,
    pub(crate) version: &'static str,
    pub(crate) cluster: &'static str,
    pub(crate) vm: bool,
    pub(crate) host: Host,
    calls: &'static [&'static str],
}

/// One process to start.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Unique name, also of its log.
    pub(crate) name: String,
    /// The program word.
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
    /// Where `/ready` answers, for programs that have one.
    pub(crate) admin: Option<SocketAddr>,
    /// Address that accepts once the process serves, where there is no `/ready`.
    pub(crate) listens: Option<SocketAddr>,
}

impl Workload {
    /// Its SPIFFE id.
    pub(crate) fn identity(&self) -> String {
        identity("bookshop", self.app)
    }

    /// Where other hosts reach its sidecar.
    pub(crate) fn inbound(&self) -> SocketAddr {
        self.host.at(INBOUND)
    }

    /// Admin address of its sidecar.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.host.own(SIDECAR_ADMIN)
    }

    /// Where its application reaches the sidecar for calls to `service`.
    pub(crate) fn outbound(&self, service: &str) -> Option<SocketAddr> {
        let at = self.calls.iter().position(|call| *call == service)?;
        Some(self.host.own(OUTBOUND + u16::try_from(at).ok()?))
    }
}

/// The SPIFFE id of a service account of the demonstration.
pub(crate) fn identity(namespace: &str, account: &str) -> String {
    format!("spiffe://bookshop.example/ns/{namespace}/sa/{account}")
}

impl Plan {
    /// The plan of a scenario in a network: two clusters, a VM, the edge and the plane.
    pub(crate) fn new(scenario: Scenario, network: &Network) -> Self {
        let pod = |pod, app, version, cluster, host, calls| Workload {
            pod,
            app,
            version,
            cluster,
            vm: false,
            host,
            calls,
        };
        let (east, west) = (3, 4);
        let front =
            pod("productpage-0", "productpage", "v1", "east", network.host(east, 1), &["details", "reviews"]);
        Self {
            scenario,
            plane: network.host(1, 1),
            gateway: network.host(1, 2),
            ingress: network.host(2, 1),
            recorder: network.host(9, 1).at(INBOUND),
            front: front.clone(),
            workloads: vec![
                front,
                pod("details-0", "details", "v1", "east", network.host(east, 2), &[]),
                pod("reviews-v1-0", "reviews", "v1", "east", network.host(east, 3), &["ratings"]),
                pod("reviews-v2-0", "reviews", "v2", "west", network.host(west, 1), &["ratings"]),
                pod("reviews-v3-0", "reviews", "v3", "west", network.host(west, 2), &["ratings"]),
                Workload { vm: true, ..pod("ratings-vm", "ratings", "v1", "vm", network.host(5, 1), &[]) },
            ],
        }
    }

    /// Whether the ingress is part of it.
    pub(crate) fn has_ingress(&self) -> bool {
        self.scenario == Scenario::Ingress
    }

    /// Whether the gateway has a sidecar of its own.
    pub(crate) fn has_attached_sidecar(&self) -> bool {
        self.scenario == Scenario::Attached
    }

    /// Whether the gateway itself is a workload of the mesh.
    pub(crate) fn gateway_in_mesh(&self) -> bool {
        self.scenario == Scenario::GatewayApi
    }

    /// The workload of this pod name.
    pub(crate) fn workload(&self, pod: &str) -> Option<&Workload> {
        self.workloads.iter().find(|w| w.pod == pod)
    }

    /// Where the edge leg really ends: the ingress, or the sidecar of the first service.
    pub(crate) fn edge_leg_end(&self) -> SocketAddr {
        if self.has_ingress() { self.ingress.at(HTTP) } else { self.front.inbound() }
    }

    /// SPIFFE ids that need a join token, by the name of the token's file.
    pub(crate) fn identities(&self) -> Vec<(String, String)> {
        let mut ids: Vec<_> = self.workloads.iter().map(|w| (w.pod.to_owned(), w.identity())).collect();
        ids.push(("gateway-0".to_owned(), identity("edge", "gateway")));
        ids.push(("ingress-0".to_owned(), identity("mesh-system", "ingress")));
        ids.push(("stranger".to_owned(), identity("bookshop", "stranger")));
        ids
    }

    /// Every process, in the order of starting.
    pub(crate) fn parts(&self, dir: &Path) -> Vec<Part> {
        let mut parts = vec![self.plane_part(dir)];
        for workload in &self.workloads {
            parts.push(app_part(workload));
            parts.push(self.sidecar_part(dir, workload));
        }
        if self.has_ingress() {
            parts.push(self.ingress_part(dir));
        }
        if self.has_attached_sidecar() {
            parts.push(self.attached_part(dir));
        }
        parts.push(self.gateway_part(dir));
        parts
    }

    /// The control plane's address.
    pub(crate) fn plane_address(&self) -> SocketAddr {
        self.plane.at(PLANE)
    }

    fn plane_part(&self, dir: &Path) -> Part {
        let args = vec![
            flag("--listen", self.plane_address()),
            flag("--state", dir.join("plane").display()),
            flag("--config", dir.join("config").display()),
            flag("--trust-domain", "bookshop.example"),
        ];
        Part {
            name: "control-plane".into(),
            program: "control-plane",
            args,
            admin: None,
            listens: Some(self.plane_address()),
        }
    }

    fn gateway_part(&self, dir: &Path) -> Part {
        let mut map = edge_map(self.gateway);
        if self.has_attached_sidecar() {
            map = format!("{map},{}", self.attached_map());
        }
        let mut args = vec![
            flag("--config", dir.join("config").display()),
            flag("--config", dir.join("edge-secrets").display()),
            flag("--workload", "edge/gateway-0"),
            flag("--port-map", map),
            flag("--workers", 1),
            flag("--admin", self.gateway.own(ADMIN)),
        ];
        if self.gateway_in_mesh() {
            args.extend(self.joined(dir, "gateway-0"));
        }
        Part {
            name: "gateway".into(),
            program: "gateway",
            args,
            admin: Some(self.gateway.own(ADMIN)),
            listens: None,
        }
    }

    fn ingress_part(&self, dir: &Path) -> Part {
        let admin = self.ingress.own(ADMIN);
        let mut args = vec![
            flag("--config", format!("plane={}", self.plane_address())),
            flag("--config", dir.join("edge-secrets").display()),
            flag("--workload", "mesh-system/ingress-0"),
            flag("--port-map", edge_map(self.ingress)),
            flag("--workers", 1),
            flag("--admin", admin),
        ];
        args.extend(self.joined(dir, "ingress-0"));
        Part { name: "ingress".into(), program: "ingress", args, admin: Some(admin), listens: None }
    }

    fn attached_part(&self, dir: &Path) -> Part {
        let admin = self.gateway.own(SIDECAR_ADMIN);
        let mut args = vec![
            flag("--config", format!("plane={}", self.plane_address())),
            flag("--workload", "edge/gateway-0"),
            flag("--port-map", self.attached_map()),
            flag("--workers", 1),
            flag("--admin", admin),
        ];
        args.extend(self.joined(dir, "gateway-0"));
        Part { name: "gateway-sidecar".into(), program: "sidecar", args, admin: Some(admin), listens: None }
    }

    fn sidecar_part(&self, dir: &Path, workload: &Workload) -> Part {
        let inbound = format!("{APP}={}>{}", workload.inbound(), workload.host.own(APP));
        let mut args = vec![
            flag("--config", format!("plane={}", self.plane_address())),
            flag("--workload", format!("bookshop/{}", workload.pod)),
            flag("--inbound", inbound),
            flag("--workers", 1),
            flag("--admin", workload.admin()),
        ];
        let map: Vec<_> =
            workload.calls.iter().filter_map(|call| Some((call, workload.outbound(call)?))).collect();
        if !map.is_empty() {
            let entries: Vec<_> =
                map.iter().map(|(call, at)| format!("bookshop/{call}:{APP}={at}")).collect();
            args.push(flag("--port-map", entries.join(",")));
        }
        args.extend(self.joined(dir, workload.pod));
        let name = format!("{}-sidecar", workload.pod);
        Part { name, program: "sidecar", args, admin: Some(workload.admin()), listens: None }
    }

    fn joined(&self, dir: &Path, token: &str) -> [String; 2] {
        [
            flag("--identity", format!("plane={}", self.plane_address())),
            flag("--join-token", dir.join("tokens").join(token).display()),
        ]
    }

    fn attached_map(&self) -> String {
        format!("bookshop/productpage:{APP}={}", self.gateway.own(OUTBOUND))
    }
}

/// Where a host has the Gateway's two ports.
fn edge_map(host: Host) -> String {
    format!("edge/shop:80={},edge/shop:443={}", host.at(HTTP), host.at(HTTPS))
}

fn app_part(workload: &Workload) -> Part {
    let listen = workload.host.own(APP);
    let mut args = vec![
        flag("--name", workload.app),
        flag("--version", workload.version),
        flag("--cluster", workload.cluster),
        flag("--listen", listen),
    ];
    args.extend(
        workload
            .calls
            .iter()
            .filter_map(|call| Some(flag("--call", format!("{call}=http://{}/", workload.outbound(call)?)))),
    );
    Part { name: workload.pod.to_owned(), program: "service", args, admin: None, listens: Some(listen) }
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name}={value}")
}
