//! Routes of layer 4 as data, and their table: `TLSRoute` by server name, `TCPRoute` and `UDPRoute` by listener alone.

use std::sync::Arc;

use towpath_gateway_core::RouteName;

use crate::filter::{Draw, Split};
use crate::table::ByHost;
use crate::{Hostname, WeightedBackend};

/// A listener of layer 4 with the routes attached to it.
#[derive(Debug, Clone)]
pub struct FlowListener {
    /// `namespace/gateway/listener`, for logs.
    pub name: Arc<str>,
    /// Server names it is for; any where no TLS hello is looked at.
    pub hostname: Hostname,
    /// Routes attached, their host names already narrowed to this listener's.
    pub routes: Vec<FlowRoute>,
}

/// One route resource of layer 4, as far as it concerns one listener.
#[derive(Debug, Clone)]
pub struct FlowRoute {
    /// Name for logs and metrics.
    pub name: RouteName,
    /// When the object was made, in seconds since the epoch: of equal routes the oldest wins.
    pub created: i64,
    /// Server names it is for; empty means [`Hostname::Any`].
    pub hostnames: Vec<Hostname>,
    /// Where flows go. Filters and the like of a backend are of HTTP and without effect here.
    pub backends: Vec<WeightedBackend>,
}

/// The routes of layer 4 that are served on one socket; the default table takes nothing.
///
/// Precedence (Gateway API, `Listener.hostname` and `TLSRouteSpec.hostnames`):
/// 1. The listener with the most specific host name that stands for the server name; the others are not asked.
/// 2. Among its routes, host names from the most to the least specific.
/// 3. The oldest route, then `namespace/name` in alphabetical order.
///
/// A flow without server name is for listeners and routes without host name alone.
#[derive(Debug, Default)]
pub struct FlowRoutes {
    listeners: ByHost<ByHost<Option<Arc<Taken>>>>,
}

/// A route at its place in the table.
#[derive(Debug)]
struct Taken {
    name: RouteName,
    created: i64,
    split: Split,
}

impl Taken {
    fn seniority(&self) -> (i64, &str) {
        (self.created, &self.name.route)
    }
}

/// The route that took a flow, and the backend that its share fell to.
#[derive(Debug)]
pub struct FlowMatch<'a> {
    /// Name for logs and metrics.
    pub name: &'a RouteName,
    /// `None` if the route has no backend of positive weight.
    pub backend: Option<&'a WeightedBackend>,
}

impl FlowRoutes {
    /// Builds the index.
    pub fn new(listeners: Vec<FlowListener>) -> Self {
        let mut table = Self::default();
        for listener in listeners {
            let hosts = table.listeners.at(&listener.hostname);
            for route in listener.routes {
                attach(hosts, route);
            }
        }
        table
    }

    /// The route for a server name in lower case, empty if there is none, and a backend by weight.
    pub fn decide(&self, server_name: &str, draw: &impl Draw) -> Option<FlowMatch<'_>> {
        let hosts = self.listeners.most_specific(server_name)?;
        let taken = hosts.matching(server_name).find_map(Option::as_deref)?;
        let backend = taken.split.choose(draw).and_then(|place| taken.split.backends().get(place));
        Some(FlowMatch { name: &taken.name, backend })
    }
}

fn attach(hosts: &mut ByHost<Option<Arc<Taken>>>, route: FlowRoute) {
    let FlowRoute { name, created, mut hostnames, backends } = route;
    if hostnames.is_empty() {
        hostnames.push(Hostname::Any);
    }
    let taken = Arc::new(Taken { name, created, split: Split::over(backends) });
    for hostname in &hostnames {
        let place = hosts.at(hostname);
        if place.as_ref().is_none_or(|there| taken.seniority() < there.seniority()) {
            *place = Some(Arc::clone(&taken));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use towpath_gateway_core::Backend;

    use super::*;

    fn route(name: &str, created: i64, hostnames: &[&str]) -> FlowRoute {
        FlowRoute {
            name: RouteName::new(name, "0"),
            created,
            hostnames: hostnames.iter().map(|name| name.parse().unwrap()).collect(),
            backends: vec![WeightedBackend::new(Arc::new(Backend::unresolved(name)), 1)],
        }
    }

    fn listener(hostname: &str, routes: Vec<FlowRoute>) -> FlowListener {
        FlowListener { name: hostname.into(), hostname: hostname.parse().unwrap(), routes }
    }

    fn taker<'t>(table: &'t FlowRoutes, name: &str) -> Option<&'t str> {
        table.decide(name, &|_| 0).map(|found| &*found.name.route)
    }

    #[test]
    fn the_most_specific_names_win_and_listeners_are_isolated() {
        let table = FlowRoutes::new(vec![
            listener("*", vec![route("n/any", 0, &[]), route("n/a", 0, &["a.example"])]),
            listener(
                "*.w.example",
                vec![route("n/x", 0, &["x.w.example"]), route("n/w", 0, &["*.w.example"])],
            ),
            listener("lonely.w.example", vec![]),
        ]);
        for (name, wanted) in [
            ("", Some("n/any")),
            ("a.example", Some("n/a")),
            ("b.example", Some("n/any")),
            ("x.w.example", Some("n/x")),
            ("y.w.example", Some("n/w")),
            ("w.example", Some("n/any")),
            ("lonely.w.example", None),
        ] {
            assert_eq!(taker(&table, name), wanted, "{name}");
        }
    }

    #[test]
    fn without_a_server_name_only_what_names_none_takes_it() {
        let table = FlowRoutes::new(vec![listener("*.example", vec![route("n/a", 0, &["a.example"])])]);
        assert_eq!(taker(&table, ""), None);
        assert_eq!(taker(&FlowRoutes::default(), "a.example"), None);
    }

    #[test]
    fn a_route_without_weight_has_no_backend() {
        let mut bare = route("n/r", 0, &[]);
        bare.backends.clear();
        let table = FlowRoutes::new(vec![listener("*", vec![bare])]);
        assert!(table.decide("", &|_| 0).is_some_and(|found| found.backend.is_none()));
    }

    proptest! {
        #[test]
        fn of_equal_routes_the_oldest_wins_in_any_order(ages in proptest::collection::vec(0_i64..4, 1..6), seed in 0_usize..6) {
            let mut routes: Vec<_> =
                ages.iter().enumerate().map(|(at, age)| route(&format!("n/{at}"), *age, &["a.example"])).collect();
            let oldest = ages.iter().enumerate().min_by_key(|(at, age)| (**age, *at)).map(|(at, _)| format!("n/{at}"));
            let turn = seed % routes.len();
            routes.rotate_left(turn);
            let table = FlowRoutes::new(vec![listener("*", routes)]);
            prop_assert_eq!(taker(&table, "a.example").map(str::to_owned), oldest);
        }
    }
}
