//! The objects that were read, by kind and name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde_saphyr::Location;

use crate::document::{Defect, Document, Place};
use crate::kinds::Kind;
use crate::resources::backend_tls::BackendTlsPolicySpec;
use crate::resources::core::{ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service};
use crate::resources::filter::HttpRouteFilterSpec;
use crate::resources::gateway::{GatewayClassSpec, GatewaySpec, ListenerSetSpec, ReferenceGrantSpec};
use crate::resources::istio::{
    AuthorizationPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec, WorkloadEntrySpec,
};
use crate::resources::meta::{Metadata, Named};
use crate::resources::route::{GrpcRouteSpec, HttpRouteSpec, ParentRef, PortRouteSpec, TlsRouteSpec};
use crate::resources::towpath::{ApiKeyPolicySpec, ConsumerSpec, MeshSpec, RateLimitPolicySpec, TargetRef};
use crate::resources::traffic::BackendTrafficPolicySpec;
use crate::{ObjectName, Problem};

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// An object with what is needed to speak about it.
#[derive(Debug)]
pub(crate) struct Stored<S> {
    pub(crate) api_version: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) name: ObjectName,
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds since the epoch; an object without a time counts as the newest.
    pub(crate) created: i64,
    pub(crate) generation: Option<i64>,
    /// Only to be tried out, not in force (`istio.io/dry-run`).
    pub(crate) dry_run: bool,
    pub(crate) place: Place,
    pub(crate) spec: S,
}

impl<S> Stored<S> {
    /// `Kind namespace/name`.
    pub(crate) fn label(&self) -> String {
        label(self.kind, &self.name)
    }

    /// An error in this object; without location at its first line.
    pub(crate) fn error(&self, location: impl Into<Option<Location>>, message: impl Into<String>) -> Problem {
        Problem::error(message).at(self.place.at(location.into())).about(self.label())
    }

    /// A warning about this object; without location at its first line.
    pub(crate) fn warning(
        &self,
        location: impl Into<Option<Location>>,
        message: impl Into<String>,
    ) -> Problem {
        Problem::warning(message).at(self.place.at(location.into())).about(self.label())
    }

    /// Sorts the oldest first, then by name: the order in which objects that compete win.
    pub(crate) fn seniority(&self) -> (i64, &ObjectName) {
        (self.created, &self.name)
    }
}

/// `Kind namespace/name`, without namespace where the kind has none.
pub(crate) fn label(kind: &str, name: &ObjectName) -> String {
    if name.namespace.is_empty() { format!("{kind} {}", name.name) } else { format!("{kind} {name}") }
}

/// An object that could not be read and has no earlier version.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) api_version: Arc<str>,
    pub(crate) kind: &'static str,
    /// Without namespace where that cannot be told.
    pub(crate) name: ObjectName,
    pub(crate) generation: Option<i64>,
    /// What it was attached to, if that much could be read.
    pub(crate) targets: Option<Vec<TargetRef>>,
    pub(crate) parents: Vec<ParentRef>,
    pub(crate) reason: String,
}

impl Refused {
    /// The namespace that a security policy of Istio is for: that of the whole mesh if its own cannot be told.
    pub(crate) fn scope<'a>(&'a self, root: &'a Arc<str>) -> &'a Arc<str> {
        if self.name.namespace.is_empty() { root } else { &self.name.namespace }
    }

    /// `Kind namespace/name`.
    pub(crate) fn label(&self) -> String {
        label(self.kind, &self.name)
    }
}

/// How the body of an object is read and checked by itself.
pub(crate) trait Body: Sized {
    fn read(document: &Document<'_>) -> Result<Self, Defect>;

    /// What is wrong with the body whatever other objects there are.
    fn check(&self, _found: &mut Vec<Defect>) {}
}

type Table<S> = BTreeMap<ObjectName, Arc<Stored<S>>>;

macro_rules! kinds {
    ($($kind:ident($spec:ty) in $group:literal $scope:ident => $table:ident;)*) => {
        /// An object of one of the kinds that are compiled.
        #[derive(Debug, Clone)]
        pub(crate) enum Object {
            $($kind(Arc<Stored<$spec>>),)*
        }

        /// All objects. Of two with the same kind and name the first stays.
        #[derive(Debug, Default)]
        pub(crate) struct Objects {
            $(pub(crate) $table: Table<$spec>,)*
            pub(crate) refused: Vec<Arc<Refused>>,
        }

        /// Group, kind, and whether objects have a namespace.
        pub(crate) const KINDS: &[Kind] = &[$(($group, stringify!($kind), namespaced!($scope)),)*];

        impl Object {
            pub(crate) fn kind(&self) -> &'static str {
                match self { $(Self::$kind(object) => object.kind,)* }
            }

            pub(crate) fn name(&self) -> &ObjectName {
                match self { $(Self::$kind(object) => &object.name,)* }
            }

            pub(crate) fn read(identity: &Identity, document: &Document<'_>, place: &Place) -> Result<Self, Vec<Defect>> {
                match (identity.group, identity.kind) {
                    $(($group, stringify!($kind)) => identity.store(document, place).map(|o| Self::$kind(Arc::new(o))),)*
                    _ => Err(Vec::new()),
                }
            }
        }

        impl Objects {
            pub(crate) fn insert(&mut self, object: &Object, problems: &mut Vec<Problem>) {
                match object { $(Object::$kind(object) => put(&mut self.$table, object, problems),)* }
            }
        }
    };
}

macro_rules! namespaced {
    (Namespaced) => {
        true
    };
    (Cluster) => {
        false
    };
}

kinds! {
    GatewayClass(GatewayClassSpec) in "gateway.networking.k8s.io" Cluster => gateway_classes;
    Gateway(GatewaySpec) in "gateway.networking.k8s.io" Namespaced => gateways;
    ListenerSet(ListenerSetSpec) in "gateway.networking.k8s.io" Namespaced => listener_sets;
    HTTPRoute(HttpRouteSpec) in "gateway.networking.k8s.io" Namespaced => http_routes;
    GRPCRoute(GrpcRouteSpec) in "gateway.networking.k8s.io" Namespaced => grpc_routes;
    TLSRoute(TlsRouteSpec) in "gateway.networking.k8s.io" Namespaced => tls_routes;
    TCPRoute(PortRouteSpec) in "gateway.networking.k8s.io" Namespaced => tcp_routes;
    UDPRoute(PortRouteSpec) in "gateway.networking.k8s.io" Namespaced => udp_routes;
    BackendTLSPolicy(BackendTlsPolicySpec) in "gateway.networking.k8s.io" Namespaced => backend_tls_policies;
    XBackendTrafficPolicy(BackendTrafficPolicySpec) in "gateway.networking.x-k8s.io" Namespaced => backend_traffic_policies;
    ReferenceGrant(ReferenceGrantSpec) in "gateway.networking.k8s.io" Namespaced => reference_grants;
    Namespace(Namespace) in "" Cluster => namespaces;
    Service(Service) in "" Namespaced => services;
    Secret(Secret) in "" Namespaced => secrets;
    ConfigMap(ConfigMap) in "" Namespaced => config_maps;
    Pod(Pod) in "" Namespaced => pods;
    EndpointSlice(EndpointSlice) in "discovery.k8s.io" Namespaced => endpoint_slices;
    PeerAuthentication(PeerAuthenticationSpec) in "security.istio.io" Namespaced => peer_authentications;
    AuthorizationPolicy(AuthorizationPolicySpec) in "security.istio.io" Namespaced => authorization_policies;
    RequestAuthentication(RequestAuthenticationSpec) in "security.istio.io" Namespaced => request_authentications;
    WorkloadEntry(WorkloadEntrySpec) in "networking.istio.io" Namespaced => workload_entries;
    Mesh(MeshSpec) in "towpath.dev" Cluster => meshes;
    ApiKeyPolicy(ApiKeyPolicySpec) in "towpath.dev" Namespaced => api_key_policies;
    Consumer(ConsumerSpec) in "towpath.dev" Namespaced => consumers;
    HTTPRouteFilter(HttpRouteFilterSpec) in "towpath.dev" Namespaced => http_route_filters;
    RateLimitPolicy(RateLimitPolicySpec) in "towpath.dev" Namespaced => rate_limit_policies;
}

/// What a document is, by its header.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) api_version: Arc<str>,
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

impl Identity {
    /// That of a kind.
    pub(crate) fn of((group, kind, namespaced): Kind, api_version: &str) -> Self {
        Self { api_version: api_version.into(), group, kind, namespaced }
    }

    /// The name that an object of this identity has by its metadata.
    pub(crate) fn name(&self, metadata: &Metadata) -> ObjectName {
        let namespace =
            metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        ObjectName {
            namespace: if self.namespaced { namespace.into() } else { "".into() },
            name: metadata.name.value.as_str().into(),
        }
    }

    /// Whether there may be such a namespace (DNS label, RFC 1123), where the kind has one.
    pub(crate) fn has_place(&self, metadata: &Metadata) -> bool {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        !self.namespaced || (namespace.len() <= 63 && namespace.bytes().all(allowed))
    }

    fn store<S: Body>(&self, document: &Document<'_>, place: &Place) -> Result<Stored<S>, Vec<Defect>> {
        let metadata = document.read::<Named>().map_err(|defect| vec![defect])?.metadata;
        let mut defects = Vec::new();
        if let Err(message) = check_name(&metadata.name.value) {
            defects.push(Defect::new(metadata.name.referenced, message));
        }
        if !self.has_place(&metadata) {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let message =
                format!("`{namespace}` is not a namespace: small letters, digits and '-', at most 63");
            defects.push(Defect { location: None, message, suggestion: None });
        }
        let spec = S::read(document).map_err(|defect| vec![defect])?;
        spec.check(&mut defects);
        if !defects.is_empty() {
            return Err(defects);
        }
        Ok(Stored {
            api_version: Arc::clone(&self.api_version),
            kind: self.kind,
            name: self.name(&metadata),
            labels: metadata.labels.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(i64::MAX, |time| time.0),
            generation: metadata.generation,
            dry_run: metadata.annotations.and_then(|a| a.dry_run).is_some_and(|dry_run| is_true(&dry_run)),
            place: place.clone(),
            spec,
        })
    }
}

/// What Istio takes for true (Go, `strconv.ParseBool`).
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The widest of the rules that Kubernetes has for names (DNS subdomain, RFC 1123).
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
        return Err(format!("`{name}` is not an object name: letters, digits, '-' and '.', at most 253"));
    }
    Ok(())
}

fn put<S>(table: &mut Table<S>, object: &Arc<Stored<S>>, problems: &mut Vec<Problem>) {
    match table.entry(object.name.clone()) {
        Entry::Vacant(entry) => {
            entry.insert(Arc::clone(object));
        }
        Entry::Occupied(entry) => {
            let first = entry.get().place.at(None);
            let message = format!("is there twice: the one at {}:{} stays in force", first.file, first.line);
            problems.push(object.error(None, message).suggest("remove or rename one of them"));
        }
    }
}
