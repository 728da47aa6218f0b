//! Who is asking (API keys), and may they (Istio authorization policies, external authorization services).

mod admit;
mod api_key;
mod authorization;
mod authorize;
mod authorize_connection;
mod credential;
mod custom_authorize;
mod external;
mod external_auth;
mod forward_client_cert;
mod jwt;
mod jwt_layer;
mod key_layer;
mod recheck;
mod request_facts;

pub use admit::AdmitFuture;
pub use api_key::{ApiKeyDigest, ApiKeyLocation, ApiKeys, InvalidDigest};
pub use authorization::{
    Action, AuthorizationPolicies, AuthorizationPolicy, AuthorizationRule, Condition, Facts, Ground, Http,
    HttpFacts, InvalidTemplate, NamespacePattern, Needs, Operation, PathPattern, PathTemplate, Pattern,
    RequestPrincipal, ServiceAccount, Source, Values, Verdict,
};
pub use authorize::{Authorize, AuthorizeLayer};
pub use authorize_connection::{AuthorizeConnection, ConnectionAuthorizeLayer};
pub use custom_authorize::{CustomAuthorize, CustomAuthorizeLayer};
pub use external::{
    ExternalAuth, ExternalAuthProtocol, ExternalBody, ExternalChanges, ExternalHttp, ExternalVerdict,
    HeaderNames, ask_external, ask_external_connection,
};
pub use external_auth::{AskExternally, ExternalAuthFuture, ExternalAuthLayer};
pub use forward_client_cert::{ForwardClientCert, ForwardClientCertLayer};
pub use jwt::{
    InvalidKeySet, JwtRule, KeySet, RequestAuthentications, TokenLocation, TokenRefusal, TokenRefused,
};
pub use jwt_layer::{CheckTokens, JwtLayer};
pub use key_layer::{ApiKeyLayer, CheckApiKey};
pub use recheck::{Recheck, RecheckLayer};
