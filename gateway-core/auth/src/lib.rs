//! Who is asking (API keys), and may they (Istio authorization policies).

mod api_key;
mod authorization;

pub use api_key::{ApiKeyDigest, ApiKeyLocation, ApiKeys};
pub use authorization::{Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, Operation, Pattern, Source};
