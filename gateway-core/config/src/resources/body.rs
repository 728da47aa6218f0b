//! How the body of each kind is read: those of policies and routes strictly, those of Kubernetes' own kinds leniently.

use super::backend_tls::BackendTlsPolicySpec;
use super::core::{ConfigMap, EndpointSlice, Namespace, Pod, Secret, Service};
use super::filter::HttpRouteFilterSpec;
use super::gateway::{GatewayClassSpec, GatewaySpec, ListenerSetSpec, ReferenceGrantSpec};
use super::istio::{
    AuthorizationPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec, WorkloadEntrySpec,
};
use super::meta::Strict;
use super::route::{GrpcRouteSpec, HttpRouteSpec, PortRouteSpec, TlsRouteSpec};
use super::towpath::{ApiKeyPolicySpec, ConsumerSpec, MeshSpec, RateLimitPolicySpec};
use super::traffic::BackendTrafficPolicySpec;
use crate::document::{Defect, Document};
use crate::objects::Body;
use crate::{backend_tls, check, extension, retry_budget};

macro_rules! lenient {
    ($($kind:ty),*) => {
        $(impl Body for $kind {
            fn read(document: &Document<'_>) -> Result<Self, Defect> {
                document.read()
            }
        })*
    };
}

macro_rules! strict {
    ($kind:ty, $absent:expr, $check:expr) => {
        impl Body for $kind {
            fn read(document: &Document<'_>) -> Result<Self, Defect> {
                let absent: fn() -> Result<Self, Defect> = $absent;
                document.read::<Strict<Self>>()?.spec.map_or_else(absent, Ok)
            }

            fn check(&self, found: &mut Vec<Defect>) {
                let check: fn(&Self, &mut Vec<Defect>) = $check;
                check(self, found);
            }
        }
    };
}

fn required<S>() -> Result<S, Defect> {
    Err(Defect { location: None, message: "missing field `spec`".into(), suggestion: None })
}

#[expect(clippy::unnecessary_wraps, reason = "the same form as `required`")]
fn empty<S: Default>() -> Result<S, Defect> {
    Ok(S::default())
}

fn nothing<S>(_: &S, _: &mut Vec<Defect>) {}

lenient!(Namespace, ConfigMap, Secret, Service, Pod, EndpointSlice);
strict!(GatewayClassSpec, required, nothing);
strict!(GatewaySpec, required, check::gateway);
strict!(ListenerSetSpec, required, check::listener_set);
strict!(HttpRouteSpec, required, check::http_route);
strict!(GrpcRouteSpec, required, check::grpc_route);
strict!(TlsRouteSpec, required, check::flow_route);
strict!(PortRouteSpec, required, check::flow_route);
strict!(BackendTlsPolicySpec, required, backend_tls::check);
strict!(BackendTrafficPolicySpec, required, retry_budget::check);
strict!(ReferenceGrantSpec, required, nothing);
strict!(PeerAuthenticationSpec, empty, nothing);
strict!(AuthorizationPolicySpec, empty, nothing);
strict!(RequestAuthenticationSpec, empty, nothing);
strict!(WorkloadEntrySpec, required, check::workload_entry);
strict!(MeshSpec, empty, check::mesh);
strict!(ApiKeyPolicySpec, required, nothing);
strict!(ConsumerSpec, empty, check::consumer);
strict!(HttpRouteFilterSpec, required, extension::check);
strict!(RateLimitPolicySpec, required, check::rate_limit_policy);
